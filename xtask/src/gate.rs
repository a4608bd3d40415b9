//! The gate: steps one after another, a line with the seconds for each, a summary at the end.
//!
//! A failing step does not keep the others from running, so that one run shows everything that is wrong.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::shell::{cargo, run as run_command, succeeds};
use crate::{cache, deny, tools};

/// How a step ended well.
pub(crate) enum Passed {
    /// It ran and has nothing against us.
    Checked,
    /// It could not run, for this reason, and that is acceptable.
    Skipped(&'static str),
}

struct Step {
    name: &'static str,
    work: fn() -> anyhow::Result<Passed>,
}

const STEPS: &[Step] = &[
    Step {
        name: "tools",
        work: tools::install,
    },
    Step {
        name: "fmt",
        work: fmt,
    },
    Step {
        name: "clippy",
        work: clippy,
    },
    Step {
        name: "build",
        work: build,
    },
    Step {
        name: "test",
        work: test,
    },
    Step {
        name: "deny",
        work: deny::check,
    },
];

/// Runs the steps called `names`, or all.
pub(crate) fn run(names: &[String]) -> anyhow::Result<()> {
    let steps = chosen(names)?;
    let target = cache::target_folder()?;
    println!("xtask: compiling into {}", target.display());
    let mut summary = Vec::new();
    for step in steps {
        println!("xtask: {} …", step.name);
        let started = Instant::now();
        let outcome = (step.work)();
        let line = line(step.name, &outcome, started.elapsed());
        println!("xtask: {line}");
        summary.push((line, outcome.is_ok()));
    }
    println!("\nSummary");
    for (line, _) in &summary {
        println!("  {line}");
    }
    let failed = summary.iter().filter(|(_, passed)| !passed).count();
    ensure!(failed == 0, "{failed} of {} steps failed", summary.len());
    Ok(())
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Step>> {
    let known = |name: &String| STEPS.iter().any(|step| step.name == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let known: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        bail!("unknown step `{unknown}`; there are {}", known.join(", "));
    }
    let wanted = |step: &&Step| names.is_empty() || names.iter().any(|name| name == step.name);
    Ok(STEPS.iter().filter(wanted).collect())
}

fn line(name: &str, outcome: &anyhow::Result<Passed>, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match outcome {
        Ok(Passed::Checked) => format!("{name:<8} ok      {seconds:7.1} s"),
        Ok(Passed::Skipped(why)) => format!("{name:<8} skipped {seconds:7.1} s  {why}"),
        Err(error) => format!("{name:<8} FAILED  {seconds:7.1} s  {error:#}"),
    }
}

// === Steps ===

fn fmt() -> anyhow::Result<Passed> {
    if !succeeds(&mut cargo(["fmt", "--version"])) {
        return Ok(Passed::Skipped(
            "no rustfmt; `rustup component add rustfmt`",
        ));
    }
    run_command(&mut cargo(["fmt", "--all", "--check"]))?;
    Ok(Passed::Checked)
}

fn clippy() -> anyhow::Result<Passed> {
    if !succeeds(&mut cargo(["clippy", "--version"])) {
        return Ok(Passed::Skipped("no clippy; `rustup component add clippy`"));
    }
    let arguments = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    compile(&arguments)?;
    Ok(Passed::Checked)
}

/// Release builds of what end-to-end tests start: they look at times and memory.
fn build() -> anyhow::Result<Passed> {
    compile(&[
        "build",
        "--release",
        "--locked",
        "-p",
        "opes",
        "-p",
        "opes-examples",
    ])?;
    Ok(Passed::Checked)
}

fn test() -> anyhow::Result<Passed> {
    let target = cache::target_folder()?;
    let opes = target.join("release").join("opes");
    ensure!(
        opes.exists(),
        "{} is missing; `cargo xtask test build` makes it",
        opes.display()
    );
    let mut command = cargo(["test", "--workspace", "--locked"]);
    command
        .env("CARGO_TARGET_DIR", &target)
        .env("OPES_BIN", &opes);
    run_command(&mut command)?;
    Ok(Passed::Checked)
}

fn compile(arguments: &[&str]) -> anyhow::Result<()> {
    let target = cache::target_folder().context("no folder to compile into")?;
    run_command(cargo(arguments.iter().copied()).env("CARGO_TARGET_DIR", target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_chosen_by_name() {
        assert_eq!(chosen(&[]).unwrap().len(), STEPS.len());
        let names = ["test".to_owned(), "fmt".to_owned()];
        let order: Vec<_> = chosen(&names)
            .unwrap()
            .iter()
            .map(|step| step.name)
            .collect();
        assert_eq!(order, ["fmt", "test"]);
        let refusal = chosen(&["lint".to_owned()]).err().unwrap().to_string();
        assert!(
            refusal.contains("`lint`; there are tools, fmt"),
            "{refusal}"
        );
    }

    #[test]
    fn every_outcome_has_its_line() {
        let took = Duration::from_millis(1250);
        assert_eq!(
            line("fmt", &Ok(Passed::Checked), took),
            "fmt      ok          1.2 s"
        );
        assert!(line("fmt", &Ok(Passed::Skipped("why")), took).ends_with("1.2 s  why"));
        assert!(line("fmt", &Err(anyhow::anyhow!("bad")), took).contains("FAILED"));
    }
}
