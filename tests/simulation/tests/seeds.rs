//! Many seeds, one seed, and proof that the simulation can fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use opes_simulation::{KnownBug, Outcome, run};

/// Runs of the gate; `OPES_SIM_SEEDS` asks for another number.
const SEEDS: u64 = 1000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn outcome(seed: u64, bug: KnownBug) -> Outcome {
    run(seed, bug).expect("a temporary folder")
}

/// Seeds from `first` on, on every core, until one fails.
fn first_failure(first: u64, count: u64, bug: KnownBug) -> Option<(u64, Outcome)> {
    let next = AtomicU64::new(first);
    let failed = Mutex::new(None);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            let outcome = std::panic::catch_unwind(|| outcome(seed, bug)).unwrap_or_else(|_| {
                panic!("seed {seed} panicked\n{}", how_to_rerun(seed));
            });
            if !outcome.violations.is_empty() {
                next.store(first + count, Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert((seed, outcome));
                return;
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn how_to_rerun(seed: u64) -> String {
    format!("again: OPES_SIM_SEED={seed} cargo test -p opes-simulation one_seed -- --nocapture")
}

#[test]
fn a_thousand_seeds_keep_the_invariants() {
    let started = Instant::now();
    let count = number("OPES_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("OPES_SIM_FIRST").unwrap_or(0);
    if let Some((seed, outcome)) = first_failure(first, count, KnownBug::None) {
        panic!(
            "seed {seed}:\n{}\n{}",
            outcome.violations.join("\n"),
            how_to_rerun(seed)
        );
    }
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
    for seed in 0..20 {
        let (first, again) = (outcome(seed, KnownBug::None), outcome(seed, KnownBug::None));
        for (one, other) in first.trace.iter().zip(&again.trace) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(first.fingerprint, again.fingerprint, "seed {seed}");
    }
}

#[test]
fn known_bugs_are_found() {
    for (bug, word) in [
        (KnownBug::LyingDisk, "lost"),
        (KnownBug::ForgetfulHop, "lost"),
    ] {
        let (seed, outcome) = first_failure(0, 300, bug).expect("found within 300 seeds");
        let found = outcome.violations.join("\n");
        assert!(found.contains(word), "seed {seed}: {found}");
    }
}
