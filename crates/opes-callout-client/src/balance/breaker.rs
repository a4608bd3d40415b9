//! The circuit breaker of one service: after failures and nothing but failures, callouts fail at once for a while, and
//! single ones find out whether it is over.
//!
//! It decides only how fast a callout fails, never what becomes of the message: that is the rule's failure policy, the
//! same as after a slow failure.

use std::time::Duration;

/// Failures without an answer in between, over all endpoints, that open it.
const FAILURES_TO_OPEN: u32 = 10;

/// …if also nothing was answered for this long: many transactions that die with one endpoint are no dead service.
const SILENCE_TO_OPEN: Duration = Duration::from_secs(1);

/// Between two probes: doubles with each probe that fails.
const PROBE_INTERVAL_MIN: Duration = Duration::from_secs(1);
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(15);

/// What a breaker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Callouts go to the service.
    Closed,
    /// Callouts fail at once.
    Open,
    /// Open, and one callout is on its way to find out.
    HalfOpen,
}

/// Whether a transaction may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Normal,
    Probe,
    Refused,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    failures: u32,
    last_answer: Duration,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    since: Duration,
    /// When the last probe was let in. The interval counts from here: a probe that takes long to fail, or one of before that fails now,
    /// does not put the next one off.
    probed: Duration,
    interval: Duration,
    probing: bool,
}

impl Breaker {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            failures: 0,
            last_answer: now,
            open: None,
        }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match &self.open {
            None => BreakerState::Closed,
            Some(Open { probing: true, .. }) => BreakerState::HalfOpen,
            Some(Open { probing: false, .. }) => BreakerState::Open,
        }
    }

    pub(crate) fn admit(&mut self, now: Duration) -> Admission {
        match &mut self.open {
            None => Admission::Normal,
            Some(open) if now >= open.probed + open.interval => {
                open.probed = now;
                open.probing = true;
                Admission::Probe
            }
            Some(_) => Admission::Refused,
        }
    }

    /// How long it was open, if this closes it. Any answer does, also one to a transaction of before.
    pub(crate) fn answered(&mut self, now: Duration) -> Option<Duration> {
        self.failures = 0;
        self.last_answer = now;
        let open = self.open.take()?;
        Some(now.saturating_sub(open.since))
    }

    /// Whether this opens it. `probe`: it was let in to find out.
    pub(crate) fn failed(&mut self, now: Duration, probe: bool) -> bool {
        self.failures = self.failures.saturating_add(1);
        if let Some(open) = &mut self.open {
            if probe {
                open.interval = (open.interval * 2).min(PROBE_INTERVAL_MAX);
                open.probing = false;
            }
            return false;
        }
        let silent = now.saturating_sub(self.last_answer) >= SILENCE_TO_OPEN;
        if !silent || self.failures < FAILURES_TO_OPEN {
            return false;
        }
        self.open = Some(Open {
            since: now,
            probed: now,
            interval: PROBE_INTERVAL_MIN,
            probing: false,
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(ms(0));
        for n in 1..=10 {
            assert_eq!(breaker.failed(ms(2000), false), n == 10);
        }
        breaker
    }

    #[test]
    fn a_burst_of_losses_among_answers_does_not_open_it() {
        let mut breaker = Breaker::new(ms(0));
        breaker.answered(ms(5000));
        for _ in 0..1000 {
            assert!(!breaker.failed(ms(5900), false));
        }
        assert_eq!(breaker.admit(ms(5900)), Admission::Normal);
    }

    #[test]
    fn one_probe_at_a_time_ever_less_often_until_an_answer() {
        let mut breaker = opened();
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(ms(2999)), Admission::Refused);
        assert_eq!(breaker.admit(ms(3000)), Admission::Probe);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(ms(3000)), Admission::Refused);
        breaker.failed(ms(3100), true);
        assert_eq!(breaker.admit(ms(4999)), Admission::Refused);
        assert_eq!(breaker.admit(ms(5000)), Admission::Probe);
        // What began before it opened may fail now and says nothing new.
        breaker.failed(ms(5200), false);
        assert_eq!(breaker.answered(ms(5300)), Some(ms(3300)));
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.admit(ms(5300)), Admission::Normal);
    }

    #[test]
    fn a_probe_without_an_end_does_not_keep_it_shut() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(ms(3000)), Admission::Probe);
        assert_eq!(breaker.admit(ms(4000)), Admission::Probe);
    }

    proptest! {
        #[test]
        fn it_never_refuses_for_longer_than_the_longest_interval(
            steps in proptest::collection::vec((0_u64..5000, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let (mut breaker, mut now, mut last_admitted) = (Breaker::new(ms(0)), ms(0), ms(0));
            for (step, fails, probe) in steps {
                now += ms(step);
                if breaker.admit(now) == Admission::Refused {
                    prop_assert!(now < last_admitted + PROBE_INTERVAL_MAX);
                } else {
                    last_admitted = now;
                }
                if fails {
                    breaker.failed(now, probe && breaker.state() == BreakerState::HalfOpen);
                } else if probe {
                    breaker.answered(now);
                    prop_assert_eq!(breaker.state(), BreakerState::Closed);
                }
            }
        }
    }
}
