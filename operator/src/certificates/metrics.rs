//! What certificates show: when the next one ends, and what could not be written.

use opes_telemetry::Registry;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Figures of certificates. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    writes: Family<Labels, Counter>,
    /// Secrets that are not as they should be.
    pub(super) failing: Gauge,
    /// When the first certificate ends, in seconds since 1970.
    pub(super) expiry: Gauge,
    /// When the authority ends, in seconds since 1970.
    pub(super) authority_expiry: Gauge,
    /// Authorities believed at this moment.
    pub(super) authorities: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: Written,
}

/// What became of an attempt to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Written {
    /// A certificate was made and written.
    Done,
    /// The API server did not take it.
    Failed,
    /// There is a Secret of that name that is not ours.
    Foreign,
}

// === impl Metrics ===

impl Metrics {
    /// Shown in `registry`.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "opes_operator_certificate_writes",
            "Certificates written into Secrets",
            metrics.writes.clone(),
        );
        registry.register(
            "opes_operator_certificates_failing",
            "Secrets whose certificate could not be written",
            metrics.failing.clone(),
        );
        registry.register(
            "opes_operator_certificate_expiry_seconds",
            "When the first of the certificates ends, since 1970",
            metrics.expiry.clone(),
        );
        registry.register(
            "opes_operator_authority_expiry_seconds",
            "When the authority ends, since 1970",
            metrics.authority_expiry.clone(),
        );
        registry.register(
            "opes_operator_authorities",
            "Authorities believed",
            metrics.authorities.clone(),
        );
        metrics
    }

    pub(super) fn wrote(&self, result: Written) {
        self.writes.get_or_create(&Labels { result }).inc();
    }
}

/// For a gauge.
pub(super) fn gauge(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
