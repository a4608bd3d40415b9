//! The end of data: makes 250 true, or says no, for each recipient.
//!
//! 250 is returned from here only after the spool has the message durably, after the next hop said 250 (cut-through), after the
//! quarantine has it, or where a rule lets the message be discarded. Where one reply is owed for all recipients, a message is placed for
//! all of them or for none: what was placed before a failure, or before the client's patience ran out, is taken back.

mod place;
mod ruling;

use std::sync::Arc;

use bytes::Bytes;
use opes_content::{Content, ContentError, View};
use opes_mime::{Piece, Rope};
use opes_smtp::command::HelloVerb;
use opes_smtp::reply::Reply;
use opes_smtp::server::{Body, ContentReply};
use tokio::time::Instant;

use crate::config::ListenerProtocol;
use crate::dialog::Dialog;
use crate::edge::{Edge, Listener};
use crate::engine::{Group, Merged, Recipient};
use crate::mail::Mail;
use crate::metrics::{ByOutcome, ByRuling, RulingLabel};
use crate::outcome::Verdict;
use crate::received::{Received, with_keyword};
use crate::report::{MessageOutcome, MessageReport, StepReport};
use crate::session::Connection;
use place::{Placed, Placing};
use ruling::Ruling;

/// Trace fields from which on a message is in a loop; RFC 5321 §6.3 wants the limit at 100 at least.
const HOPS_MAX: usize = 100;
const TRACE_FIELD: &[u8] = b"Received:";

/// Octets of the header section that are searched for trace fields, which stand at its top.
const TRACE_OCTETS_MAX: u64 = 128 << 10;
const READ_OCTETS: usize = 32 << 10;

/// What the client is told, and what became of the message for each group of recipients.
struct Decision {
    reply: ContentReply,
    outcomes: Vec<MessageOutcome>,
}

impl Decision {
    fn refused(reply: Reply) -> Self {
        Self {
            reply: ContentReply::One(reply),
            outcomes: vec![MessageOutcome::Refused],
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

/// Where a message came in, and how.
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
    let original = merged.original();
    let decision = decide(&origin, &dialog, merged, deadline).await;
    let refused = decision.is_refused();
    let advising = origin
        .edge
        .advise(&dialog, original.as_ref(), refused, advice);
    advising.await;
    report(&origin.edge, mail, &dialog, steps, octets, &decision);
    decision.reply
}

async fn decide(origin: &Origin, dialog: &Dialog, merged: Merged, deadline: Instant) -> Decision {
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
            return Decision::refused(reply);
        }
        Ruling::Split => {
            origin.count(RulingLabel::Split);
            let sender = dialog.mail_from.as_ref();
            let sender = sender.map(|path| path.address.as_str()).unwrap_or_default();
            origin.edge.splits.insert(sender);
            return Decision::refused(Reply::SEPARATE_TRANSACTIONS);
        }
        Ruling::HoldRefused => {
            origin.count(RulingLabel::QuarantineRejected);
            ruling::hold_refused(&mut groups);
        }
    }
    if let Err(reply) = check_hops(&groups).await {
        return Decision::refused(reply);
    }
    let placing = Placing::new(origin, dialog, &recipients, deadline);
    if origin.apart {
        let placed = placing.each(&groups).await;
        answer_each(&groups, &recipients, placed)
    } else {
        answer_all(placing.all_or_none(&groups).await)
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
        reply: ContentReply::PerRecipient(replies),
        outcomes: placed.into_iter().map(|placed| placed.outcome).collect(),
    }
}

/// Everything was placed, or the one refusal that took it all back.
fn answer_all(placed: Result<Vec<Placed>, Reply>) -> Decision {
    match placed {
        Ok(placed) => Decision {
            reply: ContentReply::One(Placed::common_reply(&placed)),
            outcomes: placed.into_iter().map(|placed| placed.outcome).collect(),
        },
        Err(reply) => Decision::refused(reply),
    }
}

/// Nobody gets a message that goes in circles.
async fn check_hops(groups: &[Group]) -> Result<(), Reply> {
    let accepted = groups
        .iter()
        .find(|group| group.fate.verdict == Verdict::Accept);
    let Some(version) = accepted.and_then(|group| group.fate.version.as_ref()) else {
        return Ok(());
    };
    match is_looping(version.view.content()).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(Reply::ROUTING_LOOP),
        Err(error) => Err(content_reply(&error)),
    }
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

/// Whether the message has been through so many servers that it must be going in circles (RFC 5321 §6.3).
async fn is_looping(content: &Content) -> Result<bool, ContentError> {
    let (mut hops, mut offset) = (0, 0);
    while offset < TRACE_OCTETS_MAX {
        let octets = content.read_at(offset, READ_OCTETS).await?;
        if octets.is_empty() {
            break;
        }
        for line in octets.split(|octet| *octet == b'\n') {
            if line == b"\r" {
                return Ok(hops >= HOPS_MAX);
            }
            let name = line.get(..TRACE_FIELD.len());
            hops += usize::from(name.is_some_and(|name| name.eq_ignore_ascii_case(TRACE_FIELD)));
        }
        offset += octets.len() as u64;
    }
    Ok(hops >= HOPS_MAX)
}

/// `only`: the recipient, if this copy is for nobody else.
fn with_received(
    origin: &Origin,
    dialog: &Dialog,
    only: Option<&str>,
    view: &View,
) -> Result<View, opes_mime::RopeError> {
    let protocol = origin.listener.config.protocol;
    let field = Received {
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
    .field();
    let rest = Piece::Original {
        offset: 0,
        len: view.len_now(),
    };
    view.compose(Some(Rope::from_pieces(vec![
        Piece::Inserted(Bytes::from(field)),
        rest,
    ])))
}

pub(crate) fn content_reply(error: &ContentError) -> Reply {
    match error {
        ContentError::TooLarge { .. } => Reply::MESSAGE_TOO_LARGE,
        ContentError::Spill { .. } => Reply::INSUFFICIENT_STORAGE,
        _ => Reply::LOCAL_ERROR,
    }
}

fn report(
    edge: &Edge,
    mut mail: Mail,
    dialog: &Dialog,
    steps: Vec<StepReport>,
    octets: u64,
    decision: &Decision,
) {
    for outcome in &decision.outcomes {
        let outcome = outcome.into();
        let by = ByOutcome { outcome };
        edge.metrics.messages.get_or_create(&by).inc();
    }
    mail.steps.extend(steps);
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
