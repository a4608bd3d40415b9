//! Memory is bounded by configuration, whatever clients and services do.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use opes_callout_server::{Answer, Description, Listener, Message, ServerConfig, Service, serve};
use opes_e2e::blackhole::Blackhole;
use opes_e2e::smtp::{Dialog, sample, stuffed};
use opes_e2e::{Daemon, opes, opes_program, resident_octets};
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
            "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: slow }}\nspec:\n  class: analyze\n  endpoint: \"{service}\"\n  limits: {{ connectTimeout: 20s }}\n---\n\
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
    let address = embedded(Slow).await?;
    let edge = edge(folder.path(), &address)?;
    let (server, pid) = (edge.address("mx"), edge.pid());
    let content: Arc<Vec<u8>> = Arc::new(stuffed(&sample("big", OCTETS)));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        clients.spawn(deliver(server, Arc::clone(&content)));
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

// === Five services ===

const LARGE: usize = 50;
const LARGE_OCTETS: usize = 50_000_000;
/// Two messages at a time are looked at, as its configuration says, in a buffer of up to twice their size; of the others the first MiB
/// and what is on its way.
const FILTER_MAX: u64 = 512 << 20;
/// A few chunks of each message.
const READER_MAX: u64 = 64 << 20;

/// Rewrites every octet: nothing of the original is left to refer to, so all of it comes back.
struct Shouting;

impl Service for Shouting {
    fn describe(&self) -> Description {
        Description::new("shouting").whole_content()
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        let mut adapted = message.adapt();
        while let Some(chunk) = message.chunk().await? {
            adapted.use_mine(chunk.to_ascii_uppercase()).await?;
        }
        adapted.finish().await?;
        Ok(Answer::accept())
    }
}

/// Reads everything, as fast as it comes.
struct Reading;

impl Service for Reading {
    fn describe(&self) -> Description {
        Description::new("reading").whole_content()
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        while message.chunk().await?.is_some() {}
        Ok(Answer::accept())
    }
}

async fn embedded(service: impl Service) -> Result<String> {
    let listener = Listener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.address());
    tokio::spawn(serve(
        Arc::new(service),
        listener,
        ServerConfig::default(),
        CancellationToken::new(),
    ));
    Ok(address)
}

/// The built-in filter and the example, as processes of their own whose memory can be measured.
fn processes(folder: &Path) -> Result<[Daemon; 2]> {
    let config = folder.join("filter.yaml");
    std::fs::write(&config, "largeMessages: 2\n")?;
    let config = config.display().to_string();
    let listen = ["--listen", "127.0.0.1:0"];
    let filter = ["service", "security-filter", "--config", &config];
    let filter = opes(filter.into_iter().chain(listen))?;
    let mut example = Command::new(opes_program().with_file_name("add-header"));
    example.args(listen);
    let example = Daemon::start(example, |line| line.starts_with("listening on "))?;
    Ok([filter, example])
}

/// Three analysers beside each other while the client sends, then two adapters one after the other.
fn five_rules(targets: &[(&str, &str, String); 5]) -> String {
    let objects = targets.iter().enumerate().map(|(number, (name, class, endpoint))| {
        let allow = match *class {
            "adapt" => "header, body, rewrite",
            _ => "reject, quarantine",
        };
        format!(
            "---\napiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: {name} }}\nspec: {{ class: {class}, endpoint: \"{endpoint}\", limits: {{ connectTimeout: 20s }} }}\n\
             ---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec:\n  at: [content]\n  priority: {number}\n  callout:\n    \
             serviceRef: {{ name: {name} }}\n    wants: {{ content: all }}\n    allow: [{allow}]\n    timeout: 600s\n    onFailure: tempfail\n"
        )
    });
    objects.collect()
}

fn edge_with(folder: &Path, rules: &str, next_hop: SocketAddr) -> Result<Daemon> {
    std::fs::create_dir_all(folder.join("rules"))?;
    std::fs::write(folder.join("rules/five.yaml"), rules)?;
    let config = folder.join("edge.yaml");
    let text = format!(
        "hostname: mail.example.com\nspool: {0}/spool\nrules: {0}/rules\nmemoryBudget: 64Mi\ndecisionTimeout: 10m\ndomains: [example.com]\n\
         delivery: {{ nextHop: '{next_hop}', connectionsMax: 50 }}\nlisteners:\n  - {{ name: mx, address: '127.0.0.1:0', sizeMax: 64Mi, delivery: cutThrough }}\n",
        folder.display()
    );
    std::fs::write(&config, text)?;
    let config = config.display().to_string();
    opes(["edge", "--config", &config])
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_times_50_mb_through_five_services() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let message = sample("large", LARGE_OCTETS);
    let rewritten = Arc::new(message.to_ascii_uppercase());
    let hop = Blackhole::start(&["Received:", "X-Scanned-Octets:"], rewritten).await?;
    let [filter, example] = processes(folder.path())?;
    let at = |daemon: &Daemon| format!("http://{}", daemon.address("on"));
    let rules = five_rules(&[
        ("filter", "analyze", at(&filter)),
        ("slow", "analyze", embedded(Slow).await?),
        ("reading", "analyze", embedded(Reading).await?),
        ("shouting", "adapt", embedded(Shouting).await?),
        ("example", "adapt", at(&example)),
    ]);
    let edge = edge_with(folder.path(), &rules, hop.address)?;
    let server = edge.address("mx");
    let content = Arc::new(stuffed(&message));
    drop(message);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..LARGE {
        clients.spawn(deliver(server, Arc::clone(&content)));
    }
    let started = Instant::now();
    let processes = [
        ("edge", &edge, RESIDENT_MAX),
        ("filter", &filter, FILTER_MAX),
        ("example", &example, READER_MAX),
    ];
    let mut peaks = [0; 3];
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while !clients.is_empty() {
        tokio::select! {
            Some(result) = clients.join_next() => {
                ensure!(hop.wrong().is_none(), "{:?}", hop.wrong());
                result??;
            }
            _ = ticks.tick() => {}
        }
        for (peak, (name, daemon, max)) in peaks.iter_mut().zip(processes) {
            *peak = resident_octets(daemon.pid()).max(*peak);
            ensure!(*peak < max, "{name}: resident set of {} MiB", *peak >> 20);
        }
    }
    println!(
        "{:?}, peak resident sets {:?} MiB",
        started.elapsed(),
        peaks.map(|peak| peak >> 20)
    );
    ensure!(hop.wrong().is_none(), "{:?}", hop.wrong());
    ensure!(hop.intact() == LARGE, "{} of {LARGE} intact", hop.intact());
    Ok(())
}

async fn deliver(server: SocketAddr, content: Arc<Vec<u8>>) -> Result<()> {
    let mut dialog = Dialog::open(server, false).await?;
    dialog
        .envelope("steve@example.org", &["paul@example.com"])
        .await?;
    dialog.send(&content).await?;
    dialog.send(b".\r\n").await?;
    let reply = dialog.reply().await?;
    ensure!(reply.starts_with("250"), "{reply}");
    Ok(())
}
