//! A private Postfix as it comes, but for what the measurement needs: own folders and port, a milter, everything relayed to the sink.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// A running instance. Stopped when dropped.
pub(crate) struct Postfix {
    pub(crate) address: SocketAddr,
    folder: PathBuf,
}

impl Postfix {
    pub(crate) fn start(folder: &Path, milter: &Path, sink: SocketAddr) -> Result<Self> {
        // Postfix cannot take port 0; nobody else asks for this one by number.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let postfix = Self {
            address,
            folder: folder.to_owned(),
        };
        for name in ["etc", "queue", "data"] {
            std::fs::create_dir(folder.join(name))?;
        }
        ensure!(
            Command::new("chown")
                .arg("postfix")
                .arg(folder.join("data"))
                .status()?
                .success(),
            "chown"
        );
        std::fs::write(folder.join("etc/main.cf"), main_cf(folder, milter, sink)?)?;
        std::fs::write(folder.join("etc/master.cf"), master_cf(address.port()))?;
        let started = postfix.command("start")?;
        ensure!(
            started.status.success(),
            "postfix start: {}",
            String::from_utf8_lossy(&started.stderr)
        );
        postfix.wait()?;
        Ok(postfix)
    }

    pub(crate) fn master_pid(&self) -> Result<u32> {
        let path = self.folder.join("queue/pid/master.pid");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        text.trim().parse().context("master.pid")
    }

    fn command(&self, verb: &str) -> Result<std::process::Output> {
        let output = Command::new("/usr/sbin/postfix")
            .arg("-c")
            .arg(self.folder.join("etc"))
            .arg(verb)
            .output();
        output.context("cannot run postfix: `cargo xtask test` installs it")
    }

    fn wait(&self) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            ensure!(
                started.elapsed() < Duration::from_secs(30),
                "postfix does not listen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if let Err(error) = self.command("stop") {
            eprintln!("postfix stop: {error:#}");
        }
    }
}

fn main_cf(folder: &Path, milter: &Path, sink: SocketAddr) -> Result<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut main = String::new();
    writeln!(main, "compatibility_level = 3.6")?;
    writeln!(
        main,
        "queue_directory = {}\ndata_directory = {}",
        path("queue"),
        path("data")
    )?;
    writeln!(
        main,
        "myhostname = mail.example.com\nmydestination =\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4"
    )?;
    writeln!(
        main,
        "mynetworks = 127.0.0.0/8\nrelay_domains = example.com\nalias_maps =\nalias_database ="
    )?;
    writeln!(main, "relayhost = [{}]:{}", sink.ip(), sink.port())?;
    writeln!(
        main,
        "maillog_file = {}\nmaillog_file_prefixes = {}",
        path("log"),
        folder.display()
    )?;
    writeln!(
        main,
        "smtpd_milters = unix:{}\nmilter_default_action = tempfail",
        milter.display()
    )?;
    writeln!(
        main,
        "message_size_limit = 0\nsmtpd_client_connection_count_limit = 0\nsmtp_dns_support_level = disabled"
    )?;
    Ok(main)
}

fn master_cf(port: u16) -> String {
    let mut master = format!("127.0.0.1:{port} inet n - n - - smtpd\n");
    for (name, wakeup, limit, command) in [
        ("cleanup", "-", "0", "cleanup"),
        ("qmgr", "300", "1", "qmgr"),
        ("rewrite", "-", "-", "trivial-rewrite"),
        ("bounce", "-", "0", "bounce"),
        ("defer", "-", "0", "bounce"),
        ("trace", "-", "0", "bounce"),
        ("smtp", "-", "-", "smtp"),
        ("relay", "-", "-", "smtp"),
        ("error", "-", "-", "error"),
        ("retry", "-", "-", "error"),
        ("anvil", "-", "1", "anvil"),
        ("scache", "-", "1", "scache"),
        ("proxymap", "-", "-", "proxymap"),
        ("tlsmgr", "1000?", "1", "tlsmgr"),
    ] {
        let private = if matches!(name, "cleanup" | "qmgr") {
            "n"
        } else {
            "-"
        };
        master.push_str(&format!(
            "{name} unix {private} - n {wakeup} {limit} {command}\n"
        ));
    }
    master.push_str("postlog unix-dgram n - n - 1 postlogd\n");
    master
}
