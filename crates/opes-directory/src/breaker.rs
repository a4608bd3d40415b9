//! When a directory that only fails is left alone, and when it is tried again: pure, time is a value.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which it is left alone.
const FAILURES_MAX: u32 = 3;
/// The first pause; each failed trial doubles it.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause: how late a directory that is back may be noticed.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Failures are counted; after some it opens, and lets one trial through after each pause.
#[derive(Debug)]
pub(crate) struct Breaker {
    failures: u32,
    pause: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
}

// === impl Breaker ===

impl Breaker {
    pub(crate) fn new() -> Self {
        Self {
            failures: 0,
            pause: PAUSE_FIRST,
            state: State::Closed,
        }
    }

    /// May it be asked? If not, how long until it may.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until } if until > now => Err(until - now),
            State::Open { .. } => {
                // This one is the trial. Others wait for its end, or for its own time to be over.
                self.state = State::Open {
                    until: now + self.pause,
                };
                Ok(())
            }
        }
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::new();
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_MAX {
            return;
        }
        if self.failures > FAILURES_MAX {
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        self.state = State::Open {
            until: now + self.pause,
        };
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state != State::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_tries_one_at_a_time_and_closes_on_success() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new();
        breaker.failed(now);
        breaker.failed(now);
        breaker.succeeded();
        for _ in 0..FAILURES_MAX {
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failed(now);
        }
        assert!(breaker.is_open());
        assert_eq!(breaker.admit(now), Err(PAUSE_FIRST));
        now += PAUSE_FIRST;
        assert_eq!(breaker.admit(now), Ok(()), "the trial");
        assert!(breaker.admit(now).is_err(), "one at a time");
        breaker.failed(now);
        assert_eq!(breaker.admit(now), Err(PAUSE_FIRST * 2));
        now += PAUSE_FIRST * 2;
        assert_eq!(breaker.admit(now), Ok(()));
        breaker.succeeded();
        assert!(!breaker.is_open());
        assert_eq!(breaker.admit(now), Ok(()));
    }

    #[test]
    fn the_pause_is_bounded() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..1000 {
            breaker.failed(now);
        }
        assert_eq!(breaker.admit(now), Err(PAUSE_MAX));
    }
}
