//! The end of data: makes 250 true, or says no, for each recipient.
//!
//! 250 is returned from here only after the spool has the message durably, after the next hop said 250 (cut-through), after the
//! quarantine has it, or where a rule lets the message be discarded. Where one reply is owed for all recipients, a message is placed for
//! all of them or for none: what was placed before a failure, or before the client's patience ran out, is taken back.

mod place;
mod ruling;

use std::sync::Arc;

use bytes::Bytes;
use opes_content::ContentError;
use opes_proto::smtp;
use opes_smtp::command::HelloVerb;
use opes_smtp::reply::Reply;
use opes_smtp::server::{Body, ContentReply};
use tokio::time::Instant;

use crate::answered::{self, Answered, fate};
use crate::config::ListenerProtocol;
use crate::dialog::Dialog;
use crate::edge::{Edge, Listener};
use crate::engine::{Group, Merged, Recipient};
use crate::mail::Mail;
use crate::metrics::{ByOutcome, ByRuling, RulingLabel};
use crate::received::{Received, with_keyword};
use crate::report::{MessageOutcome, MessageReport};
use crate::routing::Routing;
use crate::session::Connection;
use crate::trace::Calls;
use place::{Placed, Placing};
use ruling::Ruling;

/// What the client is told, and what became of the message for each group of recipients.
struct Decision {
    reply: ContentReply,
    outcomes: Vec<MessageOutcome>,
    /// The same for observers, with replies.
    fates: Vec<smtp::Fate>,
}

impl Decision {
    fn refused(reply: Reply, recipients: usize) -> Self {
        let outcome = MessageOutcome::Refused;
        Self {
            fates: vec![fate(&outcome, recipients, &reply)],
            reply: ContentReply::One(reply),
            outcomes: vec![outcome],
        }
    }

    fn is_refused(&self) -> bool {
        let mut outcomes = self.outcomes.iter();
        outcomes.all(|outcome| *outcome == MessageOutcome::Refused)
    }

    /// For reports: the first reply stands for all.
    fn shown(&self) -> String {
        match &self.reply {
            ContentReply::One(reply) => reply.to_string(),
            ContentReply::PerRecipient(replies) => {
                replies.first().map(ToString::to_string).unwrap_or_default()
            }
        }
    }
}

/// What the trace of a message's copies is made from.
struct Traced {
    routing: Arc<Routing>,
    first_octets: Bytes,
    calls: Calls,
}

/// Where a message came in, and how.
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent facts of one SMTP transaction"
)]
pub(crate) struct Origin {
    edge: Arc<Edge>,
    listener: Arc<Listener>,
    /// EHLO or LHLO, not HELO.
    extended: bool,
    body_8bit: bool,
    smtputf8: bool,
    /// Each recipient gets a reply of its own.
    apart: bool,
}

impl Origin {
    pub(crate) fn of(connection: &Connection) -> Self {
        let transaction = connection.core.transaction();
        Self {
            edge: Arc::clone(&connection.edge),
            listener: Arc::clone(&connection.listener),
            extended: connection
                .core
                .helo()
                .is_some_and(|hello| hello.verb != HelloVerb::Helo),
            body_8bit: transaction
                .is_some_and(|transaction| transaction.body == Body::EightBitMime),
            smtputf8: transaction.is_some_and(|transaction| transaction.smtputf8),
            apart: connection.replies_per_recipient(),
        }
    }
}

/// Decides on a complete message and answers for it.
pub(crate) async fn finish(origin: Origin, mut mail: Mail) -> ContentReply {
    let Some(incoming) = mail.incoming.take() else {
        return ContentReply::One(Reply::LOCAL_ERROR);
    };
    let dialog = Arc::clone(&incoming.dialog);
    let octets = incoming.octets();
    let (routing, first_octets) = incoming.traced();
    let rules = Arc::clone(&routing);
    let deadline = Instant::now() + origin.edge.config.decision_timeout;
    let mut merged = match incoming.finish(deadline).await {
        Ok(merged) => merged,
        Err(error) => {
            tracing::error!(%error, "mail data cannot be read back");
            return ContentReply::One(content_reply(&error));
        }
    };
    let steps = std::mem::take(&mut merged.steps);
    let advice = std::mem::take(&mut merged.advice);
    let told = dialog.annotated(&merged.groups.said_at_the_end());
    let mut calls = std::mem::take(&mut merged.calls);
    answered::foresee(&routing, &told, octets, &mut calls);
    let traced = Traced {
        routing,
        first_octets,
        calls,
    };
    let original = merged.original();
    let decision = decide(&origin, &dialog, merged, traced, deadline).await;
    let refused = decision.is_refused();
    let advising = origin
        .edge
        .advise(&dialog, original.as_ref(), refused, advice);
    advising.await;
    mail.steps.extend(steps);
    tell(&origin.edge, rules, &told, &mail, octets, &decision);
    report(&origin.edge, mail, &dialog, octets, &decision);
    decision.reply
}

async fn decide(
    origin: &Origin,
    dialog: &Dialog,
    merged: Merged,
    traced: Traced,
    deadline: Instant,
) -> Decision {
    let refused = |reply: &Reply| {
        let reply = origin.edge.tracer.refusal(reply, &dialog.id);
        Decision::refused(reply, dialog.recipients.len())
    };
    let (recipients, mut groups) = merged.groups.joined();
    let policy = origin.listener.config.mixed_verdicts;
    let mixed = groups.len() > 1;
    match ruling::rule(&groups, origin.apart, policy) {
        Ruling::Each if mixed && origin.apart => origin.count(RulingLabel::PerRecipient),
        Ruling::Each => {}
        Ruling::Refuse(reply) => {
            if mixed {
                origin.count(RulingLabel::RejectAll);
            }
            return refused(&reply);
        }
        Ruling::Split => {
            origin.count(RulingLabel::Split);
            let sender = dialog.mail_from.as_ref();
            let sender = sender.map(|path| path.address.as_str()).unwrap_or_default();
            origin.edge.splits.insert(sender);
            return refused(&Reply::SEPARATE_TRANSACTIONS);
        }
        Ruling::HoldRefused => {
            origin.count(RulingLabel::QuarantineRejected);
            ruling::hold_refused(&mut groups);
        }
    }
    let placing = Placing::new(origin, dialog, &recipients, &traced, deadline);
    if origin.apart {
        let placed = placing.each(&groups).await;
        answer_each(&groups, &recipients, placed)
    } else {
        let placed = placing.all_or_none(&groups).await;
        answer_all(&groups, placed, dialog.recipients.len())
    }
}

/// One reply for each recipient that the client named, in its order.
fn answer_each(groups: &[Group], recipients: &[Recipient], placed: Vec<Placed>) -> Decision {
    let named = recipients.iter().take_while(|recipient| !recipient.added);
    let mut replies = vec![Reply::LOCAL_ERROR; named.count()];
    for (group, placed) in groups.iter().zip(&placed) {
        for (position, member) in group.members.iter().enumerate() {
            if let Some(reply) = replies.get_mut(*member) {
                *reply = placed.reply_to(position);
            }
        }
    }
    Decision {
        fates: fates(groups, &placed),
        reply: ContentReply::PerRecipient(replies),
        outcomes: placed.into_iter().map(|placed| placed.outcome).collect(),
    }
}

/// Everything was placed, or the one refusal that took it all back.
fn answer_all(groups: &[Group], placed: Result<Vec<Placed>, Reply>, recipients: usize) -> Decision {
    match placed {
        Ok(placed) => Decision {
            fates: fates(groups, &placed),
            reply: ContentReply::One(Placed::common_reply(&placed)),
            outcomes: placed.into_iter().map(|placed| placed.outcome).collect(),
        },
        Err(reply) => Decision::refused(reply, recipients),
    }
}

fn fates(groups: &[Group], placed: &[Placed]) -> Vec<smtp::Fate> {
    let each = groups.iter().zip(placed);
    each.flat_map(|(group, placed)| placed.fates(group.members.len()))
        .collect()
}

impl Origin {
    fn count(&self, answer: RulingLabel) {
        self.edge
            .metrics
            .mixed
            .get_or_create(&ByRuling { answer })
            .inc();
    }
}

/// `only`: the recipient, if this copy is for nobody else.
fn received(origin: &Origin, dialog: &Dialog, only: Option<&str>) -> String {
    let protocol = origin.listener.config.protocol;
    Received {
        helo: dialog.helo.as_deref().unwrap_or_default(),
        client: dialog.client.ip(),
        hostname: &origin.edge.config.hostname,
        with: with_keyword(
            protocol == ListenerProtocol::Lmtp,
            origin.extended,
            dialog.tls.is_some(),
            dialog.auth.is_some(),
            origin.smtputf8,
        ),
        id: &dialog.id,
        recipient: only,
        at: origin.edge.host.clock.now(),
    }
    .field()
}

pub(crate) fn content_reply(error: &ContentError) -> Reply {
    match error {
        ContentError::TooLarge { .. } => Reply::MESSAGE_TOO_LARGE,
        ContentError::Spill { .. } => Reply::INSUFFICIENT_STORAGE,
        _ => Reply::LOCAL_ERROR,
    }
}

fn tell(
    edge: &Edge,
    routing: Arc<Routing>,
    dialog: &Dialog,
    mail: &Mail,
    octets: u64,
    decision: &Decision,
) {
    let started = mail.started;
    let answered = Answered {
        at: smtp::Point::Content,
        octets: Some(octets),
        fates: decision.fates.clone(),
        steps: &mail.steps,
        elapsed: started.map(|started| started.elapsed()).unwrap_or_default(),
    };
    answered::tell(edge, routing, dialog, answered);
}

fn report(edge: &Edge, mail: Mail, dialog: &Dialog, octets: u64, decision: &Decision) {
    for outcome in &decision.outcomes {
        let outcome = outcome.into();
        let by = ByOutcome { outcome };
        edge.metrics.messages.get_or_create(&by).inc();
    }
    edge.report(&MessageReport {
        session: dialog.id.clone(),
        listener: Arc::clone(&dialog.listener),
        client: dialog.client.ip(),
        from: dialog
            .mail_from
            .as_ref()
            .map(|path| path.address.clone())
            .unwrap_or_default(),
        to: dialog
            .recipients
            .iter()
            .map(|path| path.address.clone())
            .collect(),
        octets,
        steps: mail.steps,
        outcomes: decision.outcomes.clone(),
        reply: decision.shown(),
        elapsed: mail
            .started
            .map(|started| started.elapsed())
            .unwrap_or_default(),
    });
}
