//! The harness of the end-to-end tests: real `opes` processes on loopback, foreign software, own deadlines.
//!
//! `OPES_BIN` names the program under test; `cargo xtask test` sets it to the release build.

pub mod behind;
pub mod blackhole;
pub mod counting;
mod daemon;
pub mod embedded;
pub mod gnupg;
pub mod hop;
pub mod killable;
pub mod operator;
pub mod ports;
pub mod postfix;
pub mod postgres;
pub mod s3;
pub mod sink;
pub mod slapd;
pub mod smtp;
pub mod steady;
pub mod tls;
pub mod trace;

pub use daemon::{Daemon, opes, opes_program};

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How long anything in these tests may take before it counts as hung.
pub const DEADLINE: Duration = Duration::from_mins(5);

/// Waits until `condition` holds; panics with `what` at the deadline.
///
/// # Panics
/// At the deadline.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends a runtime as the end of a process ends it: when this returns, its tasks are gone and its sockets are closed.
pub fn end(runtime: tokio::runtime::Runtime) {
    // A thread of no runtime may wait, wherever the caller is.
    let ending = std::thread::spawn(move || runtime.shutdown_timeout(DEADLINE));
    let _ended = ending.join();
}

/// Is this program on the path? `cargo xtask test` installs what the tests need, so a missing one is a failure.
///
/// # Panics
/// If it is missing.
pub fn need(program: &str) {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    let found = std::env::split_paths(&paths)
        .chain(sbin)
        .any(|folder| folder.join(program).exists());
    assert!(
        found,
        "`{program}` is not installed: run `cargo xtask test`, which installs it"
    );
}

/// Resident set size of a process in octets.
pub fn resident_octets(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Runs a program with `input`; its output if it ended well.
pub fn run(command: &mut Command, input: &[u8]) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let input = input.to_vec();
    // Beside the reading, so that nobody waits for a full pipe; who does not read all of it has a reason.
    let writing = std::thread::spawn(move || {
        let _closed = stdin.write_all(&input);
    });
    let output = child.wait_with_output()?;
    let _ended = writing.join();
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}
