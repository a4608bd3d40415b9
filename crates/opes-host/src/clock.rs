//! Wall-clock time: for dates in mail, for names that sort by time, for the age of what was stored.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the time of day.
#[derive(Clone, Default)]
pub enum Clock {
    /// The system's.
    #[default]
    System,
    /// Another.
    Other(Arc<dyn Fn() -> SystemTime + Send + Sync>),
}

impl Clock {
    /// Now.
    pub fn now(&self) -> SystemTime {
        match self {
            Self::System => SystemTime::now(),
            Self::Other(now) => now(),
        }
    }

    /// Since 1970; zero when the clock is before that.
    pub fn since_epoch(&self) -> Duration {
        self.now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// Milliseconds since 1970; 0 when the clock is before that.
    pub fn epoch_ms(&self) -> u64 {
        u64::try_from(self.since_epoch().as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Other(_) => "Other",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_clock_is_asked_each_time_and_may_be_before_1970() {
        let clock = Clock::Other(Arc::new(|| UNIX_EPOCH + Duration::from_millis(1500)));
        assert_eq!(clock.epoch_ms(), 1500);
        let clock = Clock::Other(Arc::new(|| UNIX_EPOCH - Duration::from_secs(1)));
        assert_eq!(clock.epoch_ms(), 0);
        assert!(Clock::default().epoch_ms() > 1_700_000_000_000);
    }
}
