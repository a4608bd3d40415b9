//! One step of a command: named, timed, its failure said clearly.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

/// Runs `cargo ARGUMENTS` in the workspace with the shared target folder.
pub(crate) fn cargo(name: &str, target: &Path, arguments: &[&str]) -> Result<()> {
    command(name, cargo_command(target).args(arguments))
}

/// Cargo as this program was started by it.
pub(crate) fn cargo_command(target: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.env("CARGO_TARGET_DIR", target).current_dir(root());
    command
}

/// Runs a command to its end.
pub(crate) fn command(name: &str, command: &mut Command) -> Result<()> {
    println!("── {name}");
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("{name}: cannot run {command:?}"))?;
    ensure!(status.success(), "{name} failed: {command:?}");
    println!("── {name}: ok, {} s", started.elapsed().as_secs());
    Ok(())
}

/// The workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
