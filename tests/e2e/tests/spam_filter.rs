//! A real rspamd behind the spam filter behind a real edge (RFC 4496 §4.2).

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use opes_e2e::behind::{Behind, Rule};
use opes_e2e::{need, ports};
use opes_spam_filter::SpamFilter;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::net::TcpStream;

/// rspamd compiles its expressions when it starts.
const START: Duration = Duration::from_mins(2);

struct Rspamd {
    main: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Rspamd {
    fn drop(&mut self) {
        // SIGTERM: it takes its workers with it.
        if let Some(pid) = i32::try_from(self.main.id()).ok().and_then(Pid::from_raw) {
            let _gone = kill_process(pid, Signal::TERM);
        }
        let _reaped = self.main.wait();
    }
}

impl Rspamd {
    async fn start() -> Result<Self> {
        need("rspamd");
        let folder = tempfile::tempdir()?;
        let port = ports::free()?;
        let config = format!(
            "options {{ pidfile = \"{0}/pid\"; tempdir = \"{0}\"; filters = \"\"; dns {{ nameserver = [\"127.0.0.1:1\"]; timeout = 0.1s; retransmits = 0; }} }}\n\
             logging {{ type = \"console\"; level = \"error\"; }}\n\
             worker \"normal\" {{ bind_socket = \"127.0.0.1:{port}\"; count = 1; }}\n\
             actions {{ reject = 15; \"add header\" = 6; greylist = 4; }}\n\
             lua = \"{1}/rspamd.lua\";\n",
            folder.path().display(),
            env!("CARGO_MANIFEST_DIR"),
        );
        let path = folder.path().join("rspamd.conf");
        std::fs::write(&path, config)?;
        let main = Command::new("/usr/bin/rspamd")
            .args(["--no-fork", "--insecure", "--config"])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("rspamd")?;
        let started = Self {
            main,
            port,
            _folder: folder,
        };
        tokio::time::timeout(START, started.listens())
            .await
            .context("rspamd does not listen")?;
        Ok(started)
    }

    async fn listens(&self) {
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/checkv2", self.port)
    }
}

async fn behind(rspamd: &Rspamd, on_failure: &str) -> Result<Behind> {
    let engine = json!({ "rspamd": { "url": rspamd.url(), "timeoutMs": 10_000 } });
    let filter = SpamFilter::from_config(&json!({ "engine": engine }))?;
    let rule = Rule {
        allow: "header, subject, reject, quarantine",
        on_failure,
        ..Rule::default()
    };
    Behind::one(filter, rule).await
}

fn message(subject: &str) -> Vec<u8> {
    format!("From: ann@example.org\r\nX-Spam-Status: No, score=-100\r\nSubject: {subject}\r\n\r\nbody\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn rspamd_decides_and_when_it_is_gone_the_policy() -> Result<()> {
    let rspamd = Rspamd::start().await?;
    let strict = behind(&rspamd, "tempfail").await?;
    for (subject, reply) in [
        ("fine", "250"),
        ("mark", "250"),
        ("later", "451 4.7.1"),
        ("refuse", "550 5.7.1 This message looks like spam"),
        // GTUBE is in rspamd itself: its text goes to the client.
        (
            "fine\r\n\r\nXJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X",
            "550 5.7.1 Gtube pattern",
        ),
    ] {
        let said = strict.send(&message(subject)).await?;
        ensure!(said.starts_with(reply), "{subject}: {said}");
    }
    let [fine, marked] = strict
        .delivered(["Subject: fine", "Subject: [SPAM] mark"])
        .await?;
    for (arrival, status) in [
        (
            &fine,
            "X-Spam-Status: No, score=0.00 required=15.00 action=\"no action\"\r\n",
        ),
        (
            &marked,
            "X-Spam-Status: Yes, score=7.00 required=15.00 action=\"add header\"\r\n",
        ),
    ] {
        let text = String::from_utf8_lossy(&arrival.content);
        ensure!(text.contains(status), "{text}");
        ensure!(
            !text.contains("score=-100"),
            "the forged field is still there: {text}"
        );
        ensure!(
            text.contains("X-Seen: ann@example.org 127.0.0.1 "),
            "{text}"
        );
    }

    let lenient = behind(&rspamd, "accept").await?;
    drop(rspamd);
    let said = strict.send(&message("refuse")).await?;
    ensure!(said.starts_with("451"), "{said}");
    let said = lenient.send(&message("refuse")).await?;
    ensure!(said.starts_with("250"), "{said}");
    let [passed] = lenient.delivered(["Subject: refuse"]).await?;
    ensure!(
        passed.content.ends_with(&message("refuse")),
        "octets differ"
    );
    Ok(())
}
