//! A callout service that dies, hangs or talks nonsense costs its transaction what the rule says, and nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use opes_callout_server::{Answer, Description, Listener, Message, ServerConfig, Service, serve};
use opes_e2e::sink::Sink;
use opes_e2e::smtp::{Dialog, sample, stuffed};
use opes_e2e::{Daemon, eventually, opes, ports};
use tokio_util::sync::CancellationToken;

/// Reads all content and accepts; counts octets.
#[derive(Default)]
struct Reader {
    octets: Arc<AtomicU64>,
}

impl Service for Reader {
    fn describe(&self) -> Description {
        Description::new("reader").whole_content()
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        while let Some(octets) = message.chunk().await? {
            self.octets
                .fetch_add(octets.len() as u64, Ordering::Relaxed);
        }
        Ok(Answer::accept().add_header("X-Read", "all"))
    }
}

/// A service of the test's own that can be stopped in an instant, like a process that was killed.
struct Running {
    runtime: Option<tokio::runtime::Runtime>,
    octets: Arc<AtomicU64>,
    address: String,
}

impl Running {
    fn start(address: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let service = Reader::default();
        let octets = Arc::clone(&service.octets);
        let listener = runtime.block_on(Listener::bind(address))?;
        let address = listener.address();
        runtime.spawn(serve(
            Arc::new(service),
            listener,
            ServerConfig::default(),
            CancellationToken::new(),
        ));
        Ok(Self {
            runtime: Some(runtime),
            octets,
            address,
        })
    }

    /// Every task and socket gone at once.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            opes_e2e::end(runtime);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn edge(folder: &Path, service: &str, policy: &str, sink: &Sink) -> Result<Daemon> {
    let rules = folder.join("rules");
    std::fs::create_dir_all(&rules)?;
    std::fs::write(
        rules.join("reader.yaml"),
        format!(
            "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: reader }}\nspec:\n  class: adapt\n  endpoint: \"{service}\"\n  limits: {{ connectTimeout: 20s }}\n---\n\
             apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: read }}\nspec:\n  at: [content]\n  callout:\n    serviceRef: {{ name: reader }}\n    \
             wants: {{ content: all }}\n    allow: [header]\n    timeout: 20s\n    onFailure: {policy}\n"
        ),
    )?;
    let config = folder.join("edge.yaml");
    std::fs::write(
        &config,
        format!(
            "hostname: mail.example.com\nspool: {0}/spool\nrules: {0}/rules\ndomains: [example.com]\ndelivery: {{ nextHop: '{1}' }}\nlisteners:\n  - {{ name: mx, address: '127.0.0.1:0' }}\n",
            folder.display(),
            sink.address
        ),
    )?;
    opes([
        "edge".to_owned(),
        "--config".to_owned(),
        config.display().to_string(),
    ])
}

/// Sends the first half, waits until the service has read some of it, kills it, sends the rest.
async fn killed_in_the_middle(
    dialog: &mut Dialog,
    service: &mut Running,
    content: &[u8],
) -> Result<String> {
    let octets = stuffed(content);
    let (first, second) = octets.split_at(octets.len() / 2);
    dialog
        .envelope("steve@example.org", &["paul@example.com"])
        .await?;
    dialog.send(first).await?;
    let read = Arc::clone(&service.octets);
    eventually("the service has read 1 MiB", || {
        read.load(Ordering::Relaxed) > 1 << 20
    })
    .await;
    service.kill();
    dialog.send(second).await?;
    dialog.send(b".\r\n").await?;
    dialog.reply().await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_a_20_mib_body_policy_accept_delivers_every_octet() -> Result<()> {
    let (folder, sink) = (tempfile::tempdir()?, Sink::start().await?);
    let mut service = tokio::task::block_in_place(|| Running::start("127.0.0.1:0"))?;
    let edge = edge(
        folder.path(),
        &format!("http://{}", service.address),
        "accept",
        &sink,
    )?;
    let mut dialog = Dialog::open(edge.address("mx"), false).await?;
    let content = sample("twenty", 20 << 20);
    let reply = killed_in_the_middle(&mut dialog, &mut service, &content).await?;
    ensure!(reply.starts_with("250"), "{reply}");
    eventually("delivered", || sink.count() == 1).await;
    let arrival = sink.arrivals().remove(0);
    let received = arrival.content.len().checked_sub(content.len());
    let received = received.unwrap_or_else(|| panic!("{} octets arrived", arrival.content.len()));
    ensure!(
        arrival.content.get(received..) == Some(&content[..]),
        "octets differ"
    );
    ensure!(arrival.content.starts_with(b"Received: "), "no trace field");
    ensure!(
        arrival.content[..received]
            .windows(4)
            .filter(|four| four == b"\r\n\r\n")
            .count()
            == 0
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_a_20_mib_body_policy_tempfail_says_451_and_nothing_sticks() -> Result<()> {
    let (folder, sink) = (tempfile::tempdir()?, Sink::start().await?);
    // Nobody else gets this one while the service is away.
    let address = format!("127.0.0.1:{}", ports::free()?);
    let mut service = tokio::task::block_in_place(|| Running::start(&address))?;
    let edge = edge(
        folder.path(),
        &format!("http://{address}"),
        "tempfail",
        &sink,
    )?;
    let mut dialog = Dialog::open(edge.address("mx"), false).await?;
    let content = sample("twenty", 20 << 20);
    let reply = killed_in_the_middle(&mut dialog, &mut service, &content).await?;
    ensure!(reply.starts_with("451 4."), "{reply}");

    let small = sample("small", 4096);
    let away = dialog
        .message("steve@example.org", &["paul@example.com"], &small)
        .await?;
    ensure!(away.starts_with("451 4."), "with the service away: {away}");

    let _back = tokio::task::block_in_place(|| Running::start(&address))?;
    let back = dialog
        .message("steve@example.org", &["paul@example.com"], &small)
        .await?;
    ensure!(
        back.starts_with("250"),
        "with the service back, on the same connection: {back}"
    );
    eventually("delivered", || sink.count() == 1).await;
    let text = String::from_utf8_lossy(&sink.arrivals()[0].content).into_owned();
    ensure!(text.contains("X-Read: all\r\n"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_speaks_garbage_is_a_failed_callout() -> Result<()> {
    let (folder, sink) = (tempfile::tempdir()?, Sink::start().await?);
    let garbage = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = garbage.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = garbage.accept().await {
            let noise = b"HTTP/1.0 200 OK\r\n\r\n<html>certainly not OCP</html>";
            // The edge may have closed first.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, noise).await;
        }
    });
    let edge = edge(folder.path(), &format!("http://{address}"), "accept", &sink)?;
    let mut dialog = Dialog::open(edge.address("mx"), false).await?;
    let reply = dialog
        .message(
            "steve@example.org",
            &["paul@example.com"],
            &sample("small", 4096),
        )
        .await?;
    ensure!(reply.starts_with("250"), "{reply}");
    eventually("delivered", || sink.count() == 1).await;
    Ok(())
}
