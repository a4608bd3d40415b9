//! Metrics of the way to the quarantine store and back.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct QuarantineMetrics {
    pub(crate) waiting: Gauge,
    pub(crate) handover_failures: Counter,
    pub(crate) releases_waiting: Gauge,
}

impl QuarantineMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "opes_quarantine_waiting",
            "Held messages that are not yet in the quarantine store",
            metrics.waiting.clone(),
        );
        registry.register(
            "opes_quarantine_handover_failures",
            "Attempts to give a held message to the quarantine store that failed",
            metrics.handover_failures.clone(),
        );
        registry.register(
            "opes_quarantine_releases_waiting",
            "Released messages that wait for the quarantine store's confirmation before they are delivered",
            metrics.releases_waiting.clone(),
        );
        metrics
    }
}
