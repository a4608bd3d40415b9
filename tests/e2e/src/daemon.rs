//! A program that the test started, with its readiness lines. Killed when dropped.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context as _, Result};

use crate::DEADLINE;

/// A running program.
pub struct Daemon {
    child: Child,
    /// Last word of `listening NAME …` lines by name; `listening on X` has the name `on`.
    addresses: HashMap<String, String>,
}

/// Where the program under test is.
pub fn opes_program() -> PathBuf {
    match std::env::var_os("OPES_BIN") {
        Some(path) => path.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/release/opes"),
    }
}

/// Starts `opes ARGUMENTS` and waits for its readiness line.
pub fn opes<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Daemon> {
    let mut command = Command::new(opes_program());
    command.args(arguments);
    Daemon::start(command, |line| {
        line == "ready" || line.starts_with("listening on ")
    })
}

impl Daemon {
    /// Starts a program and reads its standard output until a line is `ready`.
    pub fn start(mut command: Command, ready: impl Fn(&str) -> bool) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| {
            format!("cannot start {command:?}; run `cargo build --release -p opes` first")
        })?;
        let stdout = child.stdout.take().context("no standard output")?;
        let (sender, lines) = mpsc::channel();
        // Reads to the end, so that the program never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut daemon = Self {
            child,
            addresses: HashMap::new(),
        };
        loop {
            let line = lines
                .recv_timeout(DEADLINE)
                .context("the program ended, or was not ready in time")?;
            daemon.note(&line);
            if ready(&line) {
                return Ok(daemon);
            }
        }
    }

    fn note(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        if words.next() != Some("listening") {
            return;
        }
        if let (Some(name), Some(address)) = (words.next(), words.last()) {
            self.addresses.insert(name.to_owned(), address.to_owned());
        }
    }

    /// Address of the listener `name`.
    ///
    /// # Panics
    /// If the program named no such listener.
    pub fn address(&self, name: &str) -> SocketAddr {
        let text = self
            .addresses
            .get(name)
            .unwrap_or_else(|| panic!("no listener `{name}`"));
        text.parse()
            .unwrap_or_else(|error| panic!("`{text}`: {error}"))
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and the end of the process awaited.
    pub fn kill(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and the end of the process awaited.
    pub fn terminate(mut self) -> Result<std::process::ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
