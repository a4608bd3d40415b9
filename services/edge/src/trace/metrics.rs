//! Figures of trace and bypass.

use opes_rules::Step;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Sealed;
use crate::metrics::{ByService, show_zeros};

/// What was wrong with trace fields that bear our name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Finding {
    /// A service had taken ours out.
    Restored,
    /// A service had put one in.
    Forged,
    /// A message came with one from somebody who is none of ours.
    Inherited,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFinding {
    finding: Finding,
}

/// What became of the wish to have services left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Decision {
    /// By somebody who may ask; a service may still have run.
    Granted,
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDecision {
    decision: Decision,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct TraceMetrics {
    repairs: Family<ByFinding, Counter>,
    requests: Family<ByDecision, Counter>,
    bypassed: Family<ByService, Counter>,
}

impl TraceMetrics {
    pub(crate) fn declare(&self, registry: &mut Registry) {
        let findings = [Finding::Restored, Finding::Forged, Finding::Inherited];
        show_zeros(&self.repairs, findings.map(|finding| ByFinding { finding }));
        let decisions = [Decision::Granted, Decision::Refused];
        show_zeros(
            &self.requests,
            decisions.map(|decision| ByDecision { decision }),
        );
        registry.register(
            "opes_trace_repairs",
            "Trace fields with our name that were put back or taken out",
            self.repairs.clone(),
        );
        registry.register(
            "opes_bypass_requests",
            "Messages whose sender asked for services to be left out",
            self.requests.clone(),
        );
        registry.register(
            "opes_bypassed",
            "Callouts that were left out on request",
            self.bypassed.clone(),
        );
    }

    /// Counts what was found in one copy.
    pub(crate) fn count_repairs(&self, sealed: &Sealed) {
        let found = [
            (Finding::Restored, usize::from(sealed.restored)),
            (Finding::Forged, sealed.forged),
            (Finding::Inherited, sealed.inherited),
        ];
        for (finding, count) in found.into_iter().filter(|(_, count)| *count > 0) {
            let counter = self.repairs.get_or_create(&ByFinding { finding });
            counter.inc_by(count as u64);
        }
    }

    /// Counts the request of one message, if there was one.
    pub(crate) fn count_request(&self, sealed: &Sealed) {
        let asked = &sealed.asked;
        let decision = match (&asked.granted, asked.refused) {
            (Some(_), _) => Decision::Granted,
            (None, Some(_)) => Decision::Refused,
            (None, None) => return,
        };
        self.requests.get_or_create(&ByDecision { decision }).inc();
    }

    /// Counts callouts that a plan left out.
    pub(crate) fn count_bypassed(&self, steps: &[Step]) {
        for service in steps.iter().filter_map(|step| step.rule.callout.as_ref()) {
            let service = service.service.clone();
            self.bypassed.get_or_create(&ByService { service }).inc();
        }
    }
}
