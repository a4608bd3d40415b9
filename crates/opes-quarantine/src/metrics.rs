//! The store's metrics; docs/reference/metrics.md has a line for each.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Operation {
    Hold,
    List,
    Show,
    Read,
    Release,
    Delete,
    Sweep,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByOperation {
    pub(crate) operation: Operation,
}

/// What one process has done with its store. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(crate) held: Counter,
    pub(crate) released: Counter,
    pub(crate) deleted: Counter,
    pub(crate) expired: Counter,
    pub(crate) orphans: Counter,
    pub(crate) entries: Gauge,
    pub(crate) octets: Gauge,
    pub(crate) failures: Family<ByOperation, Counter>,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter(
            "opes_quarantine_held",
            "Messages put into the quarantine",
            &metrics.held,
        );
        counter(
            "opes_quarantine_released",
            "Recipients that a held message was released to",
            &metrics.released,
        );
        counter(
            "opes_quarantine_deleted",
            "Held messages deleted by operators",
            &metrics.deleted,
        );
        counter(
            "opes_quarantine_expired",
            "Held messages removed because their time was over",
            &metrics.expired,
        );
        counter(
            "opes_quarantine_orphans",
            "Contents without an entry that were removed",
            &metrics.orphans,
        );
        registry.register(
            "opes_quarantine_entries",
            "Messages in the quarantine",
            metrics.entries.clone(),
        );
        registry.register(
            "opes_quarantine_bytes",
            "Octets of the messages in the quarantine",
            metrics.octets.clone(),
        );
        registry.register(
            "opes_quarantine_failures",
            "Operations of the quarantine store that failed",
            metrics.failures.clone(),
        );
        metrics
    }

    pub(crate) fn fail(&self, operation: Operation) {
        self.failures
            .get_or_create(&ByOperation { operation })
            .inc();
    }
}
