//! `cargo xtask test`: everything that must hold before a change lands, on a machine that has nothing but Rust and a C compiler.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

use crate::kubernetes::{self, Background};
use crate::step::{self, cargo};
use crate::{cache, deny, images, install, python, versions};

/// Control plane alone, whole node.
const KINDS_OF_CLUSTER_TESTS: usize = 2;

/// Tests that run what [`install`] brings, outside the crates that `--fast` leaves out.
const PACKAGES_NEEDED: &str = "with_packages::";

/// Runs of the simulation in one round of a soak.
const SOAK_SEEDS: u64 = 5000;

/// Runs the gate. `fast` leaves out lints and end-to-end tests.
pub(crate) fn run(fast: bool) -> Result<()> {
    let started = Instant::now();
    let outcome = gate(fast);
    step::summary();
    if outcome.is_ok() {
        println!("all passed, {} s", started.elapsed().as_secs());
    }
    outcome
}

fn gate(fast: bool) -> Result<()> {
    let target = cache::target_folder()?;
    let images = target.join("images");
    println!("builds are kept in {}", target.display());
    let missing = if fast { Vec::new() } else { left_out()? };
    let wanted = !fast && missing.len() < KINDS_OF_CLUSTER_TESTS;
    // Compiles while Rust does.
    let kubernetes = wanted.then(Background::start);
    if has_tool("fmt") {
        cargo("format", &target, &["fmt", "--all", "--check"])?;
    } else {
        step::skipped("format", "no rustfmt; `rustup component add rustfmt`");
    }
    deny::check(&target)?;
    let mut tests = step::cargo_command(&target);
    tests
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .env("OPES_BIN", target.join("release/opes"));
    if fast {
        tests.args(["--exclude", "opes-e2e", "--exclude", "opes-cluster"]);
    } else {
        install::packages()?;
        tests.env("OPES_PYTHON", python::environment()?);
        lints(&target)?;
        step::release_build(&target)?;
        images::make(&target, &images, images::FOR_TESTS)?;
        images::make_for_node(&images)?;
        tests.env("OPES_IMAGES", &images);
    }
    let kubernetes = kubernetes.map(Background::wait).transpose()?;
    if let Some(versions) = &kubernetes {
        tests.env(kubernetes::PROGRAMS, &versions.newest.programs);
    }
    tests.arg("--");
    if fast {
        tests.args(["--skip", PACKAGES_NEEDED]);
    }
    for missing in &missing {
        tests.args(["--skip", missing]);
    }
    step::command("tests", &mut tests)?;
    if let Some(versions) = kubernetes {
        versions::on_oldest(&target, &images, &versions.oldest, &missing)?;
    }
    Ok(())
}

/// Modules of cluster tests that this machine cannot run, each said with its reason; none may be where everything must run.
fn left_out() -> Result<Vec<&'static str>> {
    let missing = kubernetes::missing();
    for it in &missing {
        step::skipped(&format!("tests in `{}`", it.tests), &it.why);
    }
    let all = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    ensure!(
        missing.is_empty() || !all,
        "with CI set, every test must run"
    );
    Ok(missing.into_iter().map(|it| it.tests).collect())
}

fn lints(target: &Path) -> Result<()> {
    if !has_tool("clippy") {
        step::skipped("lints", "no clippy; `rustup component add clippy`");
        return Ok(());
    }
    cargo(
        "lints",
        target,
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
    )
}

fn has_tool(name: &str) -> bool {
    let output = Command::new("cargo").args([name, "--version"]).output();
    output.is_ok_and(|output| output.status.success())
}

/// Other seeds than those of the gate, and others in every round.
fn simulation(target: &Path, round: u64) -> Result<()> {
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let first = started + round * SOAK_SEEDS;
    let mut seeds = step::cargo_command(target);
    seeds
        .args(["test", "--release", "--locked", "-p", "opes-simulation"])
        .env("OPES_SIM_FIRST", first.to_string())
        .env("OPES_SIM_SEEDS", SOAK_SEEDS.to_string());
    step::command(&format!("round {round}: seeds from {first} on"), &mut seeds)
}

/// The tests whose input or timing is random, until the time is over.
pub(crate) fn soak(minutes: u64) -> Result<()> {
    install::packages()?;
    let target = cache::target_folder()?;
    step::release_build(&target)?;
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let mut round = 0_u64;
    while Instant::now() < end {
        round += 1;
        let mut cores = step::cargo_command(&target);
        cores
            .args(["test", "--release", "--locked"])
            .env("PROPTEST_CASES", "5000");
        for package in [
            "opes-ocp",
            "opes-smtp",
            "opes-mime",
            "opes-rules",
            "opes-content",
            "opes-spool",
        ] {
            cores.args(["-p", package]);
        }
        step::command(&format!("round {round}: properties"), &mut cores)?;
        simulation(&target, round)?;
        let mut kills = step::cargo_command(&target);
        kills.args([
            "test",
            "--release",
            "--locked",
            "-p",
            "opes-e2e",
            "--test",
            "kill9",
            "--test",
            "failures",
        ]);
        step::command(
            &format!("round {round}: kills"),
            kills.env("OPES_BIN", target.join("release/opes")),
        )?;
    }
    println!("── {round} rounds passed");
    Ok(())
}
