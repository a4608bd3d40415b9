//! The service's metrics; docs/reference/metrics.md has a line for each.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a part was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Failure {
    Store,
    Busy,
}

/// What a request to the web server came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Request {
    Page,
    File,
    Range,
    Unknown,
    Expired,
    Unavailable,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByFailure {
    reason: Failure,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByRequest {
    answer: Request,
}

/// What one process has done. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    parts: Counter,
    octets: Counter,
    failures: Family<ByFailure, Counter>,
    requests: Family<ByRequest, Counter>,
    sent: Counter,
    pub(crate) connections: Gauge,
    pub(crate) swept: Counter,
    pub(crate) sweep_failures: Counter,
}

impl Metrics {
    pub(crate) fn stored(&self, octets: u64) {
        self.parts.inc();
        self.octets.inc_by(octets);
    }

    pub(crate) fn failed(&self, reason: Failure) {
        self.failures.get_or_create(&ByFailure { reason }).inc();
    }

    pub(crate) fn answered(&self, answer: Request) {
        self.requests.get_or_create(&ByRequest { answer }).inc();
    }

    pub(crate) fn sent(&self, octets: u64) {
        self.sent.inc_by(octets);
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter("opes_links_parts", "Parts moved to the store", &self.parts);
        counter(
            "opes_links_stored_bytes",
            "Their octets, decoded",
            &self.octets,
        );
        counter(
            "opes_links_sent_bytes",
            "Octets of files sent to readers",
            &self.sent,
        );
        counter(
            "opes_links_swept",
            "Names removed from the store because their time was over",
            &self.swept,
        );
        counter(
            "opes_links_sweep_failures",
            "Rounds of sweeping that failed",
            &self.sweep_failures,
        );
        registry.register(
            "opes_links_failures",
            "Parts that could not be stored",
            self.failures.clone(),
        );
        registry.register(
            "opes_links_requests",
            "Requests to the web server",
            self.requests.clone(),
        );
        registry.register(
            "opes_links_connections",
            "Connections to the web server",
            self.connections.clone(),
        );
    }
}
