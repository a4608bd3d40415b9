//! What the metrics API shows of itself.

use hyper::StatusCode;
use opes_telemetry::Registry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Figures of the metrics API. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    requests: Family<Labels, Counter>,
    pub(super) refused: Counter,
    pub(super) registered: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    code: u16,
}

// === impl Metrics ===

impl Metrics {
    /// Shown in `registry`.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "opes_operator_metrics_api_requests",
            "Requests of API servers for the load of pools",
            metrics.requests.clone(),
        );
        registry.register(
            "opes_operator_metrics_api_refused",
            "Callers of the metrics API that are not the API server",
            metrics.refused.clone(),
        );
        registry.register(
            "opes_operator_metrics_api_registered",
            "1: external.metrics.k8s.io is ours; 0: it is not, or not yet",
            metrics.registered.clone(),
        );
        metrics
    }

    pub(super) fn answered(&self, status: StatusCode) {
        let code = status.as_u16();
        self.requests.get_or_create(&Labels { code }).inc();
    }
}
