//! A system under test: its address, and the processes that count as serving.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use super::postfix::Postfix;
use super::process;
use super::sink::Sink;

/// A running system. Stopped when dropped.
pub(crate) struct System {
    pub(crate) address: SocketAddr,
    /// Roots of process trees.
    pids: Vec<u32>,
    children: Vec<Child>,
    folder: Option<PathBuf>,
    postfix: Option<Postfix>,
}

impl System {
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.pids.iter().map(|pid| process::cpu_seconds(*pid)).sum()
    }

    pub(crate) fn peak_rss_octets(&self) -> u64 {
        self.pids
            .iter()
            .map(|pid| process::peak_rss_octets(*pid))
            .sum()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.postfix = None;
        for child in &mut self.children {
            // Already gone is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Our edge and the example service that adds a header, each a process.
pub(crate) fn edge(binaries: &Path, sink: &Sink) -> Result<System> {
    let folder = folder("edge")?;
    let (service, at) = start(
        Command::new(binaries.join("add-header")).args(["--listen", "127.0.0.1:0"]),
        "listening on ",
    )?;
    let rules = folder.join("rules");
    std::fs::create_dir_all(&rules)?;
    std::fs::write(rules.join("bench.yaml"), RULES.replace("ADDRESS", &at))?;
    let config = folder.join("edge.yaml");
    std::fs::write(
        &config,
        format!(
            "hostname: mail.example.com\nspool: {0}/spool\nrules: {0}/rules\ndomains: [example.com]\ndelivery: {{ nextHop: '{1}' }}\nlisteners:\n  - {{ name: mx, address: '127.0.0.1:0' }}\n",
            folder.display(),
            sink.address
        ),
    )?;
    let (edge, at) = start(
        Command::new(binaries.join("opes"))
            .arg("edge")
            .arg("--config")
            .arg(&config),
        "listening mx smtp ",
    )?;
    Ok(System {
        address: at.parse()?,
        pids: vec![edge.id(), service.id()],
        children: vec![edge, service],
        folder: Some(folder),
        postfix: None,
    })
}

const RULES: &str = "apiVersion: opes.dev/v1alpha1
kind: CalloutService
metadata: { name: add-header }
spec:
  class: adapt
  endpoint: \"http://ADDRESS\"
---
apiVersion: opes.dev/v1alpha1
kind: OpesRule
metadata: { name: bench }
spec:
  at: [content]
  callout:
    serviceRef: { name: add-header }
    wants: { content: all }
    allow: [header]
    timeout: 30s
    onFailure: tempfail
";

/// Postfix with the no-op milter on a Unix socket.
pub(crate) fn postfix(sink: &Sink) -> Result<System> {
    let folder = folder("postfix")?;
    let socket = folder.join("milter");
    let (milter, _) = start(
        Command::new(std::env::current_exe()?)
            .arg("noop-milter")
            .arg(&socket),
        "ready",
    )?;
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    let postfix = Postfix::start(&folder, &socket, sink.address)?;
    Ok(System {
        address: postfix.address,
        pids: vec![postfix.master_pid()?, milter.id()],
        children: vec![milter],
        folder: Some(folder),
        postfix: Some(postfix),
    })
}

fn folder(name: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("opes-bench-{}-{name}", std::process::id()));
    // A left-over of an earlier round.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(folder)
}

/// Starts a program; returns what follows `marker` on its standard output.
fn start(command: &mut Command, marker: &str) -> Result<(Child, String)> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    let found = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| Some(line.strip_prefix(marker)?.to_owned()));
    let found = found.with_context(|| format!("{command:?} ended before it was ready"))?;
    // Reads on, so that the program never blocks on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Ok((child, found))
}
