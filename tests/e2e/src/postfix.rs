//! A private Postfix: own configuration, queue and port; every mail for example.com ends in one Maildir.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{DEADLINE, need, ports};

/// A running instance. Stopped when dropped.
pub struct Postfix {
    /// Where it listens.
    pub address: SocketAddr,
    folder: TempDir,
}

impl Postfix {
    /// Starts it; needs root, as Postfix itself does. `settings` are further lines for `main.cf`.
    pub fn start(settings: &str) -> Result<Self> {
        need("postfix");
        let folder = TempDir::new()?;
        // Postfix' own processes run as `postfix` and must be able to pass through.
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        // Postfix cannot take port 0.
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let postfix = Self { address, folder };
        postfix.configure(settings)?;
        let started = postfix.command("start")?;
        ensure!(
            started.status.success(),
            "postfix start: {}",
            String::from_utf8_lossy(&started.stderr)
        );
        postfix.wait()?;
        Ok(postfix)
    }

    fn configure(&self, settings: &str) -> Result<()> {
        let root = self.folder.path();
        for name in ["etc", "queue", "data", "mail"] {
            std::fs::create_dir(root.join(name))?;
        }
        let owner = |name: &str, folder: &str| -> Result<()> {
            let status = Command::new("chown")
                .arg(name)
                .arg(root.join(folder))
                .status()?;
            ensure!(status.success(), "chown {name} {folder}");
            Ok(())
        };
        owner("postfix", "data")?;
        owner("nobody", "mail")?;
        let (uid, gid) = (id("-u")?, id("-g")?);
        let path = |name: &str| root.join(name).display().to_string();
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
            "myhostname = next.example.net\nmydestination =\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4"
        )?;
        writeln!(
            main,
            "mynetworks = 127.0.0.0/8\nmaillog_file = {}",
            path("log")
        )?;
        writeln!(
            main,
            "maillog_file_prefixes = {}\nalias_maps =\nalias_database =",
            root.display()
        )?;
        writeln!(
            main,
            "virtual_mailbox_domains = example.com, example.org, example.net"
        )?;
        writeln!(
            main,
            "virtual_mailbox_base = {}\nvirtual_mailbox_maps = static:all/",
            path("mail")
        )?;
        writeln!(
            main,
            "virtual_uid_maps = static:{uid}\nvirtual_gid_maps = static:{gid}\nvirtual_mailbox_limit = 0"
        )?;
        writeln!(
            main,
            "message_size_limit = 0\nsmtpd_client_connection_count_limit = 0"
        )?;
        writeln!(main, "{settings}")?;
        std::fs::write(root.join("etc/main.cf"), main)?;
        std::fs::write(root.join("etc/master.cf"), master(self.address.port()))?;
        Ok(())
    }

    fn command(&self, verb: &str) -> Result<std::process::Output> {
        let config = self.folder.path().join("etc");
        Command::new("/usr/sbin/postfix")
            .arg("-c")
            .arg(config)
            .arg(verb)
            .output()
            .context("cannot run postfix")
    }

    fn wait(&self) -> Result<()> {
        let started = std::time::Instant::now();
        while std::net::TcpStream::connect(self.address).is_err() {
            ensure!(started.elapsed() < DEADLINE, "postfix does not listen");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(())
    }

    /// Delivered messages, each as a file.
    pub fn mail(&self) -> Vec<PathBuf> {
        files(&self.folder.path().join("mail/all/new"))
    }

    /// The log so far, for a failing test's message.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if let Err(error) = self.command("stop") {
            eprintln!("postfix stop: {error:#}");
        }
    }
}

/// Files of a folder; none if it is not there.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

fn id(flag: &str) -> Result<String> {
    let output = Command::new("id").args([flag, "nobody"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn master(port: u16) -> String {
    let mut master = format!("127.0.0.1:{port} inet n - n - - smtpd\n");
    for (name, kind, wakeup, command) in [
        ("cleanup", "n", "-", "cleanup"),
        ("qmgr", "n", "300", "qmgr"),
        ("rewrite", "-", "-", "trivial-rewrite"),
        ("bounce", "-", "-", "bounce"),
        ("defer", "-", "-", "bounce"),
        ("trace", "-", "-", "bounce"),
        ("smtp", "-", "-", "smtp"),
        ("relay", "-", "-", "smtp"),
        ("error", "-", "-", "error"),
        ("retry", "-", "-", "error"),
        ("discard", "-", "-", "discard"),
        ("local", "-", "-", "local"),
        ("virtual", "-", "-", "virtual"),
        ("anvil", "-", "-", "anvil"),
        ("scache", "-", "-", "scache"),
        ("proxymap", "-", "-", "proxymap"),
        ("tlsmgr", "-", "1000?", "tlsmgr"),
    ] {
        let unprivileged = if matches!(name, "local" | "virtual") {
            "n"
        } else {
            "-"
        };
        // Postfix refuses to start some of its services with another limit.
        let limit = match name {
            "qmgr" | "anvil" | "scache" | "tlsmgr" => "1",
            "cleanup" | "bounce" | "defer" | "trace" => "0",
            _ => "-",
        };
        master.push_str(&format!(
            "{name} unix {kind} {unprivileged} n {wakeup} {limit} {command}\n"
        ));
    }
    master.push_str("postlog unix-dgram n - n - 1 postlogd\n");
    master
}
