//! An HTTP scanner in Python's standard library, which speaks MTA Hooks and nothing else, behind a real edge.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use opes_e2e::embedded::{Embedded, service};
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::smtp::Dialog;
use opes_e2e::{Daemon, eventually};
use opes_edge::config::{DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};
use opes_mta_hooks::MtaHooks;

const BOB: &str = "bob@example.com";

struct Setup {
    scanner: Daemon,
    edge: Embedded,
    hop: Hop,
    _folder: tempfile::TempDir,
}

fn scanner() -> Result<Daemon> {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scanner.py"));
    Daemon::start(command, |line| line.starts_with("listening on "))
}

impl Setup {
    async fn new(on_failure: &str) -> Result<Self> {
        let scanner = scanner()?;
        let folder = tempfile::tempdir()?;
        let token = folder.path().join("token");
        std::fs::write(&token, "sesame\n")?;
        let adapter = MtaHooks::from_config(&serde_json::json!({
            "url": format!("http://{}/hook", scanner.address("on")),
            "bearerTokenFile": token,
            "timeoutMs": 5000,
        }))?;
        let target = service(adapter).await?;
        let rules = format!(
            "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: scanner }}\nspec: {{ class: adapt, endpoint: '{target}' }}\n---\n\
             apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: ask }}\nspec:\n  at: [rcptTo, content]\n  \
             callout: {{ serviceRef: {{ name: scanner }}, wants: {{ content: all }}, allow: [header, body, reject, quarantine], \
             timeout: 10s, onFailure: {on_failure} }}\n"
        );
        let hop = Hop::start(Manners::default()).await?;
        let config = EdgeConfig {
            listeners: vec![ListenerConfig::new(
                "mx",
                "127.0.0.1:0".parse()?,
                ListenerProtocol::Smtp,
            )],
            domains: vec!["example.com".into()],
            delivery: DeliveryConfig {
                next_hop: Some(hop.address.to_string()),
                ..DeliveryConfig::default()
            },
            ..EdgeConfig::new("mail.example.com", folder.path().join("spool"))
        };
        let edge = Embedded::start(config, &rules).await?;
        Ok(Self {
            scanner,
            edge,
            hop,
            _folder: folder,
        })
    }

    fn address(&self) -> Result<SocketAddr> {
        self.edge.address("mx")
    }

    async fn send(&self, subject: &str) -> Result<String> {
        let mut dialog = Dialog::open(self.address()?, false).await?;
        dialog
            .message("ann@example.org", &[BOB], &content(subject))
            .await
    }

    /// What the rule did with the last message.
    fn verdict(&self) -> String {
        let reports = self.edge.reports();
        let step = reports.last().and_then(|report| report.steps.last());
        step.map(|step| step.verdict.clone()).unwrap_or_default()
    }
}

fn content(subject: &str) -> Vec<u8> {
    format!("X-Twice: a\r\nSubject: {subject}\r\nX-Twice: b\r\n\r\nbody\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_scanner_says_is_done() -> Result<()> {
    let setup = Setup::new("tempfail").await?;
    for (subject, reply) in [
        ("reject", "554 5.6.0 Not this"),
        ("later", "451 4.7.1 Not now"),
        ("hold", "250"),
        ("change", "250"),
        ("fine", "250"),
        ("nonsense", "451"),
    ] {
        let said = setup.send(subject).await?;
        ensure!(said.starts_with(reply), "{subject}: {said}");
        ensure!(
            (subject == "hold") == (setup.verdict() == "quarantine"),
            "{subject}: {}",
            setup.verdict()
        );
    }
    let mut dialog = Dialog::open(setup.address()?, false).await?;
    dialog.command("MAIL FROM:<ann@example.org>").await?;
    let reply = dialog.command("RCPT TO:<nobody@example.com>").await?;
    ensure!(reply.starts_with("550 5.1.1 No such person"), "{reply}");

    eventually("two deliveries", || setup.hop.complete() == 2).await;
    let arrivals = setup.hop.arrivals();
    let delivered = |subject: &str| {
        let text = arrivals
            .iter()
            .map(|arrival| String::from_utf8_lossy(&arrival.content).into_owned());
        text.into_iter()
            .find(|text| text.contains(&format!("Subject: {subject}\r\n")))
    };
    let changed = "X-Twice: a\r\nSubject: changed\r\nX-Sender: ann@example.org\r\n\r\nBODY\r\n";
    ensure!(
        delivered("changed").is_some_and(|text| text.ends_with(changed)),
        "{:?}",
        delivered("changed")
    );
    let fine = String::from_utf8(content("fine"))?;
    ensure!(
        delivered("fine").is_some_and(|text| text.ends_with(&fine)),
        "{:?}",
        delivered("fine")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_scanner_the_policy_decides() -> Result<()> {
    for (on_failure, rcpt) in [("tempfail", "451"), ("accept", "250")] {
        let mut setup = Setup::new(on_failure).await?;
        let said = setup.send("fine").await?;
        ensure!(said.starts_with("250"), "{said}");
        setup.scanner.kill();
        let mut dialog = Dialog::open(setup.address()?, false).await?;
        dialog.command("MAIL FROM:<ann@example.org>").await?;
        let reply = dialog.command(&format!("RCPT TO:<{BOB}>")).await?;
        ensure!(reply.starts_with(rcpt), "{on_failure}: {reply}");
        if on_failure == "accept" {
            let said = setup.send("reject").await?;
            ensure!(said.starts_with("250"), "{said}");
            eventually("both delivered", || setup.hop.complete() == 2).await;
        }
    }
    Ok(())
}
