//! What the routing port shows of itself.

use opes_telemetry::Registry;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Figures of the routing port. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) streams: Gauge,
    sent: Family<SentLabels, Counter>,
    pub(super) acks: Counter,
    pub(super) nacks: Counter,
    pub(super) held_back: Counter,
    refused: Family<RefusedLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SentLabels {
    kind: Sent,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Sent {
    Peers,
    Table,
    Endpoints,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: Refused,
}

/// Why somebody was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Refused {
    /// No certificate of the authority.
    Handshake,
    /// Not an edge's certificate.
    NoEdge,
    /// No Hello, or one that makes no sense.
    Hello,
    /// Too many edges.
    Full,
}

// === impl Metrics ===

impl Metrics {
    /// Shown in `registry`.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "opes_operator_edge_streams",
            "Edges that follow this replica's table or report to it",
            metrics.streams.clone(),
        );
        registry.register(
            "opes_operator_messages_sent",
            "Messages to edges",
            metrics.sent.clone(),
        );
        registry.register(
            "opes_operator_acks",
            "Tables that edges put in force",
            metrics.acks.clone(),
        );
        registry.register(
            "opes_operator_nacks",
            "Tables that edges refused",
            metrics.nacks.clone(),
        );
        registry.register(
            "opes_operator_tables_held_back",
            "Tables that were too large to be sent",
            metrics.held_back.clone(),
        );
        registry.register(
            "opes_operator_callers_refused",
            "Callers of the routing port that were not let in",
            metrics.refused.clone(),
        );
        metrics
    }

    pub(super) fn sent(&self, kind: Sent) {
        self.sent.get_or_create(&SentLabels { kind }).inc();
    }

    pub(super) fn refused(&self, reason: Refused) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }
}
