//! What the spam filter counts.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What DNS was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Check {
    Spf,
    Dkim,
    Dmarc,
    Dnsbl,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCheck {
    check: Check,
}

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    failures: Family<ByCheck, Counter>,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn declare(&self, registry: &mut Registry) {
        registry.register(
            "opes_spam_dns_failures",
            "Checks of a message that DNS did not answer",
            self.failures.clone(),
        );
    }

    pub(crate) fn failed(&self, check: Check) {
        self.failures.get_or_create(&ByCheck { check }).inc();
    }
}
