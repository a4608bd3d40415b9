//! The edge's metrics; docs/reference/metrics.md has a line for each.

use opes_callout_client::ServiceClient;
use opes_relay::ReportResult;
use opes_rules::Plan;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::quarantine::metrics::QuarantineMetrics;
use crate::report::MessageOutcome;
use crate::trace::TraceMetrics;
use tokio_util::task::TaskTracker;

mod pool;
mod zeros;

pub use pool::PoolLoad;
pub(crate) use pool::Pools;
pub(crate) use zeros::show as show_zeros;

/// How a message, or a command that a rule refused, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum OutcomeLabel {
    Queued,
    Relayed,
    Quarantined,
    Discarded,
    Refused,
}

impl From<&MessageOutcome> for OutcomeLabel {
    fn from(outcome: &MessageOutcome) -> Self {
        match outcome {
            MessageOutcome::Queued(_) => Self::Queued,
            MessageOutcome::Relayed => Self::Relayed,
            MessageOutcome::Quarantined(_) => Self::Quarantined,
            MessageOutcome::Discarded => Self::Discarded,
            MessageOutcome::Refused => Self::Refused,
        }
    }
}

/// How a callout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum CalloutLabel {
    Answered,
    Timeout,
    Unavailable,
    Untrusted,
    Failed,
    Protocol,
    Content,
}

/// Who was told of a recipient that failed after our 250.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum BounceLabel {
    Stored,
    NotWanted,
    NullSender,
    OtherSender,
    DoubleBounce,
    Postponed,
}

impl From<ReportResult> for BounceLabel {
    fn from(result: ReportResult) -> Self {
        match result {
            ReportResult::Stored => Self::Stored,
            ReportResult::NotWanted => Self::NotWanted,
            ReportResult::NullSender => Self::NullSender,
            ReportResult::OtherSender => Self::OtherSender,
            ReportResult::DoubleBounce => Self::DoubleBounce,
            ReportResult::Postponed => Self::Postponed,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByBounce {
    pub(crate) result: BounceLabel,
}

/// What became of a notification that a service asked for, for one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum NotificationLabel {
    Stored,
    /// In answer to a message that must not be answered.
    Automatic,
    /// A role or daemon is addressed.
    Daemon,
    Outsider,
    Refused,
    NoAddress,
    RecipientLimit,
    RuleLimit,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByNotification {
    pub(crate) result: NotificationLabel,
}

/// What became of a service's report of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum IncidentLabel {
    Logged,
    /// Not a JSON object, or too large.
    Invalid,
    /// In the log, but the file could not take it.
    Dropped,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByIncident {
    pub(crate) result: IncidentLabel,
}

/// What became of an incident that `incidents.webhook` was to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum WebhookLabel {
    Delivered,
    /// 4xx: not tried again.
    Refused,
    /// Tried again, and given up.
    Failed,
    /// Too many were waiting.
    Dropped,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByWebhook {
    pub(crate) result: WebhookLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByOutcome {
    pub(crate) outcome: OutcomeLabel,
}

/// How a message with different verdicts was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum RulingLabel {
    PerRecipient,
    Split,
    RejectAll,
    QuarantineRejected,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByRuling {
    pub(crate) answer: RulingLabel,
}

/// Services and rules come from the configuration, so their number is bounded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByCallout {
    pub(crate) service: String,
    pub(crate) result: CalloutLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByRule {
    pub(crate) rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByService {
    pub(crate) service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByShadow {
    pub(crate) rule: String,
    /// One of a few words.
    pub(crate) would: &'static str,
}

/// Why a message would have had to be kept in a spool that is not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum NeedLabel {
    /// Recipients get different copies of it.
    Copies,
    /// Recipients have different next hops, or several have one that speaks LMTP.
    NextHops,
    /// It is to be held, and there is no quarantine that others share, or it is away.
    Quarantine,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByNeed {
    pub(crate) reason: NeedLabel,
}

/// All metrics of one edge.
#[derive(Debug)]
pub struct Metrics {
    pub(crate) sessions: Gauge,
    pub(crate) sessions_refused: Counter,
    pub(crate) messages: Family<ByOutcome, Counter>,
    pub(crate) content_octets: Counter,
    pub(crate) callouts: Family<ByCallout, Counter>,
    pub(crate) callout_seconds: Family<ByService, Histogram>,
    pub(crate) callout_inflight: Family<ByService, Gauge>,
    pub(crate) permissions_refused: Family<ByRule, Counter>,
    pub(crate) rules_skipped: Family<ByRule, Counter>,
    pub(crate) observers_dropped: Counter,
    pub(crate) quarantine: QuarantineMetrics,
    pub(crate) shadows: Family<ByShadow, Counter>,
    pub(crate) unaccepted: Counter,
    pub(crate) mixed: Family<ByRuling, Counter>,
    pub(crate) pools: Pools,
    pub(crate) bounces: Family<ByBounce, Counter>,
    pub(crate) notifications: Family<ByNotification, Counter>,
    pub(crate) incidents: Family<ByIncident, Counter>,
    pub(crate) webhook: Family<ByWebhook, Counter>,
    pub(crate) trace: TraceMetrics,
    pub(crate) spool_needed: Family<ByNeed, Counter>,
    /// Observers under way. Not a figure: it goes wherever callouts go, and a drain waits for it.
    pub(crate) observers: TaskTracker,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            sessions: Gauge::default(),
            sessions_refused: Counter::default(),
            messages: Family::default(),
            content_octets: Counter::default(),
            callouts: Family::default(),
            callout_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_5, 2.0, 16))
            }),
            callout_inflight: Family::default(),
            permissions_refused: Family::default(),
            rules_skipped: Family::default(),
            observers_dropped: Counter::default(),
            quarantine: QuarantineMetrics::register(registry),
            shadows: Family::default(),
            unaccepted: Counter::default(),
            mixed: Family::default(),
            pools: Pools::default(),
            bounces: Family::default(),
            notifications: Family::default(),
            incidents: Family::default(),
            webhook: Family::default(),
            trace: TraceMetrics::default(),
            spool_needed: Family::default(),
            observers: TaskTracker::new(),
        };
        metrics.declare(registry);
        zeros::fixed(&metrics);
        metrics
    }

    /// From now on these services are shown.
    pub(crate) fn show(&self, services: Vec<(String, ServiceClient)>) {
        for (service, _) in &services {
            zeros::service(self, service);
        }
        self.pools.show(services);
    }

    /// How busy the services of the routing in force are, for whoever scales them.
    pub fn pool_loads(&self) -> Vec<PoolLoad> {
        self.pools.loads()
    }

    /// Counts the rules that `plan` left out for want of data, each once.
    pub(crate) fn count_skipped(&self, plan: &Plan) {
        for skipped in &plan.skipped {
            let rule = skipped.rule.name.clone();
            self.rules_skipped.get_or_create(&ByRule { rule }).inc();
        }
    }

    fn declare(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.pools.clone()));
        self.trace.declare(registry);
        registry.register(
            "opes_sessions",
            "SMTP sessions open now",
            self.sessions.clone(),
        );
        registry.register(
            "opes_sessions_refused",
            "Connections answered 421 because sessionsMax was reached",
            self.sessions_refused.clone(),
        );
        registry.register(
            "opes_messages",
            "Messages by what became of them",
            self.messages.clone(),
        );
        registry.register(
            "opes_content_bytes",
            "Octets of mail data received",
            self.content_octets.clone(),
        );
        registry.register(
            "opes_callouts",
            "Callout transactions by service and result",
            self.callouts.clone(),
        );
        registry.register(
            "opes_callout_seconds",
            "Duration of callout transactions",
            self.callout_seconds.clone(),
        );
        registry.register(
            "opes_callout_inflight",
            "Callout transactions open now",
            self.callout_inflight.clone(),
        );
        registry.register(
            "opes_permissions_refused",
            "Outcomes that a rule's allow list does not let its service have",
            self.permissions_refused.clone(),
        );
        registry.register(
            "opes_rules_skipped",
            "Rules that could not be evaluated for want of data",
            self.rules_skipped.clone(),
        );
        registry.register(
            "opes_observers_dropped",
            "Observer callouts not started because too many were running",
            self.observers_dropped.clone(),
        );
        registry.register(
            "opes_shadow_outcomes",
            "What rules in shadow mode would have done",
            self.shadows.clone(),
        );
        registry.register(
            "opes_messages_unaccepted",
            "Messages answered 451 because decisionTimeout had passed, stored or not",
            self.unaccepted.clone(),
        );
        registry.register(
            "opes_mixed_verdicts",
            "Messages that some recipients would have got and others not, by how that was answered",
            self.mixed.clone(),
        );
        registry.register(
            "opes_spool_needed",
            "Messages answered 451 because they would have had to be kept and spoolDurable is false",
            self.spool_needed.clone(),
        );
        self.declare_people(registry);
    }

    /// Whom we write to.
    fn declare_people(&self, registry: &mut Registry) {
        registry.register(
            "opes_bounces",
            "Recipients that failed for good after our 250, by who was told",
            self.bounces.clone(),
        );
        registry.register(
            "opes_notifications",
            "Notifications that services asked for, by what became of them",
            self.notifications.clone(),
        );
        registry.register(
            "opes_incidents",
            "Incidents that services reported, by what became of the report",
            self.incidents.clone(),
        );
        registry.register(
            "opes_incidents_webhook",
            "Incidents that the webhook was to be told of, by what became of that",
            self.webhook.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use opes_rules::{Facts, Point, Recipient};
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn a_rule_without_its_data_is_counted_by_name() {
        let rule = "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: marks }\nspec:\n  at: [content]\n  \
                    match: { cel: 'annotation(\"spam.score\") > 5' }\n  action: { markSubject: { text: x } }\n";
        let (objects, wrong) = opes_rules::parse("test", rule);
        assert!(wrong.is_empty(), "{wrong:?}");
        let table = opes_rules::compile(objects).unwrap();
        let recipients = [Recipient::default()];
        let facts = Facts {
            recipients: &recipients,
            ..Facts::at(Point::Content)
        };
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.count_skipped(&table.plan(&facts));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let line = "opes_rules_skipped_total{rule=\"default/marks\"} 1\n";
        assert!(text.contains(line), "no {line} in\n{text}");
    }
}
