//! Pauses between attempts: they double, and are spread, so that a thousand edges do not come back in step.

use std::time::Duration;

const MIN: Duration = Duration::from_millis(250);
/// The operator reckons with it: it waits so long for edges to come back before it says that all of them run a rule.
const MAX: Duration = Duration::from_secs(5);

/// A stream that lived so long was a success; one that ends sooner was not.
const SUCCESS: Duration = Duration::from_secs(5);

/// Of one address.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: MIN }
    }
}

impl Backoff {
    /// After an attempt that lived for `lived`: half of the pause to all of it. `random`: any of 64 bits.
    pub(crate) fn pause(&mut self, lived: Duration, random: u64) -> Duration {
        if lived >= SUCCESS {
            self.next = MIN;
        }
        let whole = self.next;
        self.next = (whole * 2).min(MAX);
        let half = whole / 2;
        let spread = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_millis(random % spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let mut last = Duration::ZERO;
        for random in 0..12 {
            let pause = backoff.pause(Duration::ZERO, random * 7_919);
            assert!(pause <= MAX && pause >= MIN / 2, "{pause:?}");
            last = pause;
        }
        assert!(last >= MAX / 2);
        assert!(backoff.pause(SUCCESS, 0) <= MIN);
        let spread = [1, 50, 100].map(|random| Backoff { next: MAX }.pause(Duration::ZERO, random));
        assert!(spread[0] < spread[1] && spread[1] < spread[2]);
    }
}
