//! What is kept of one event: a pure function of its context, bounded whatever the context holds.

use std::collections::BTreeMap;

use opes_proto::smtp::fate::Kind;
use opes_proto::smtp::step::Result as StepResult;
use opes_proto::smtp::{self, Context, Point};

use crate::address::{Addresses, Kept};
use crate::text::{clean, signed};

/// Octets of a name, an id or a code that are kept.
const NAME_OCTETS_MAX: usize = 255;

/// Recipients of one event that are kept apart; those beyond are one row without address and domain.
const RECIPIENTS_MAX: usize = 1000;

/// Fates and steps of one event that are kept.
const FATES_MAX: usize = 1000;
const STEPS_MAX: usize = 256;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    /// Milliseconds since 1970.
    pub(crate) at_ms: i64,
    pub(crate) dialog: String,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Answered(Box<Answered>),
    Attempt(Attempt),
}

/// A message, or a command that rules refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) listener: String,
    pub(crate) direction: &'static str,
    pub(crate) point: &'static str,
    pub(crate) octets: i64,
    pub(crate) sender: Kept,
    /// With how many recipients each stands for.
    pub(crate) recipients: Vec<(Kept, i64)>,
    /// Somebody gets it, or it was discarded or held for them.
    pub(crate) accepted: bool,
    pub(crate) elapsed_us: i64,
    pub(crate) fates: Vec<Fate>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) kind: &'static str,
    pub(crate) queue_id: String,
    pub(crate) recipients: i64,
    pub(crate) code: i64,
    pub(crate) enhanced: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) rule: String,
    pub(crate) service: String,
    pub(crate) result: &'static str,
    pub(crate) failure: String,
    pub(crate) elapsed_us: i64,
}

/// An attempt to deliver to one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) queue_id: String,
    pub(crate) outcome: &'static str,
    pub(crate) recipient: Kept,
    pub(crate) code: i64,
    pub(crate) enhanced: String,
    pub(crate) elapsed_ms: i64,
}

/// How contexts are read.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) addresses: Addresses,
    pub(crate) outbound_listeners: Vec<String>,
}

// === impl Reader ===

impl Reader {
    /// None: at this point there is nothing to report.
    pub(crate) fn event(&self, point: Point, context: &Context, at_ms: u64) -> Option<Event> {
        let what = match point {
            Point::Answered => What::Answered(Box::new(self.answered(context))),
            Point::Delivered => What::Attempt(self.attempt("delivered", context)),
            Point::Deferred => What::Attempt(self.attempt("deferred", context)),
            Point::Bounced => What::Attempt(self.attempt("bounced", context)),
            Point::Unspecified
            | Point::Connect
            | Point::Helo
            | Point::StartTls
            | Point::Auth
            | Point::MailFrom
            | Point::RcptTo
            | Point::Data
            | Point::Content
            | Point::Routing => return None,
        };
        Some(Event {
            id: clean(&context.event_id, NAME_OCTETS_MAX),
            at_ms: signed(at_ms),
            dialog: name(&context.dialog_id),
            what,
        })
    }

    fn answered(&self, context: &Context) -> Answered {
        let answer = context.answer.clone().unwrap_or_default();
        let fates: Vec<Fate> = answer.fates.iter().take(FATES_MAX).map(fate).collect();
        let is_outbound =
            context.auth.is_some() || self.outbound_listeners.contains(&context.listener);
        Answered {
            listener: name(&context.listener),
            direction: if is_outbound { "outbound" } else { "inbound" },
            point: point_name(answer.at()),
            octets: signed(context.size.unwrap_or(0)),
            sender: self.kept(context.mail_from.as_ref()),
            recipients: self.recipients(&context.recipients),
            accepted: fates.iter().any(Fate::is_accepted),
            elapsed_us: signed(answer.elapsed_us),
            fates,
            steps: answer.steps.iter().take(STEPS_MAX).map(step).collect(),
        }
    }

    fn attempt(&self, outcome: &'static str, context: &Context) -> Attempt {
        let delivery = context.delivery.clone().unwrap_or_default();
        let reply = delivery.reply.unwrap_or_default();
        Attempt {
            queue_id: name(&delivery.queue_id),
            outcome,
            recipient: self.kept(context.recipients.first()),
            code: i64::from(reply.code),
            enhanced: name(&reply.enhanced),
            elapsed_ms: signed(delivery.elapsed_ms),
        }
    }

    fn kept(&self, address: Option<&smtp::Address>) -> Kept {
        let address = address.map(|address| address.address.as_str());
        self.addresses.keep(address.unwrap_or_default())
    }

    /// In order, so that an event that is told twice has the same rows.
    fn recipients(&self, all: &[smtp::Address]) -> Vec<(Kept, i64)> {
        let mut kept: BTreeMap<Kept, i64> = BTreeMap::new();
        let mut beyond = 0;
        for address in all {
            let one = self.addresses.keep(&address.address);
            if kept.len() < RECIPIENTS_MAX || kept.contains_key(&one) {
                *kept.entry(one).or_default() += 1;
            } else {
                beyond += 1;
            }
        }
        let mut kept: Vec<_> = kept.into_iter().collect();
        if beyond > 0 {
            let nobody = self.addresses.keep("");
            kept.push((nobody, beyond));
        }
        kept
    }
}

// === impl Event ===

impl Event {
    /// Octets that it holds, about.
    pub(crate) fn weight(&self) -> usize {
        let base = size_of::<Self>() + self.id.len() + self.dialog.len();
        match &self.what {
            What::Attempt(attempt) => base + attempt.queue_id.len() + weight_of(&attempt.recipient),
            What::Answered(answered) => {
                let recipients = answered.recipients.iter();
                let recipients: usize = recipients.map(|(kept, _)| 64 + weight_of(kept)).sum();
                let fates = answered.fates.iter();
                let fates: usize = fates.map(|fate| 96 + fate.queue_id.len()).sum();
                let steps = answered.steps.iter();
                let steps: usize = steps
                    .map(|step| 128 + step.rule.len() + step.service.len())
                    .sum();
                base + size_of::<Answered>() + recipients + fates + steps
            }
        }
    }

    /// Rows that it takes.
    pub(crate) fn rows(&self) -> usize {
        match &self.what {
            What::Attempt(_) => 1,
            What::Answered(answered) => {
                1 + answered.recipients.len() + answered.fates.len() + answered.steps.len()
            }
        }
    }
}

fn weight_of(kept: &Kept) -> usize {
    kept.address.len() + kept.domain.len()
}

// === impl Answered ===

impl Answered {
    pub(crate) fn recipients_total(&self) -> i64 {
        let counts = self.recipients.iter().map(|(_, count)| *count);
        counts.fold(0, i64::saturating_add)
    }
}

// === impl Fate ===

impl Fate {
    fn is_accepted(&self) -> bool {
        !matches!(self.kind, "rejected" | "tempfailed")
    }
}

fn fate(fate: &smtp::Fate) -> Fate {
    let word = match fate.kind() {
        Kind::Queued => "queued",
        Kind::Relayed => "relayed",
        Kind::Quarantined => "quarantined",
        Kind::Discarded => "discarded",
        Kind::Refused | Kind::Unspecified if fate.code / 100 == 5 => "rejected",
        Kind::Refused | Kind::Unspecified => "tempfailed",
    };
    Fate {
        kind: word,
        queue_id: name(&fate.id),
        recipients: i64::from(fate.recipients),
        code: i64::from(fate.code),
        enhanced: name(&fate.enhanced),
    }
}

fn step(step: &smtp::Step) -> Step {
    let result = match step.result() {
        StepResult::Unspecified | StepResult::Accept => "accept",
        StepResult::Advise => "advise",
        StepResult::Change => "change",
        StepResult::Quarantine => "quarantine",
        StepResult::Tempfail => "tempfail",
        StepResult::Reject => "reject",
        StepResult::Discard => "discard",
        StepResult::Bypassed => "bypassed",
    };
    Step {
        rule: name(&step.rule),
        service: name(&step.service),
        result,
        failure: name(&step.failure),
        elapsed_us: signed(step.elapsed_us),
    }
}

fn name(text: &str) -> String {
    clean(text, NAME_OCTETS_MAX)
}

/// As in rules.
fn point_name(point: Point) -> &'static str {
    match point {
        Point::Connect => "connect",
        Point::Helo => "helo",
        Point::StartTls => "startTls",
        Point::Auth => "auth",
        Point::MailFrom => "mailFrom",
        Point::RcptTo => "rcptTo",
        Point::Data => "data",
        Point::Unspecified
        | Point::Content
        | Point::Routing
        | Point::Answered
        | Point::Delivered
        | Point::Deferred
        | Point::Bounced => "content",
    }
}

#[cfg(test)]
mod tests;
