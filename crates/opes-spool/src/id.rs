//! The name of a message in the queue: short, sortable by time of arrival, never used twice.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use opes_host::Clock;

use serde::{Deserialize, Serialize};

/// Crockford's base 32: no I, L, O, U; sorts like the number.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

const TIME_DIGITS: u32 = 9;
const RUN_DIGITS: u32 = 4;
const COUNTER_DIGITS: u32 = 5;

/// Characters of a queue id as text.
pub(crate) const TEXT_LEN: usize = (TIME_DIGITS + RUN_DIGITS + COUNTER_DIGITS) as usize;

/// Names one message of one spool, for life. Text form: 18 characters `[0-9A-Z]`, made of milliseconds since 1970 (9), the number of
/// the first segment of the run that took it (4) and a counter (5). The run keeps ids apart when the clock is set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct QueueId {
    pub(crate) time_ms: u64,
    pub(crate) run: u32,
    pub(crate) counter: u32,
}

/// A text that is not a queue id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a queue id: expected 18 characters of 0-9 and A-Z without I, L, O and U")]
pub struct QueueIdError;

/// Gives out ids for one run of the program.
#[derive(Debug)]
pub(crate) struct Ids {
    clock: Clock,
    run: u32,
    counter: AtomicU32,
}

// === impl QueueId ===

impl QueueId {
    /// Keeps each part to what its digits hold, so that text and record always agree.
    pub(crate) fn new(time_ms: u64, run: u32, counter: u32) -> Self {
        Self {
            time_ms: time_ms & mask(TIME_DIGITS),
            run: run & mask_u32(RUN_DIGITS),
            counter: counter & mask_u32(COUNTER_DIGITS),
        }
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(TEXT_LEN);
        push_digits(&mut text, self.time_ms, TIME_DIGITS);
        push_digits(&mut text, self.run.into(), RUN_DIGITS);
        push_digits(&mut text, self.counter.into(), COUNTER_DIGITS);
        f.write_str(&text)
    }
}

impl FromStr for QueueId {
    type Err = QueueIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != TEXT_LEN {
            return Err(QueueIdError);
        }
        let (time, rest) = text.split_at_checked(9).ok_or(QueueIdError)?;
        let (run, counter) = rest.split_at_checked(4).ok_or(QueueIdError)?;
        let small = |text| u32::try_from(number(text)?).map_err(|_| QueueIdError);
        Ok(Self::new(number(time)?, small(run)?, small(counter)?))
    }
}

impl From<QueueId> for String {
    fn from(id: QueueId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for QueueId {
    type Error = QueueIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

// === impl Ids ===

impl Ids {
    pub(crate) fn new(clock: Clock, first_segment: u64) -> Self {
        let run = u32::try_from(first_segment & mask(RUN_DIGITS)).unwrap_or(0);
        Self {
            clock,
            run,
            counter: AtomicU32::new(0),
        }
    }

    pub(crate) fn next(&self) -> QueueId {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        QueueId::new(self.clock.epoch_ms(), self.run, counter)
    }
}

fn mask(digits: u32) -> u64 {
    (1 << (5 * digits)) - 1
}

fn mask_u32(digits: u32) -> u32 {
    (1 << (5 * digits)) - 1
}

fn push_digits(text: &mut String, number: u64, digits: u32) {
    for place in (0..digits).rev() {
        let digit = usize::try_from((number >> (5 * place)) & 31).unwrap_or(0);
        text.push(char::from(DIGITS.get(digit).copied().unwrap_or(b'0')));
    }
}

fn number(text: &str) -> Result<u64, QueueIdError> {
    text.bytes().try_fold(0, |number, byte| {
        let digit = DIGITS.iter().position(|digit| *digit == byte);
        let digit = u64::try_from(digit.ok_or(QueueIdError)?).map_err(|_| QueueIdError)?;
        Ok(number << 5 | digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips_and_sorts(a: (u64, u32, u32), b: (u64, u32, u32)) {
            let a = QueueId::new(a.0, a.1, a.2);
            let b = QueueId::new(b.0, b.1, b.2);
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert_eq!(a.to_string().len(), TEXT_LEN);
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn parsing_never_panics(text: String) {
            let _ = text.parse::<QueueId>();
        }
    }

    #[test]
    fn ids_of_one_run_differ() {
        let ids = Ids::new(Clock::System, 7);
        let all: std::collections::HashSet<_> = (0..1000).map(|_| ids.next()).collect();
        assert_eq!(all.len(), 1000);
    }
}
