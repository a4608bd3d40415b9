//! The point `answered`: observers are told what became of a message, or of a command that rules refused, and what it came from.
//!
//! Everything is decided when they are told, and nobody waits for them. At most once, as with the other points for observers.

use std::sync::Arc;
use std::time::Duration;

use opes_proto::smtp;
use opes_proto::smtp::fate::Kind;
use opes_proto::smtp::step::Result;
use opes_rules::{Plan, Point};
use opes_smtp::reply::Reply;

use crate::callout::{Deadline, Live};
use crate::dialog::{ContentFacts, Dialog};
use crate::edge::Edge;
use crate::engine::{Matter, Recipient};
use crate::fates::event_id;
use crate::outcome::Gravity;
use crate::report::{MessageOutcome, StepReport};
use crate::routing::Routing;
use crate::trace::Calls;

/// What is told.
pub(crate) struct Answered<'a> {
    /// The point whose answer it is.
    pub(crate) at: smtp::Point,
    /// Of a message.
    pub(crate) octets: Option<u64>,
    pub(crate) fates: Vec<smtp::Fate>,
    pub(crate) steps: &'a [StepReport],
    pub(crate) elapsed: Duration,
}

/// Starts the observers of the rules that match. `dialog` names the recipients that the answer is about, and no others.
pub(crate) fn tell(edge: &Edge, routing: Arc<Routing>, dialog: &Dialog, answered: Answered<'_>) {
    if !routing.table.has_rules(Point::Answered) {
        return;
    }
    let plan = plan(&routing, dialog, answered.octets);
    edge.metrics.count_skipped(&plan);
    let context = smtp::Context {
        size: answered.octets,
        answer: Some(answered.into_proto()),
        event_id: event_id(&edge.host.random),
        ..dialog.context()
    };
    let matter = Matter {
        point: smtp::Point::Answered,
        context: Arc::new(context),
    };
    let recipients = dialog.recipients.iter().map(|path| Recipient {
        address: path.address.clone(),
        parameters: path.parameters.clone(),
        ..Recipient::default()
    });
    let run = Live::run_of(routing, &edge.metrics, &Deadline::default());
    run.watch(&plan, &matter, recipients.collect(), &dialog.annotations);
}

/// Puts those who will be told of a message into `calls`: a trace names observers too, and is written before there is an answer.
pub(crate) fn foresee(routing: &Routing, dialog: &Dialog, octets: u64, calls: &mut Calls) {
    if !routing.table.has_rules(Point::Answered) {
        return;
    }
    for step in plan(routing, dialog, Some(octets)).observers {
        let members =
            (0..dialog.recipients.len()).filter(|member| step.recipients.contains(*member));
        let members: Vec<usize> = members.collect();
        if !members.is_empty() {
            calls.ran(&step.rule, &members);
        }
    }
}

fn plan(routing: &Routing, dialog: &Dialog, octets: Option<u64>) -> Plan {
    let known = ContentFacts {
        size: octets,
        headers: None,
    };
    dialog.with_facts(Point::Answered, known, |facts| routing.table.plan(facts))
}

/// What became of it for `recipients` of its recipients, who are told `reply`.
pub(crate) fn fate(outcome: &MessageOutcome, recipients: usize, reply: &Reply) -> smtp::Fate {
    let (kind, id) = match outcome {
        MessageOutcome::Queued(id) => (Kind::Queued, id.as_str()),
        MessageOutcome::Relayed => (Kind::Relayed, ""),
        MessageOutcome::Quarantined(id) => (Kind::Quarantined, id.as_str()),
        MessageOutcome::Discarded => (Kind::Discarded, ""),
        MessageOutcome::Refused => (Kind::Refused, ""),
    };
    smtp::Fate {
        kind: kind.into(),
        id: id.to_owned(),
        recipients: u32::try_from(recipients).unwrap_or(u32::MAX),
        code: u32::from(reply.code()),
        enhanced: reply
            .enhanced()
            .map(|code| code.to_string())
            .unwrap_or_default(),
    }
}

// === impl Answered ===

impl Answered<'_> {
    fn into_proto(self) -> smtp::Answer {
        smtp::Answer {
            at: self.at.into(),
            fates: self.fates,
            steps: self.steps.iter().map(step).collect(),
            elapsed_us: microseconds(self.elapsed),
        }
    }
}

fn step(step: &StepReport) -> smtp::Step {
    let result = match step.gravity {
        None => Result::Bypassed,
        Some(Gravity::Accept) => Result::Accept,
        Some(Gravity::Advise) => Result::Advise,
        Some(Gravity::Change) => Result::Change,
        Some(Gravity::Quarantine) => Result::Quarantine,
        Some(Gravity::Tempfail) => Result::Tempfail,
        Some(Gravity::Reject) => Result::Reject,
        Some(Gravity::Discard) => Result::Discard,
    };
    let failure = step.failure.map(|label| format!("{label:?}"));
    smtp::Step {
        rule: step.rule.clone(),
        service: step.service.clone(),
        result: result.into(),
        elapsed_us: microseconds(step.elapsed),
        failure: failure.unwrap_or_default().to_lowercase(),
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
