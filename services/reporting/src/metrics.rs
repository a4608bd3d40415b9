//! What the service counts; docs/services/reporting.md has a line for each.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why an event is not in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Reason {
    /// The queue was full: the database is away, or too slow.
    Full,
    /// The database does not take this event.
    Rejected,
    /// It still waited when the service had to end.
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: Reason,
}

/// What one process has done with its events. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(crate) events: Counter,
    pub(crate) written: Counter,
    pub(crate) failures: Counter,
    pub(crate) expired: Counter,
    pub(crate) queued: Gauge,
    dropped: Family<ByReason, Counter>,
}

// === impl Reason ===

impl Reason {
    pub(crate) const ALL: [Self; 3] = [Self::Full, Self::Rejected, Self::Stopped];

    /// As it is in the database.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Rejected => "rejected",
            Self::Stopped => "stopped",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        // A figure that is there from the start can be watched.
        for reason in Reason::ALL {
            let _zero = metrics.dropped.get_or_create(&ByReason { reason });
        }
        for (name, help, counter) in [
            (
                "opes_reporting_events",
                "Events that edges told",
                &metrics.events,
            ),
            (
                "opes_reporting_written",
                "Events handed to the database and committed",
                &metrics.written,
            ),
            (
                "opes_reporting_write_failures",
                "Attempts to write that failed",
                &metrics.failures,
            ),
            (
                "opes_reporting_expired_rows",
                "Rows removed because their time was over",
                &metrics.expired,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "opes_reporting_queued",
            "Events that wait for the database",
            metrics.queued.clone(),
        );
        registry.register(
            "opes_reporting_dropped",
            "Events that are not in the database",
            metrics.dropped.clone(),
        );
        metrics
    }

    pub(crate) fn drop_events(&self, reason: Reason, events: u64) {
        self.dropped
            .get_or_create(&ByReason { reason })
            .inc_by(events);
    }

    /// Events of this process that are not in the database.
    pub(crate) fn dropped(&self, reason: Reason) -> u64 {
        self.dropped.get_or_create(&ByReason { reason }).get()
    }
}
