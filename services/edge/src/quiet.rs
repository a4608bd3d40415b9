//! Log lines that would come with every message while something is wrong: one in a period for each reason, with how many there were.
//!
//! Counters have the exact number; a log that is flooded hides what is wrong. Reasons come from enums, so that memory is bounded.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When each reason was logged last.
#[derive(Debug)]
pub(crate) struct Quiet<R> {
    period: Duration,
    noted: Mutex<HashMap<R, Noted>>,
}

#[derive(Debug)]
struct Noted {
    since: Instant,
    suppressed: u64,
}

// === impl Quiet ===

impl<R: Eq + Hash> Quiet<R> {
    pub(crate) fn new(period: Duration) -> Self {
        Self {
            period,
            noted: Mutex::default(),
        }
    }

    /// Notes that it happened. Gives how many times since the last line, this one included, if another line is due.
    pub(crate) fn note(&self, reason: R, now: Instant) -> Option<u64> {
        // Whole after every statement.
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = noted.get_mut(&reason) else {
            let new = Noted {
                since: now,
                suppressed: 0,
            };
            noted.insert(reason, new);
            return Some(1);
        };
        last.suppressed += 1;
        if now.saturating_duration_since(last.since) < self.period {
            return None;
        }
        last.since = now;
        Some(std::mem::take(&mut last.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_period_and_reason_that_counts_the_others() {
        let quiet = Quiet::new(Duration::from_secs(10));
        let now = Instant::now();
        assert_eq!(quiet.note("away", now), Some(1));
        assert_eq!(quiet.note("away", now), None);
        assert_eq!(quiet.note("late", now), Some(1));
        let later = now + Duration::from_secs(10);
        assert_eq!(quiet.note("away", later), Some(2));
        assert_eq!(quiet.note("away", later), None);
    }
}
