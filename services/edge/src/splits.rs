//! Senders whose last message was for recipients with different verdicts: their next transactions take one recipient each.
//!
//! A memory of an hour or two, bounded and of this process only. What is forgotten costs the client one more attempt, never a message.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Senders remembered before the oldest half is forgotten.
const SENDERS_MAX: usize = 10_000;

/// After which half of the memory is forgotten; clients come again sooner.
const GENERATION: Duration = Duration::from_hours(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Splits {
    hasher: RandomState,
    generations: Mutex<Generations>,
}

#[derive(Debug)]
struct Generations {
    now: HashSet<u64>,
    before: HashSet<u64>,
    since: Instant,
}

impl Default for Splits {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            generations: Mutex::new(Generations {
                now: HashSet::new(),
                before: HashSet::new(),
                since: Instant::now(),
            }),
        }
    }
}

impl Splits {
    pub(crate) fn insert(&self, sender: &str) {
        let key = self.key(sender);
        let mut generations = self.generations();
        generations.turn();
        generations.now.insert(key);
    }

    pub(crate) fn contains(&self, sender: &str) -> bool {
        let mut generations = self.generations();
        generations.turn();
        if generations.now.is_empty() && generations.before.is_empty() {
            return false;
        }
        let key = self.key(sender);
        generations.now.contains(&key) || generations.before.contains(&key)
    }

    fn key(&self, sender: &str) -> u64 {
        self.hasher.hash_one(sender.to_ascii_lowercase())
    }

    fn generations(&self) -> std::sync::MutexGuard<'_, Generations> {
        // A panic in these few lines leaves nothing half-done that matters.
        self.generations
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Generations {
    fn turn(&mut self) {
        if self.since.elapsed() >= GENERATION || self.now.len() >= SENDERS_MAX {
            self.before = std::mem::take(&mut self.now);
            self.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_senders_in_any_case_and_is_bounded() {
        let splits = Splits::default();
        assert!(!splits.contains("ann@example.com"));
        splits.insert("Ann@example.com");
        assert!(splits.contains("ann@Example.com"));
        for number in 0..3 * SENDERS_MAX {
            splits.insert(&format!("{number}@example.net"));
        }
        assert!(!splits.contains("ann@example.com"));
        let generations = splits.generations();
        assert!(generations.now.len() + generations.before.len() <= 2 * SENDERS_MAX);
    }
}
