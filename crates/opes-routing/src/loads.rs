//! When the load of the pools is said: soon after it changed, and now and then if it did not.

use std::time::Duration;

use opes_proto::routing::PoolLoad;

/// How often the pools are looked at: a change is said within this time.
pub const LOAD_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// What has not changed is said again after this, below the 5 s of the contract.
pub const LOAD_INTERVAL: Duration = Duration::from_secs(4);

/// Pools in one message at most.
const POOLS_MAX: usize = 10_000;

/// What was said last, and when.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    said: Vec<PoolLoad>,
    at: Option<Duration>,
}

impl Loads {
    /// What is to be said now, if anything.
    pub(crate) fn look(&mut self, mut found: Vec<PoolLoad>, now: Duration) -> Option<&[PoolLoad]> {
        found.sort_unstable_by(|a, b| a.service.cmp(&b.service));
        found.truncate(POOLS_MAX);
        let due = |at| now.saturating_sub(at) >= LOAD_INTERVAL;
        if !self.at.is_none_or(due) && found == self.said {
            return None;
        }
        self.said = found;
        self.at = Some(now);
        Some(&self.said)
    }

    /// For a stream that has just been opened.
    pub(crate) fn said(&self) -> &[PoolLoad] {
        &self.said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(service: &str, in_flight: u32) -> PoolLoad {
        PoolLoad {
            service: service.into(),
            in_flight,
            queued: 0,
        }
    }

    #[test]
    fn changes_at_once_and_the_same_again_only_in_time() {
        let mut loads = Loads::default();
        let at = Duration::from_millis;
        assert!(
            loads
                .look(vec![load("b", 1), load("a", 2)], at(0))
                .is_some()
        );
        assert_eq!(loads.said()[0].service, "a");
        let same = vec![load("a", 2), load("b", 1)];
        assert!(loads.look(same, at(500)).is_none());
        assert!(loads.look(vec![load("a", 3)], at(1_000)).is_some());
        assert!(loads.look(vec![load("a", 3)], at(4_500)).is_none());
        assert!(loads.look(vec![load("a", 3)], at(5_000)).is_some());
    }
}
