//! The readable line per message of `opes dev`.

use opes_edge::report::{MessageOutcome, MessageReport, StepReport};
use opes_relay::DeliveryEvent;

/// `→ where  from → to  [rule: verdict, ms; …]  reply`.
pub(crate) fn message(report: &MessageReport) -> String {
    let to = if report.to.is_empty() {
        "-".into()
    } else {
        report.to.join(", ")
    };
    let rules = steps(&report.steps);
    format!(
        "{:11} <{}> → {}  {} octets, {} ms\n{}            {}",
        outcomes(&report.outcomes),
        shortened(&report.from),
        shortened(&to),
        report.octets,
        report.elapsed.as_millis(),
        rules,
        report.reply
    )
}

/// Where one recipient's copy went.
pub(crate) fn delivery(event: &DeliveryEvent) -> String {
    format!(
        "            {} → {}, {} ms",
        shortened(&event.recipient),
        event.outcome,
        event.elapsed.as_millis()
    )
}

fn outcomes(outcomes: &[MessageOutcome]) -> String {
    let words: Vec<&str> = outcomes.iter().map(outcome).collect();
    words.join(" + ")
}

fn outcome(outcome: &MessageOutcome) -> &'static str {
    match outcome {
        MessageOutcome::Queued(_) => "accepted",
        MessageOutcome::Relayed => "relayed",
        MessageOutcome::Quarantined(_) => "quarantined",
        MessageOutcome::Discarded => "discarded",
        MessageOutcome::Refused => "refused",
    }
}

fn steps(steps: &[StepReport]) -> String {
    let line = |step: &StepReport| {
        let reason = if step.reason.is_empty() {
            String::new()
        } else {
            format!(" – {}", step.reason)
        };
        format!(
            "            {}: {}, {:.1} ms{reason}\n",
            step.rule,
            step.verdict,
            step.elapsed.as_secs_f64() * 1e3
        )
    };
    steps.iter().map(line).collect()
}

/// Over-long addresses are a demonstration of their own; they need not fill the screen.
pub(crate) fn shortened(text: &str) -> String {
    const OCTETS_MAX: usize = 60;
    match text.char_indices().nth(OCTETS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
