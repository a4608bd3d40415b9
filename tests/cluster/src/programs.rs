//! Where the programs are: `OPES_KUBERNETES`, or what `cargo xtask kubernetes` made last.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Names the folder that holds kube-apiserver and the others.
const VARIABLE: &str = "OPES_KUBERNETES";

/// Written by xtask when a folder is used.
const MARKER: &str = ".opes-last-used";

/// A command for a program of Kubernetes, kubectl or helm.
pub fn kubernetes(name: &str) -> Result<Command> {
    let program = folder()?.join(name);
    ensure!(
        program.exists(),
        "{} is missing; run `cargo xtask kubernetes`",
        program.display()
    );
    Ok(Command::new(program))
}

/// Of the daemons: `v1.2.3`.
pub fn version() -> Result<String> {
    let output = kubernetes("kube-apiserver")?.arg("--version").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.trim().strip_prefix("Kubernetes ").map(str::to_owned);
    version.with_context(|| format!("kube-apiserver --version: {said}"))
}

/// A command for a program of Debian's that lies outside everybody's `PATH`, or not.
pub fn system(path: &str, package: &str) -> Result<Command> {
    ensure!(
        std::path::Path::new(path).exists(),
        "{path} is missing; `apt-get install {package}`"
    );
    Ok(Command::new(path))
}

fn folder() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os(VARIABLE) {
        return Ok(given.into());
    }
    newest().with_context(|| {
        format!("the Kubernetes programs are not there: run `cargo xtask kubernetes`, or name their folder in {VARIABLE}")
    })
}

fn newest() -> Option<PathBuf> {
    let home = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = home("XDG_CACHE_HOME").or_else(|| home("HOME").map(|home| home.join(".cache")))?;
    let folders = std::fs::read_dir(cache.join("opes")).ok()?.flatten();
    let kubernetes = folders.filter_map(|folder| {
        let is_one = folder.file_name().to_str()?.starts_with("kubernetes-");
        let used = folder
            .path()
            .join(MARKER)
            .metadata()
            .ok()?
            .modified()
            .ok()?;
        is_one.then(|| (used, folder.path().join("bin")))
    });
    kubernetes.max().map(|(_, folder)| folder)
}
