//! Tests on other versions of Kubernetes than the newest.
//!
//! Tests know no versions: they run on the programs that `OPES_KUBERNETES` names. The gate runs all of them on the newest and, on the oldest, those
//! that look at what versions differ in; `cargo xtask kubernetes test` runs all of them on both, in their long form.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::kubernetes::{self, Background, Made, Versions, keda};
use crate::step;
use crate::{cache, images, install};

/// Test program, and beginning of the names of its tests.
type Chosen = (&'static str, &'static str);

/// What must hold on the oldest version in the gate, on control planes: these mostly wait, and run side by side.
const ON_OLDEST: [Chosen; 4] = [
    // Every example is taken, every refusal said; `kubectl` shows, waits, scales.
    ("crds", "control_plane::"),
    // What the operator writes, and reads back; what others apply meanwhile.
    ("operator_core", "control_plane::conditions::"),
    ("operator_core", "control_plane::pools::"),
    // Each object of each set of values, and each of its pods where Pod Security is `restricted`.
    ("chart", "control_plane::admission::"),
];

/// And on a node of its own: the version that runs is the one that was asked for; from `helm install` to mail and back to nothing.
const ON_OLDEST_NODE: [Chosen; 1] = [("node", "whole_node::story")];

/// Tells `tests/cluster/tests/node.rs` to leave out what is the same on every version.
const STORY: (&str, &str) = ("OPES_NODE_STORY", "short");

/// Runs those tests. `missing` are beginnings of names of tests that this machine cannot run.
pub(crate) fn on_oldest(
    target: &Path,
    images: &Path,
    oldest: &Made,
    missing: &[&str],
) -> Result<()> {
    for (kind, chosen) in [
        ("control plane", &ON_OLDEST[..]),
        ("whole node", &ON_OLDEST_NODE[..]),
    ] {
        let here = |it: &&Chosen| !missing.iter().any(|left_out| it.1.starts_with(left_out));
        let commands = chosen.iter().filter(here).map(|&(program, tests)| {
            let mut command = step::cargo_command(target);
            // All of the workspace, or features differ and everything is compiled again.
            command
                .args(["test", "--workspace", "--locked", "--test", program])
                .args(["--", tests])
                .env(STORY.0, STORY.1)
                .env("OPES_BIN", target.join("release/opes"))
                .env("OPES_IMAGES", images)
                .env(kubernetes::PROGRAMS, &oldest.programs)
                .env_remove(kubernetes::OTHER_CLUSTER);
            (program, command)
        });
        let commands: Vec<_> = commands.collect();
        if !commands.is_empty() {
            let name = format!("Kubernetes {}: {kind}", oldest.version);
            step::timed(&name, || side_by_side(commands))?;
        }
    }
    Ok(())
}

/// All of them to their ends; the first error.
fn side_by_side(commands: Vec<(&str, Command)>) -> Result<()> {
    std::thread::scope(|scope| {
        let running: Vec<_> = commands
            .into_iter()
            .map(|(name, mut command)| scope.spawn(move || some_pass(name, &mut command)))
            .collect();
        // Joined all, whatever the first has said.
        let ended: Vec<_> = running
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        for outcome in ended {
            outcome.ok().context("the thread panicked")??;
        }
        Ok(())
    })
}

/// Runs tests that a filter chose. One that chooses none is an error: it would pass for ever.
fn some_pass(name: &str, command: &mut Command) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let output = child.stdout.take().context("no standard output")?;
    let mut ran = 0;
    for line in BufReader::new(output).lines() {
        let line = line?;
        ran += started(&line);
        println!("{name}: {line}");
    }
    let status = child.wait()?;
    ensure!(status.success(), "{command:?}: {status}");
    ensure!(ran > 0, "{command:?}: no test has such a name");
    Ok(())
}

/// Tests that a test program says it runs: `running 3 tests`.
fn started(line: &str) -> u32 {
    let number = line
        .strip_prefix("running ")
        .and_then(|rest| rest.split(' ').next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

/// `cargo xtask kubernetes test`: everything on both, with ten minutes where the gate waits for less, and with KEDA itself.
pub(crate) fn everything() -> Result<()> {
    let (target, images, versions) = prepare()?;
    let keda = keda::make()?;
    for made in [versions.oldest, versions.newest] {
        let mut command = step::cargo_command(&target);
        command
            .args(["test", "--locked", "--no-fail-fast", "-p", "opes-cluster"])
            .args(["--", "--include-ignored"])
            .env(keda::PROGRAMS, &keda)
            .env("OPES_BIN", target.join("release/opes"))
            .env("OPES_LONG", "yes")
            .env("OPES_IMAGES", &images)
            .env(kubernetes::PROGRAMS, &made.programs)
            .env_remove(kubernetes::OTHER_CLUSTER);
        step::command(&format!("Kubernetes {}", made.version), &mut command)?;
    }
    Ok(())
}

/// `cargo xtask kubernetes oldest`: what the gate runs on the oldest.
pub(crate) fn oldest() -> Result<()> {
    let (target, images, versions) = prepare()?;
    on_oldest(&target, &images, &versions.oldest, &[])
}

/// Everything but the tests: where programs and images are.
fn prepare() -> Result<(PathBuf, PathBuf, Versions)> {
    let versions = Background::start();
    install::packages()?;
    let target = cache::target_folder()?;
    step::release_build(&target)?;
    let images = target.join("images");
    images::make(&target, &images, images::FOR_TESTS)?;
    images::make_for_node(&images)?;
    Ok((target, images, versions.wait()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_run_are_counted() {
        assert_eq!(started("running 3 tests"), 3);
        assert_eq!(started("running 1 test"), 1);
        assert_eq!(started("test running ... ok"), 0);
        assert_eq!(started("running late"), 0);
    }

    #[test]
    fn a_filter_that_chooses_nothing_fails() {
        let says = |text: &str| {
            let mut command = Command::new("echo");
            command.arg(text);
            some_pass("echo", &mut command)
        };
        assert!(says("running 2 tests").is_ok());
        assert!(says("running 0 tests").is_err());
        let both = [("a", "running 1 test"), ("b", "running 0 tests")].map(|(name, says)| {
            let mut command = Command::new("echo");
            command.arg(says);
            (name, command)
        });
        assert!(side_by_side(both.into()).is_err());
        assert!(some_pass("false", &mut Command::new("false")).is_err());
    }
}
