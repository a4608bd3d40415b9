//! The retry budget of one service: repeats are a share of what is asked anyway, so that a service in trouble is never
//! asked several times as much.

use std::time::Duration;

/// What counts as recent: this interval and the fading one before it.
const WINDOW: Duration = Duration::from_secs(10);

/// Repeats per hundred recent transactions.
const SHARE_PERCENT: u64 = 20;

/// Repeats that are always possible, so that a quiet service has some too.
const RESERVE: u64 = 10;

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    transactions: u64,
    retries: u64,
}

#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
    began: Duration,
    current: Counts,
    previous: Counts,
}

impl RetryBudget {
    /// A transaction is asked for, the first time.
    pub(crate) fn note_transaction(&mut self, now: Duration) {
        self.roll(now);
        self.current.transactions += 1;
    }

    /// Takes one repeat out of the budget.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        self.roll(now);
        let transactions = self.recent(now, |counts| counts.transactions);
        let allowed = RESERVE + transactions * SHARE_PERCENT / 100;
        if self.recent(now, |counts| counts.retries) >= allowed {
            return false;
        }
        self.current.retries += 1;
        true
    }

    fn roll(&mut self, now: Duration) {
        let age = now.saturating_sub(self.began);
        if age < WINDOW {
            return;
        }
        self.previous = if age < WINDOW * 2 {
            self.current
        } else {
            Counts::default()
        };
        self.current = Counts::default();
        self.began = now;
    }

    fn recent(&self, now: Duration, of: impl Fn(&Counts) -> u64) -> u64 {
        let left = WINDOW.saturating_sub(now.saturating_sub(self.began));
        let fading = u128::from(of(&self.previous)) * left.as_millis() / WINDOW.as_millis();
        of(&self.current) + u64::try_from(fading).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quiet_service_has_the_reserve() {
        let mut budget = RetryBudget::default();
        let now = Duration::from_secs(100);
        let given = (0..100).filter(|_| budget.take(now)).count();
        assert_eq!(given, 10);
        assert!(budget.take(now + WINDOW * 2), "the past is forgotten");
    }

    #[test]
    fn a_fifth_of_what_is_asked() {
        let mut budget = RetryBudget::default();
        let now = Duration::from_secs(100);
        for _ in 0..1000 {
            budget.note_transaction(now);
        }
        let given = (0..1000).filter(|_| budget.take(now)).count();
        assert_eq!(given, 210);
    }

    proptest! {
        #[test]
        fn never_more_than_the_share_of_everything_and_the_reserve_of_each_window(
            steps in proptest::collection::vec((0_u64..3000, 0_u8..20), 1..300),
        ) {
            let (mut budget, mut now) = (RetryBudget::default(), Duration::ZERO);
            let (mut asked, mut given) = (0_u64, 0_u64);
            for (step, retries) in steps {
                now += Duration::from_millis(step);
                budget.note_transaction(now);
                asked += 1;
                given += (0..retries).filter(|_| budget.take(now)).count() as u64;
            }
            let windows = now.as_secs() / WINDOW.as_secs() + 1;
            prop_assert!(given <= RESERVE * windows + 2 * asked * SHARE_PERCENT / 100 + windows);
        }
    }
}
