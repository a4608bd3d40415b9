//! What happened to one message, for people: the line per message of `opes dev`, the structured log of an edge.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::metrics::CalloutLabel;
use crate::outcome::Gravity;

/// Receives a report for each message that was decided on, and for each command that a rule refused.
pub type Reporter = Arc<dyn Fn(&MessageReport) + Send + Sync>;

/// One message, or one refused command.
#[derive(Debug, Clone)]
pub struct MessageReport {
    /// The SMTP session; also on every log line and in refusals.
    pub session: String,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// The client, by PROXY protocol where the listener has it.
    pub client: IpAddr,
    /// Reverse-path without brackets.
    pub from: String,
    /// Forward-paths as accepted; for a refused RCPT the one in question is last.
    pub to: Vec<String>,
    /// Octets of mail data; 0 if the dialog did not come that far.
    pub octets: u64,
    /// In the order in which they count.
    pub steps: Vec<StepReport>,
    /// Where it went, for each group of recipients with a fate of its own; at least one.
    pub outcomes: Vec<MessageOutcome>,
    /// Reply to the client; the first of several.
    pub reply: String,
    /// From MAIL (or the refused command) to our reply.
    pub elapsed: Duration,
}

impl MessageReport {
    /// Names in the spool, one for each group of recipients that shares a copy.
    pub fn queue_ids(&self) -> impl Iterator<Item = &str> {
        self.outcomes.iter().filter_map(|outcome| match outcome {
            MessageOutcome::Queued(id) => Some(id.as_str()),
            _ => None,
        })
    }

    /// Nobody gets it.
    pub fn is_refused(&self) -> bool {
        let mut outcomes = self.outcomes.iter();
        outcomes.all(|outcome| *outcome == MessageOutcome::Refused)
    }
}

/// Where the message went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageOutcome {
    /// Durable in the spool under this id.
    Queued(String),
    /// The next hop has it (cut-through).
    Relayed,
    /// Held in the quarantine under this id.
    Quarantined(String),
    /// Answered 250 and dropped, as a rule allowed.
    Discarded,
    /// Answered 4xx or 5xx in the dialog.
    Refused,
}

/// One rule that ran.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// `namespace/name`.
    pub rule: String,
    /// Empty for an action of the edge itself.
    pub service: String,
    /// `accept`, `reject`, `2 edits`, `timeout → tempfail` …
    pub verdict: String,
    /// The service's own line for people.
    pub reason: String,
    /// From the request to the answer.
    pub elapsed: Duration,
    /// Octets of OCP messages in both directions.
    pub octets: u64,
    /// The gravest of what it came to. None: left out because the sender asked for it.
    pub(crate) gravity: Option<Gravity>,
    /// Why there was no answer that could be used, if so.
    pub(crate) failure: Option<CalloutLabel>,
}

/// Writes the report to the log: addresses are hashed, contents never appear.
pub fn log(report: &MessageReport) {
    tracing::info!(
        session_id = report.session,
        listener = %report.listener,
        from = hashed(&report.from),
        recipients = report.to.len(),
        octets = report.octets,
        outcome = ?report.outcomes,
        reply = report.reply,
        rules = %Rules(&report.steps),
        elapsed_ms = report.elapsed.as_millis(),
        "message"
    );
    tracing::debug!(session_id = report.session, from = report.from, to = ?report.to, "addresses");
}

/// A short stable hash of an address: equal addresses can be found, the address cannot be read.
pub fn hashed(address: &str) -> String {
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
    let hash =
        BuildHasherDefault::<DefaultHasher>::default().hash_one(address.to_ascii_lowercase());
    format!("{hash:016x}")
}

struct Rules<'a>(&'a [StepReport]);

impl std::fmt::Display for Rules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(
                f,
                "{separator}{}={} ({} ms)",
                step.rule,
                step.verdict,
                step.elapsed.as_millis()
            )?;
        }
        Ok(())
    }
}
