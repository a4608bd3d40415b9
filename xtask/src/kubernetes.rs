//! The programs of Kubernetes that tests start, of the newest and of the oldest supported version; and what this machine lacks for them.
//!
//! The gate makes them while Rust compiles ([`sets`]).

pub(crate) mod keda;
mod sets;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, bail};

use crate::{step, versions};

/// Names a kubeconfig that tests use instead of a control plane of their own.
pub(crate) const OTHER_CLUSTER: &str = "OPES_TEST_KUBECONFIG";

/// Where tests find the programs.
pub(crate) const PROGRAMS: &str = "OPES_KUBERNETES";

/// Tests of one kind that this machine cannot run.
pub(crate) struct Missing {
    /// Module in which they stand, by which they are left out.
    pub(crate) tests: &'static str,
    pub(crate) why: String,
}

/// One version of Kubernetes, made.
pub(crate) struct Made {
    /// `v1.2.3`.
    pub(crate) version: String,
    /// The folder of the programs, for [`PROGRAMS`].
    pub(crate) programs: PathBuf,
}

/// The ends of what is supported.
pub(crate) struct Versions {
    pub(crate) newest: Made,
    pub(crate) oldest: Made,
}

/// The programs, while they are made.
pub(crate) struct Background(JoinHandle<Result<Versions>>);

// === impl Background ===

impl Background {
    pub(crate) fn start() -> Self {
        Self(std::thread::spawn(sets::make))
    }

    /// Waits for both: nothing else may compile while tests look at times.
    pub(crate) fn wait(self) -> Result<Versions> {
        let mut made = None;
        step::timed("Kubernetes programs", || {
            let outcome = self.0.join().ok().context("the thread panicked")?;
            made = Some(outcome?);
            Ok(())
        })?;
        made.context("nothing was made")
    }
}

/// `cargo xtask kubernetes …`.
pub(crate) fn command(arguments: &[&str]) -> Result<()> {
    match arguments {
        [] => print(),
        ["keda"] => keda::print(),
        ["oldest"] => versions::oldest(),
        ["test"] => versions::everything(),
        _ => bail!("cargo xtask kubernetes, alone or with one of: keda, oldest, test"),
    }
}

fn print() -> Result<()> {
    let versions = Background::start().wait()?;
    for made in [versions.newest, versions.oldest] {
        println!("{PROGRAMS}={} # {}", made.programs.display(), made.version);
    }
    Ok(())
}

/// Which tests cannot be run here.
pub(crate) fn missing() -> Vec<Missing> {
    let mut missing = Vec::new();
    let programs = programs_missing();
    if std::env::var_os(OTHER_CLUSTER).is_none()
        && let Some(why) = &programs
    {
        let why = format!("{why}; or name a cluster in {OTHER_CLUSTER}");
        missing.push(Missing {
            tests: "control_plane::",
            why,
        });
    }
    if let Some(why) = programs.or_else(node_missing) {
        missing.push(Missing {
            tests: "whole_node::",
            why,
        });
    }
    missing
}

/// Why the programs cannot be made, if they are not there.
fn programs_missing() -> Option<String> {
    if std::env::consts::OS != "linux" {
        return Some("Kubernetes' daemons need Linux".to_owned());
    }
    for (program, argument, advice) in [
        ("go", "version", "install Go 1.26 or newer"),
        ("npm", "--version", "install Node.js with npm"),
    ] {
        let found = Command::new(program).arg(argument).output();
        if !found.is_ok_and(|output| output.status.success()) {
            return Some(format!("`{program}` is missing: {advice}"));
        }
    }
    None
}

/// Why a whole node cannot be run.
fn node_missing() -> Option<String> {
    let namespaces = Command::new("unshare")
        .args([
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--mount-proc",
        ])
        .args(["test", "-e", "/proc/sys/net/bridge/bridge-nf-call-iptables"])
        .stderr(Stdio::null())
        .status();
    if namespaces.is_ok_and(|status| status.success()) {
        return None;
    }
    Some("a node needs root, namespaces and the kernel module br_netfilter (`modprobe br_netfilter`)".to_owned())
}
