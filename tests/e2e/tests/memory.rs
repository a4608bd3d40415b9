//! Memory is bounded by configuration, whatever clients and services do.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use opes_callout_server::{Answer, Description, Listener, Message, ServerConfig, Service, serve};
use opes_e2e::smtp::{Dialog, sample, stuffed};
use opes_e2e::{Daemon, opes, resident_octets};
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 100;
const OCTETS: usize = 20 << 20;
/// The bound for a budget of 64 MiB.
const RESIDENT_MAX: u64 = 160 << 20;

/// Reads all content, resting after each chunk: about 8 MiB/s a transaction.
struct Slow;

impl Service for Slow {
    fn describe(&self) -> Description {
        Description::new("slow").whole_content()
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        while message.chunk().await?.is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Answer::accept())
    }
}

fn edge(folder: &Path, service: &str) -> Result<Daemon> {
    std::fs::create_dir_all(folder.join("rules"))?;
    std::fs::create_dir_all(folder.join("mail"))?;
    std::fs::write(
        folder.join("rules/slow.yaml"),
        format!(
            "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: slow }}\nspec:\n  class: analyze\n  endpoint: \"{service}\"\n---\n\
             apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: slow }}\nspec:\n  at: [content]\n  callout:\n    serviceRef: {{ name: slow }}\n    \
             wants: {{ content: all }}\n    timeout: 600s\n    onFailure: tempfail\n"
        ),
    )?;
    let config = folder.join("edge.yaml");
    std::fs::write(
        &config,
        format!(
            "hostname: mail.example.com\nspool: {0}/spool\nrules: {0}/rules\nmemoryBudget: 64Mi\ndomains: [example.com]\ndelivery: {{ maildir: {0}/mail }}\nlisteners:\n  - {{ name: mx, address: '127.0.0.1:0' }}\n",
            folder.display()
        ),
    )?;
    opes([
        "edge".to_owned(),
        "--config".to_owned(),
        config.display().to_string(),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_times_20_mib_into_a_slow_service() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let listener = Listener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.address());
    tokio::spawn(serve(
        Arc::new(Slow),
        listener,
        ServerConfig::default(),
        CancellationToken::new(),
    ));
    let edge = edge(folder.path(), &address)?;
    let (server, pid) = (edge.address("mx"), edge.pid());
    let content: Arc<Vec<u8>> = Arc::new(stuffed(&sample("big", OCTETS)));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let content = Arc::clone(&content);
        clients.spawn(async move {
            let mut dialog = Dialog::open(server, false).await?;
            dialog
                .envelope("steve@example.org", &["paul@example.com"])
                .await?;
            dialog.send(&content).await?;
            dialog.send(b".\r\n").await?;
            let reply = dialog.reply().await?;
            ensure!(reply.starts_with("250"), "{reply}");
            Ok(())
        });
    }
    let mut peak = 0;
    let mut done = 0;
    while done < CONNECTIONS {
        tokio::select! {
            result = clients.join_next() => {
                if let Some(result) = result {
                    result??;
                    done += 1;
                }
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        peak = peak.max(resident_octets(pid));
        ensure!(
            peak < RESIDENT_MAX,
            "resident set of {} MiB after {done} messages",
            peak >> 20
        );
    }
    println!("{done} served, peak resident set {} MiB", peak >> 20);
    Ok(())
}
