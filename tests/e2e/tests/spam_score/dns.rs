//! A real name server (NSD) on loopback that knows everything there is: its zone is the root.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use opes_e2e::{need, ports};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

/// A start on a busy machine.
const START: Duration = Duration::from_mins(1);

/// Nothing may be kept, so that a server that is gone is noticed at once.
const HEAD: &str = "$ORIGIN .\n$TTL 0\n. SOA ns.example.net. admin.example.net. 1 3600 600 86400 0\n. NS ns.example.net.\nns.example.net. A 127.0.0.1\n";

/// Every name below it is answered SERVFAIL: a zone without its file.
pub(crate) const BROKEN: &str = "broken.example.net";

/// Ends with the test.
pub(crate) struct Nsd {
    main: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // SIGTERM: it takes its workers with it.
        if let Some(pid) = i32::try_from(self.main.id()).ok().and_then(Pid::from_raw) {
            let _gone = kill_process(pid, Signal::TERM);
        }
        let _reaped = self.main.wait();
    }
}

impl Nsd {
    /// With these lines of a zone file: absolute names without the last dot, type, value.
    pub(crate) async fn start(records: &[(&str, &str, &str)]) -> Result<Self> {
        need("nsd");
        let folder = tempfile::tempdir()?;
        let path = folder.path().display();
        let mut zone = HEAD.to_owned();
        for (name, kind, value) in records {
            writeln!(zone, "{name}. {kind} {value}")?;
        }
        std::fs::write(folder.path().join("root.zone"), zone)?;
        let port = ports::free()?;
        let config = format!(
            "server:\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{path}\"\n  database: \"\"\n  \
             pidfile: \"{path}/pid\"\n  xfrdfile: \"{path}/xfrd\"\n  zonelistfile: \"{path}/list\"\n  xfrdir: \"{path}\"\n  \
             server-count: 1\n  rrl-ratelimit: 0\n\
             remote-control:\n  control-enable: no\n\
             zone:\n  name: \".\"\n  zonefile: root.zone\n\
             zone:\n  name: \"{BROKEN}\"\n  zonefile: missing.zone\n"
        );
        let file = folder.path().join("nsd.conf");
        std::fs::write(&file, config)?;
        let main = Command::new("/usr/sbin/nsd")
            .arg("-d")
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nsd")?;
        let started = Self {
            main,
            port,
            _folder: folder,
        };
        tokio::time::timeout(START, started.listens())
            .await
            .context("nsd does not listen")?;
        Ok(started)
    }

    async fn listens(&self) {
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As `nameservers` has it.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
