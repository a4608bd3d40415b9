//! How long to wait after a failed request: longer each time, never the same for two objects.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// After the first failure.
const FIRST: Duration = Duration::from_millis(500);
/// Never longer.
const LONGEST: Duration = Duration::from_mins(5);

/// Failures by object.
#[derive(Debug)]
pub struct Backoff<K> {
    failures: BTreeMap<K, Failure>,
    jitter: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    count: u32,
    until: Instant,
}

// === impl Backoff ===

impl<K: Ord + Clone> Default for Backoff<K> {
    fn default() -> Self {
        Self {
            failures: BTreeMap::new(),
            jitter: RandomState::new(),
        }
    }
}

impl<K: Ord + Clone> Backoff<K> {
    /// May it be tried now?
    pub fn is_open(&self, key: &K, now: Instant) -> bool {
        self.failures
            .get(key)
            .is_none_or(|failure| failure.until <= now)
    }

    /// It failed: doubles the pause, from half a second to five minutes, and takes up to half of it off at random.
    pub fn failed(&mut self, key: &K, now: Instant) -> Duration {
        let count = self.failures.get(key).map_or(0, |failure| failure.count);
        let whole = FIRST.saturating_mul(1 << count.min(16)).min(LONGEST);
        let random = self
            .jitter
            .hash_one((count, now.elapsed().as_nanos(), self.failures.len()))
            % 1_000;
        let pause =
            whole.mul_f64(0.5 + f64::from(u32::try_from(random).unwrap_or_default()) / 2_000.0);
        let failure = Failure {
            count: count.saturating_add(1),
            until: now + pause,
        };
        self.failures.insert(key.clone(), failure);
        pause
    }

    /// It worked.
    pub fn worked(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// Nothing is remembered of what is not there any more.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.failures.retain(|key, _| keep(key));
    }

    /// When the next one may be tried.
    pub fn next(&self) -> Option<Instant> {
        self.failures.values().map(|failure| failure.until).min()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.failures.len()
    }

    /// Nothing has failed.
    pub fn is_empty(&self) -> bool {
        self.failures.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_five_minutes_with_jitter() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let mut whole = FIRST;
        for _ in 0..20 {
            let pause = backoff.failed(&"a", now);
            assert!(
                pause >= whole / 2 && pause <= whole,
                "{pause:?} of {whole:?}"
            );
            assert!(!backoff.is_open(&"a", now));
            assert!(backoff.is_open(&"a", now + pause));
            whole = (whole * 2).min(LONGEST);
        }
        assert_eq!(whole, LONGEST);
        backoff.worked(&"a");
        assert!(backoff.is_open(&"a", now) && backoff.next().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn two_objects_do_not_come_again_at_the_same_moment() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let pauses: std::collections::BTreeSet<Duration> =
            (0..50).map(|key| backoff.failed(&key, now)).collect();
        assert!(pauses.len() > 10, "{pauses:?}");
    }
}
