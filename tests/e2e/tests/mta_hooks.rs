//! An HTTP scanner in Python's standard library, which speaks MTA Hooks and nothing else, behind a real edge.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use opes_e2e::Daemon;
use opes_e2e::behind::{BOB, Behind, Rule};
use opes_e2e::eventually;
use opes_mta_hooks::MtaHooks;

struct Setup {
    scanner: Daemon,
    behind: Behind,
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
            "timeoutMs": 15_000,
        }))?;
        let rule = Rule {
            at: "rcptTo, content",
            allow: "header, body, reject, quarantine",
            on_failure,
            ..Rule::default()
        };
        Ok(Self {
            scanner,
            behind: Behind::one(adapter, rule).await?,
            _folder: folder,
        })
    }

    async fn send(&self, subject: &str) -> Result<String> {
        self.behind.send(&content(subject)).await
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
            (subject == "hold") == (setup.behind.verdict()? == "quarantine"),
            "{subject}: {}",
            setup.behind.verdict()?
        );
    }
    let mut dialog = setup.behind.dialog().await?;
    dialog.command("MAIL FROM:<ann@example.org>").await?;
    let reply = dialog.command("RCPT TO:<nobody@example.com>").await?;
    ensure!(reply.starts_with("550 5.1.1 No such person"), "{reply}");

    let delivered = setup
        .behind
        .delivered(["Subject: changed", "Subject: fine"])
        .await?;
    let [changed_is, fine_is] =
        delivered.map(|arrival| String::from_utf8_lossy(&arrival.content).into_owned());
    let changed = "X-Twice: a\r\nSubject: changed\r\nX-Sender: ann@example.org\r\n\r\nBODY\r\n";
    ensure!(changed_is.ends_with(changed), "{changed_is}");
    let fine = String::from_utf8(content("fine"))?;
    ensure!(fine_is.ends_with(&fine), "{fine_is}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_scanner_the_policy_decides() -> Result<()> {
    for (on_failure, rcpt) in [("tempfail", "451"), ("accept", "250")] {
        let mut setup = Setup::new(on_failure).await?;
        let said = setup.send("fine").await?;
        ensure!(said.starts_with("250"), "{said}");
        setup.scanner.kill();
        let mut dialog = setup.behind.dialog().await?;
        dialog.command("MAIL FROM:<ann@example.org>").await?;
        let reply = dialog.command(&format!("RCPT TO:<{BOB}>")).await?;
        ensure!(reply.starts_with(rcpt), "{on_failure}: {reply}");
        if on_failure == "accept" {
            let said = setup.send("reject").await?;
            ensure!(said.starts_with("250"), "{said}");
            eventually("both delivered", || setup.behind.hop.complete() == 2).await;
        }
    }
    Ok(())
}
