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
    lines: mpsc::Receiver<String>,
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
    pub fn start(command: Command, ready: impl Fn(&str) -> bool) -> Result<Self> {
        let mut daemon = Self::spawn(command)?;
        daemon.wait_for(ready)?;
        Ok(daemon)
    }

    fn spawn(mut command: Command) -> Result<Self> {
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
        Ok(Self {
            child,
            lines,
            addresses: HashMap::new(),
        })
    }

    /// Reads on until a line is `ready`.
    pub fn wait_for(&mut self, ready: impl Fn(&str) -> bool) -> Result<()> {
        loop {
            let line = self
                .lines
                .recv_timeout(DEADLINE)
                .context("the program ended, or was not ready in time")?;
            self.note(&line);
            if ready(&line) {
                return Ok(());
            }
        }
    }

    /// Lines that came and were not waited for.
    pub fn more(&mut self) -> Vec<String> {
        let lines: Vec<String> = self.lines.try_iter().collect();
        for line in &lines {
            self.note(line);
        }
        lines
    }

    /// SIGTERM, without waiting.
    pub fn tell_to_go(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(
            pid,
            rustix::process::Signal::TERM,
        )?)
    }

    /// The end of the process.
    pub fn wait(mut self) -> Result<std::process::ExitStatus> {
        Ok(self.child.wait()?)
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
    pub fn terminate(self) -> Result<std::process::ExitStatus> {
        self.tell_to_go()?;
        self.wait()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
