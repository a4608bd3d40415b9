//! One step of a command: named, timed, its failure said clearly.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

/// Runs `cargo ARGUMENTS` in the workspace with the shared target folder.
pub(crate) fn cargo(name: &str, target: &Path, arguments: &[&str]) -> Result<()> {
    command(name, cargo_command(target).args(arguments))
}

/// What end-to-end tests and bench start: they look at times and memory. One set for all, so that features stay the same.
pub(crate) fn release_build(target: &Path) -> Result<()> {
    cargo(
        "release build",
        target,
        &[
            "build",
            "--release",
            "--locked",
            "-p",
            "opes",
            "-p",
            "opes-examples",
            "-p",
            "opes-operator",
            "-p",
            "opes-security-filter",
        ],
    )
}

/// Cargo as this program was started by it.
pub(crate) fn cargo_command(target: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.env("CARGO_TARGET_DIR", target).current_dir(root());
    command
}

/// Runs a command to its end.
pub(crate) fn command(name: &str, command: &mut Command) -> Result<()> {
    timed(name, || {
        let status = command
            .status()
            .with_context(|| format!("cannot run {command:?}"))?;
        ensure!(status.success(), "{command:?}: {status}");
        Ok(())
    })
}

/// Does `work` as the step called `name`.
pub(crate) fn timed(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("── {name}");
    let started = Instant::now();
    let outcome = work().with_context(|| format!("{name} failed"));
    let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
    let line = format!(
        "{name}: {verdict}, {:.1} s",
        started.elapsed().as_secs_f64()
    );
    println!("── {line}");
    done().push(line);
    outcome
}

/// Notes a step that could not be done, and why that is acceptable.
pub(crate) fn skipped(name: &str, why: &str) {
    let line = format!("{name}: skipped, {why}");
    println!("── {line}");
    done().push(line);
}

/// Prints a line for each step so far.
pub(crate) fn summary() {
    println!("\nSummary");
    for line in done().iter() {
        println!("  {line}");
    }
}

fn done() -> MutexGuard<'static, Vec<String>> {
    static DONE: Mutex<Vec<String>> = Mutex::new(Vec::new());
    DONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
