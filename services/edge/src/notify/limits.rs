//! How many notifications an address gets and a rule causes: token buckets in bounded memory. And how often their absence is logged.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::policy::Refusal;
use crate::metrics::NotificationLabel;
use crate::quiet::Quiet;

/// Addresses that are remembered; some 1 MiB. Beyond, new ones get nothing until an old one has its whole share again.
const ADDRESSES_MAX: usize = 10_000;

/// Rules come from the configuration, and change with it.
const RULES_MAX: usize = 1_000;

/// Time between two log lines for the same reason.
const LOG_PERIOD: Duration = Duration::from_mins(10);

const HOUR: Duration = Duration::from_hours(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Limits {
    state: Mutex<State>,
    quiet: Quiet<NotificationLabel>,
}

#[derive(Debug)]
struct State {
    addresses: Buckets,
    rules: Buckets,
}

/// One bucket a key; a key that is not there has a full one.
#[derive(Debug)]
struct Buckets {
    per_hour: u32,
    max: usize,
    left: HashMap<String, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

// === impl Limits ===

impl Limits {
    pub(crate) fn new(per_recipient_per_hour: u32, per_rule_per_hour: u32) -> Self {
        let state = State {
            addresses: Buckets::new(per_recipient_per_hour, ADDRESSES_MAX),
            rules: Buckets::new(per_rule_per_hour, RULES_MAX),
        };
        Self {
            state: Mutex::new(state),
            quiet: Quiet::new(LOG_PERIOD),
        }
    }

    /// Counts a notification to `address` that `rule` causes, if both have something left.
    pub(crate) fn take(&self, address: &str, rule: &str, now: Instant) -> Result<(), Refusal> {
        let address = address.to_ascii_lowercase();
        let mut state = self.state();
        if !state.addresses.has(&address, now) {
            return Err(Refusal::RecipientLimit);
        }
        if !state.rules.has(rule, now) {
            return Err(Refusal::RuleLimit);
        }
        state.addresses.take(&address, now);
        state.rules.take(rule, now);
        Ok(())
    }

    /// Notes that one was not sent. Gives how many since the last log line, this one included, if another line is due.
    pub(crate) fn note(&self, reason: NotificationLabel, now: Instant) -> Option<u64> {
        self.quiet.note(reason, now)
    }

    /// Held for moments; whole after every statement.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Buckets ===

impl Buckets {
    fn new(per_hour: u32, max: usize) -> Self {
        Self {
            per_hour,
            max,
            left: HashMap::new(),
        }
    }

    fn has(&mut self, key: &str, now: Instant) -> bool {
        if !self.left.contains_key(key) && self.left.len() >= self.max {
            let (full, per_hour) = (f64::from(self.per_hour), self.per_hour);
            self.left
                .retain(|_, bucket| bucket.tokens(per_hour, now) < full);
            if self.left.len() >= self.max {
                return false;
            }
        }
        self.tokens(key, now) >= 1.0
    }

    fn take(&mut self, key: &str, now: Instant) {
        let tokens = self.tokens(key, now) - 1.0;
        self.left.insert(key.to_owned(), Bucket { tokens, at: now });
    }

    fn tokens(&self, key: &str, now: Instant) -> f64 {
        match self.left.get(key) {
            Some(bucket) => bucket.tokens(self.per_hour, now),
            None => f64::from(self.per_hour),
        }
    }
}

// === impl Bucket ===

impl Bucket {
    fn tokens(&self, per_hour: u32, now: Instant) -> f64 {
        let full = f64::from(per_hour);
        let hours = now.saturating_duration_since(self.at).as_secs_f64() / HOUR.as_secs_f64();
        (self.tokens + hours * full).min(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_and_each_rule_has_its_share_and_gets_it_back() {
        let limits = Limits::new(2, 3);
        let mut now = Instant::now();
        let take = |now, address, rule| limits.take(address, rule, now);
        assert_eq!(take(now, "a@example.com", "r/1"), Ok(()));
        assert_eq!(take(now, "A@example.com", "r/1"), Ok(()));
        assert_eq!(
            take(now, "a@example.com", "r/1"),
            Err(Refusal::RecipientLimit)
        );
        assert_eq!(take(now, "b@example.com", "r/1"), Ok(()));
        assert_eq!(take(now, "c@example.com", "r/1"), Err(Refusal::RuleLimit));
        // What the rule may not send is not taken from the address.
        assert_eq!(take(now, "c@example.com", "r/2"), Ok(()));
        assert_eq!(take(now, "c@example.com", "r/2"), Ok(()));
        now += HOUR / 2;
        assert_eq!(take(now, "a@example.com", "r/1"), Ok(()));
        assert_eq!(
            take(now, "a@example.com", "r/2"),
            Err(Refusal::RecipientLimit)
        );
        now += HOUR * 24;
        assert_eq!(take(now, "a@example.com", "r/1"), Ok(()));
        assert_eq!(take(now, "a@example.com", "r/1"), Ok(()));
        assert_eq!(
            take(now, "a@example.com", "r/1"),
            Err(Refusal::RecipientLimit)
        );
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let mut buckets = Buckets::new(1, 10);
        let now = Instant::now();
        for number in 0..10 {
            let key = number.to_string();
            assert!(buckets.has(&key, now));
            buckets.take(&key, now);
        }
        assert!(!buckets.has("new", now));
        assert!(buckets.has("new", now + HOUR));
        assert!(buckets.left.is_empty());
    }

    #[test]
    fn none_means_none() {
        let limits = Limits::new(0, 5);
        let taken = limits.take("a@example.com", "r/1", Instant::now());
        assert_eq!(taken, Err(Refusal::RecipientLimit));
    }
}
