//! Outlier ejection: an endpoint that fails again and again while it can be reached is left alone for a while.

use std::time::Duration;

/// Failures without a success in between.
const FAILURES_TO_EJECT: u32 = 5;

/// Times the number of ejections so far, up to the maximum.
const EJECTION_BASE: Duration = Duration::from_secs(5);
const EJECTION_MAX: Duration = Duration::from_mins(1);

/// Without a failure for this long, earlier ejections are forgotten.
const FORGET_AFTER: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub(crate) struct Health {
    failures: u32,
    ejections: u32,
    ejected_until: Option<Duration>,
    last_failure: Duration,
}

impl Health {
    pub(crate) fn is_ejected(&self, now: Duration) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// When it may be used again, or could: for the slow start.
    pub(crate) fn ejected_until(&self) -> Option<Duration> {
        self.ejected_until
    }

    pub(crate) fn answered(&mut self) {
        self.failures = 0;
    }

    /// For how long it is ejected, if this does it.
    pub(crate) fn failed(&mut self, now: Duration) -> Option<Duration> {
        let quiet_since = self
            .ejected_until
            .map_or(self.last_failure, |until| until.max(self.last_failure));
        if now.saturating_sub(quiet_since) >= FORGET_AFTER {
            self.ejections = 0;
        }
        self.last_failure = now;
        self.failures = self.failures.saturating_add(1);
        // What fails while it is ejected began before.
        if self.failures < FAILURES_TO_EJECT || self.is_ejected(now) {
            return None;
        }
        self.ejections = self.ejections.saturating_add(1);
        // After its return a single failure is enough.
        self.failures = FAILURES_TO_EJECT - 1;
        let length = EJECTION_BASE
            .saturating_mul(self.ejections)
            .min(EJECTION_MAX);
        self.ejected_until = Some(now + length);
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn five_in_a_row_and_longer_each_time() {
        let mut health = Health::default();
        for _ in 0..4 {
            assert_eq!(health.failed(s(100)), None);
        }
        health.answered();
        for _ in 0..4 {
            assert_eq!(health.failed(s(100)), None);
        }
        assert_eq!(health.failed(s(100)), Some(s(5)));
        assert!(health.is_ejected(s(104)) && !health.is_ejected(s(105)));
        assert_eq!(health.failed(s(104)), None, "it began before the ejection");
        assert_eq!(health.failed(s(105)), Some(s(10)));
        let mut now = 115;
        for _ in 0..20 {
            let length = health.failed(s(now)).unwrap();
            assert!(length <= EJECTION_MAX);
            now += length.as_secs();
        }
        assert_eq!(health.failed(s(now + 61)), Some(s(5)), "forgotten");
    }
}
