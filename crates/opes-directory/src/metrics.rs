//! What the look-ups of a process have come to; docs/operate/directories.md has a line for each.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::answer::LookupError;

/// How a look-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    /// The directory was asked and knows it.
    Found,
    /// The directory was asked and does not know it.
    Missing,
    /// From the cache, or with a look-up that was under way.
    Cached,
    Timeout,
    Unreachable,
    Refused,
    Excess,
    BreakerOpen,
    Busy,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    directory: String,
    result: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirectory {
    directory: String,
}

/// Cheap to clone; all directories of a process share one.
#[derive(Debug, Clone)]
pub struct Metrics {
    lookups: Family<ByOutcome, Counter>,
    seconds: Family<ByDirectory, Histogram, fn() -> Histogram>,
    connections: Family<ByDirectory, Gauge>,
    breaker_open: Family<ByDirectory, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            lookups: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            connections: Family::default(),
            breaker_open: Family::default(),
        }
    }
}

fn histogram() -> Histogram {
    // 0.5 ms to 16 s.
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

// === impl Metrics ===

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "opes_directory_lookups",
            "Look-ups by how they ended",
            metrics.lookups.clone(),
        );
        registry.register(
            "opes_directory_seconds",
            "Duration of the look-ups that a directory was asked for",
            metrics.seconds.clone(),
        );
        registry.register(
            "opes_directory_connections",
            "Connections to an LDAP directory",
            metrics.connections.clone(),
        );
        registry.register(
            "opes_directory_breaker_open",
            "1 while a directory that only failed is left alone",
            metrics.breaker_open.clone(),
        );
        metrics
    }

    pub(crate) fn count(&self, directory: &str, result: Outcome) {
        let directory = directory.to_owned();
        self.lookups
            .get_or_create(&ByOutcome { directory, result })
            .inc();
    }

    pub(crate) fn took(&self, directory: &str, time: Duration) {
        let directory = directory.to_owned();
        self.seconds
            .get_or_create(&ByDirectory { directory })
            .observe(time.as_secs_f64());
    }

    pub(crate) fn breaker(&self, directory: &str, open: bool) {
        let directory = directory.to_owned();
        self.breaker_open
            .get_or_create(&ByDirectory { directory })
            .set(i64::from(open));
    }

    pub(crate) fn connections(&self, directory: &str) -> Gauge {
        let directory = directory.to_owned();
        self.connections
            .get_or_create_owned(&ByDirectory { directory })
    }
}

// === impl Outcome ===

impl From<&LookupError> for Outcome {
    fn from(error: &LookupError) -> Self {
        match error {
            LookupError::Timeout { .. } => Self::Timeout,
            LookupError::Unreachable { .. } => Self::Unreachable,
            LookupError::Refused { .. } => Self::Refused,
            LookupError::Excess { .. } => Self::Excess,
            LookupError::Open { .. } => Self::BreakerOpen,
            LookupError::Busy { .. } => Self::Busy,
        }
    }
}
