//! rspamd's proxy worker in milter mode behind the bridge.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use opes_e2e::behind::{Behind, Rule};
use opes_e2e::{need, ports};
use opes_milter_bridge::MilterBridge;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::net::TcpStream;

/// rspamd compiles its expressions when it starts.
const START: Duration = Duration::from_mins(2);

struct Proxy {
    main: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM: it takes its workers with it.
        if let Some(pid) = i32::try_from(self.main.id()).ok().and_then(Pid::from_raw) {
            let _gone = kill_process(pid, Signal::TERM);
        }
        let _reaped = self.main.wait();
    }
}

impl Proxy {
    async fn start() -> Result<Self> {
        need("rspamd");
        let folder = tempfile::tempdir()?;
        let port = ports::free()?;
        let config = format!(
            "options {{ pidfile = \"{0}/pid\"; tempdir = \"{0}\"; filters = \"\"; dns {{ nameserver = [\"127.0.0.1:1\"]; timeout = 0.1s; retransmits = 0; }} }}\n\
             logging {{ type = \"console\"; level = \"error\"; }}\n\
             worker \"rspamd_proxy\" {{ bind_socket = \"127.0.0.1:{port}\"; milter = yes; timeout = 60s; count = 1;\n\
               upstream \"local\" {{ default = yes; self_scan = yes; }} }}\n\
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
}

fn message(subject: &str) -> Vec<u8> {
    format!("From: ann@example.org\r\nSubject: {subject}\r\n\r\nbody\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn rspamd_speaks_milter_and_is_understood() -> Result<()> {
    let proxy = Proxy::start().await?;
    let bridge = MilterBridge::from_config(&json!({
        "endpoint": format!("inet:127.0.0.1:{}", proxy.port),
        "commandTimeoutMs": 10_000,
        "contentTimeoutMs": 15_000,
    }))?;
    let rule = Rule {
        allow: "header, reject, quarantine",
        ..Rule::default()
    };
    let behind = Behind::one(bridge, rule).await?;
    for (subject, reply) in [
        ("fine", "250"),
        ("mark", "250"),
        ("refuse", "554 5.7.1 Spam message rejected"),
    ] {
        let said = behind.send(&message(subject)).await?;
        ensure!(said.starts_with(reply), "{subject}: {said}");
    }
    let [fine, marked] = behind.delivered(["Subject: fine", "Subject: mark"]).await?;
    let [fine, marked] =
        [fine, marked].map(|arrival| String::from_utf8_lossy(&arrival.content).into_owned());
    for text in [&fine, &marked] {
        ensure!(
            text.contains("X-Seen: ann@example.org 127.0.0.1 client.example.org"),
            "{text}"
        );
    }
    ensure!(marked.contains("X-Spam: Yes\r\n"), "{marked}");
    ensure!(!fine.contains("X-Spam:"), "{fine}");

    drop(proxy);
    let said = behind.send(&message("fine")).await?;
    ensure!(said.starts_with("451"), "{said}");
    Ok(())
}
