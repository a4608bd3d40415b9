//! What certificates show: when the next one ends, and what could not be written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    expiry: Gauge,
    ends: Arc<Ends>,
    /// When the authority ends, in seconds since 1970.
    pub(super) authority_expiry: Gauge,
    /// Authorities believed at this moment.
    pub(super) authorities: Gauge,
}

/// When certificates end, in seconds since 1970; 0: there are none.
#[derive(Debug, Default)]
struct Ends {
    own: AtomicU64,
    others: AtomicU64,
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

    /// When our own certificate ends.
    pub(super) fn own_ends(&self, at: u64) {
        self.ends.own.store(at, Ordering::Relaxed);
        self.show_first_end();
    }

    /// When the first of those ends that this replica writes; 0: it writes none.
    pub(super) fn others_end(&self, at: u64) {
        self.ends.others.store(at, Ordering::Relaxed);
        self.show_first_end();
    }

    fn show_first_end(&self) {
        let ends = [&self.ends.own, &self.ends.others].map(|end| end.load(Ordering::Relaxed));
        let first = ends.into_iter().filter(|end| *end > 0).min();
        self.expiry.set(gauge(first.unwrap_or(0)));
    }

    pub(super) fn wrote(&self, result: Written) {
        self.writes.get_or_create(&Labels { result }).inc();
    }
}

/// For a gauge.
pub(super) fn gauge(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
