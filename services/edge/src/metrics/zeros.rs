//! Counters that are there from the start, with 0.
//!
//! A counter that appears with its first value has no increase for Prometheus: `rate` and `increase` see 1 and nothing before it, and
//! an alert misses the first failure. So every value of a label that is an enum is shown at once, and those by service as soon as
//! the service is known. Those by rule appear with their first value: hardly any rule ever has one.

use std::hash::Hash;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::{
    BounceLabel, ByBounce, ByCallout, ByIncident, ByNeed, ByNotification, ByOutcome, ByRuling,
    ByService, ByWebhook, CalloutLabel, IncidentLabel, Metrics, NeedLabel, NotificationLabel,
    OutcomeLabel, RulingLabel, WebhookLabel,
};

/// Shows `family` with each of `labels`.
pub(crate) fn show<L: Clone + Hash + Eq>(
    family: &Family<L, Counter>,
    labels: impl IntoIterator<Item = L>,
) {
    for labels in labels {
        let _zero = family.get_or_create(&labels);
    }
}

/// All that does not depend on what is configured.
pub(super) fn fixed(metrics: &Metrics) {
    let outcomes = [
        OutcomeLabel::Queued,
        OutcomeLabel::Relayed,
        OutcomeLabel::Quarantined,
        OutcomeLabel::Discarded,
        OutcomeLabel::Refused,
    ];
    show(
        &metrics.messages,
        outcomes.map(|outcome| ByOutcome { outcome }),
    );
    let rulings = [
        RulingLabel::PerRecipient,
        RulingLabel::Split,
        RulingLabel::RejectAll,
        RulingLabel::QuarantineRejected,
    ];
    show(&metrics.mixed, rulings.map(|answer| ByRuling { answer }));
    let needs = [
        NeedLabel::Copies,
        NeedLabel::NextHops,
        NeedLabel::Quarantine,
    ];
    show(&metrics.spool_needed, needs.map(|reason| ByNeed { reason }));
    people(metrics);
    incidents(metrics);
}

fn people(metrics: &Metrics) {
    let bounces = [
        BounceLabel::Stored,
        BounceLabel::NotWanted,
        BounceLabel::NullSender,
        BounceLabel::OtherSender,
        BounceLabel::DoubleBounce,
        BounceLabel::Postponed,
    ];
    show(&metrics.bounces, bounces.map(|result| ByBounce { result }));
    let notifications = [
        NotificationLabel::Stored,
        NotificationLabel::Automatic,
        NotificationLabel::Daemon,
        NotificationLabel::Outsider,
        NotificationLabel::Refused,
        NotificationLabel::NoAddress,
        NotificationLabel::RecipientLimit,
        NotificationLabel::RuleLimit,
        NotificationLabel::Failed,
    ];
    show(
        &metrics.notifications,
        notifications.map(|result| ByNotification { result }),
    );
}

fn incidents(metrics: &Metrics) {
    let incidents = [
        IncidentLabel::Logged,
        IncidentLabel::Invalid,
        IncidentLabel::Dropped,
    ];
    show(
        &metrics.incidents,
        incidents.map(|result| ByIncident { result }),
    );
    let told = [
        WebhookLabel::Delivered,
        WebhookLabel::Refused,
        WebhookLabel::Failed,
        WebhookLabel::Dropped,
    ];
    show(&metrics.webhook, told.map(|result| ByWebhook { result }));
}

/// What is counted for a service that rules may call.
pub(super) fn service(metrics: &Metrics, service: &str) {
    let results = [
        CalloutLabel::Answered,
        CalloutLabel::Timeout,
        CalloutLabel::Unavailable,
        CalloutLabel::Untrusted,
        CalloutLabel::Failed,
        CalloutLabel::Protocol,
        CalloutLabel::Content,
    ];
    let service = service.to_owned();
    show(
        &metrics.callouts,
        results.map(|result| ByCallout {
            service: service.clone(),
            result,
        }),
    );
    let by_service = ByService { service };
    let _none = metrics.callout_seconds.get_or_create(&by_service);
    let _none = metrics.callout_inflight.get_or_create(&by_service);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    const METRICS: &str = include_str!("../../../../docs/reference/metrics.md");

    fn shown() -> String {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        service(&metrics, "default/scan");
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    /// The values that the page has for a metric: words in backticks with a capital, in the last column.
    fn documented(metric: &str) -> BTreeSet<String> {
        let row = METRICS
            .lines()
            .find(|line| line.starts_with(&format!("| `{metric}` |")))
            .unwrap();
        let words = row.split('`').skip(1).step_by(2);
        words
            .filter(|word| {
                word.starts_with(|c: char| c.is_ascii_uppercase())
                    && word.chars().all(|c| c.is_ascii_alphabetic())
            })
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_documented_value_is_there_before_anything_happens() {
        let text = shown();
        for (metric, label) in [
            ("opes_messages_total", "outcome"),
            ("opes_callouts_total", "result"),
            ("opes_bounces_total", "result"),
            ("opes_notifications_total", "result"),
            ("opes_incidents_total", "result"),
            ("opes_incidents_webhook_total", "result"),
            ("opes_mixed_verdicts_total", "answer"),
            ("opes_spool_needed_total", "reason"),
            ("opes_trace_repairs_total", "finding"),
            ("opes_bypass_requests_total", "decision"),
        ] {
            let lines: Vec<&str> = text
                .lines()
                .filter(|line| line.starts_with(&format!("{metric}{{")))
                .collect();
            let values = lines.iter().map(|line| {
                let (_, value) = line.split_once(&format!("{label}=\"")).unwrap();
                assert!(line.ends_with(" 0"), "{line}");
                value.split('"').next().unwrap().to_owned()
            });
            assert_eq!(
                values.collect::<BTreeSet<_>>(),
                documented(metric),
                "{metric}"
            );
        }
    }

    #[test]
    fn a_service_has_its_figures_before_the_first_callout() {
        let text = shown();
        for line in [
            "opes_callout_inflight{service=\"default/scan\"} 0\n",
            "opes_callout_seconds_count{service=\"default/scan\"} 0\n",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }
}
