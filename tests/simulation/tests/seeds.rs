//! Many seeds, one seed, and proof that the simulation can fail.

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use opes_simulation::{KnownBug, Outcome, run};

/// Runs of the gate; `OPES_SIM_SEEDS` asks for another number.
const SEEDS: u64 = 1000;

/// Enough to see what they have in common.
const FAILURES_MAX: usize = 10;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn outcome(seed: u64, bug: KnownBug) -> Outcome {
    run(seed, bug).expect("a temporary folder")
}

/// Runs `count` seeds from `first` on, on every core, until there are `enough` failures.
fn failures(
    first: u64,
    count: u64,
    bug: KnownBug,
    enough: impl Fn(&[(u64, Outcome)]) -> bool + Sync,
) -> Vec<(u64, Outcome)> {
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count || enough(&failed.lock().expect("no panics")) {
                return;
            }
            let outcome = catch_unwind(|| outcome(seed, bug)).unwrap_or_else(|_| {
                panic!("seed {seed} panicked\n{}", how_to_rerun(seed));
            });
            if !outcome.violations.is_empty() {
                failed.lock().expect("no panics").push((seed, outcome));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    failed.into_inner().expect("no panics")
}

fn how_to_rerun(seed: u64) -> String {
    format!("again: OPES_SIM_SEED={seed} cargo test -p opes-simulation one_seed -- --nocapture")
}

#[test]
fn a_thousand_seeds_keep_the_invariants() {
    let started = Instant::now();
    let count = number("OPES_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("OPES_SIM_FIRST").unwrap_or(0);
    let failed = failures(first, count, KnownBug::None, |failed| {
        failed.len() >= FAILURES_MAX
    });
    let report = failed.iter().map(|(seed, outcome)| {
        let (violations, again) = (outcome.violations.join("\n  "), how_to_rerun(*seed));
        format!("seed {seed}:\n  {violations}\n  {again}")
    });
    let report: Vec<_> = report.collect();
    assert!(report.is_empty(), "{}", report.join("\n"));
    println!("{count} seeds in {} s", started.elapsed().as_secs());
}

#[test]
fn one_seed() {
    let asked = number("OPES_SIM_SEED");
    let outcome = outcome(asked.unwrap_or(1), KnownBug::None);
    if asked.is_some() {
        println!("{}{}", outcome.plan, outcome.trace.join("\n"));
    }
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
}

#[test]
fn the_same_seed_goes_the_same_way() {
    let count = number("OPES_SIM_SEEDS").unwrap_or(SEEDS) / 50;
    for seed in 0..count {
        let (first, again) = (outcome(seed, KnownBug::None), outcome(seed, KnownBug::None));
        let both = first.trace.iter().zip(&again.trace);
        let common = both.take_while(|(one, other)| one == other).count();
        let after = |trace: &[String]| {
            let (from, to) = (common.saturating_sub(10), trace.len().min(common + 5));
            trace[from..to].join("\n")
        };
        assert_eq!(
            first.fingerprint,
            again.fingerprint,
            "seed {seed}: the ways part behind line {common}\n{}\nor\n{}",
            after(&first.trace),
            after(&again.trace)
        );
    }
}

#[test]
fn known_bugs_are_found() {
    for (bug, what) in [
        (KnownBug::LyingDisk, "lost"),
        (KnownBug::ForgetfulHop, "lost"),
        (KnownBug::LenientPolicy, "not held, and the judge"),
        (KnownBug::LenientPolicy, "not held, and the adapter"),
    ] {
        let is_found = |failed: &[(u64, Outcome)]| {
            let mut violations = failed.iter().flat_map(|(_, outcome)| &outcome.violations);
            violations.any(|violation| violation.contains(what))
        };
        let found = failures(0, 300, bug, is_found);
        assert!(is_found(&found), "{bug:?}");
    }
}
