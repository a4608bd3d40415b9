//! The end of data: makes 250 true, or says no.
//!
//! 250 is returned from here only after the spool has the message durably, after the next hop said 250 (cut-through), after the
//! quarantine file is on disk, or where a rule lets the message be discarded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use opes_content::{Content, ContentError, View};
use opes_mime::{Piece, Rope};
use opes_proto::smtp;
use opes_smtp::command::HelloVerb;
use opes_smtp::reply::Reply;
use opes_smtp::server::{Body, ContentReply};
use opes_spool::{Envelope, NextHop, Recipient, SpoolError};

use crate::config::{Acceptance, ListenerProtocol};
use crate::dialog::Dialog;
use crate::edge::{Edge, Listener};
use crate::mail::Mail;
use crate::metrics::ByOutcome;
use crate::outcome::Verdict;
use crate::quarantine;
use crate::received::{Received, with_keyword};
use crate::report::{MessageOutcome, MessageReport, StepReport};
use crate::session::Connection;
use crate::stages::Merged;

/// Trace fields from which on a message is in a loop; RFC 5321 §6.3 wants the limit at 100 at least.
const HOPS_MAX: usize = 100;
const TRACE_FIELD: &[u8] = b"Received:";

/// Octets of the header section that are searched for trace fields, which stand at its top.
const TRACE_OCTETS_MAX: u64 = 128 << 10;
const READ_OCTETS: usize = 32 << 10;

/// What the client is told, and what became of the message.
struct Decision {
    reply: ContentReply,
    outcome: MessageOutcome,
}

impl Decision {
    fn new(reply: Reply, outcome: MessageOutcome) -> Self {
        Self {
            reply: ContentReply::One(reply),
            outcome,
        }
    }

    fn refused(reply: Reply) -> Self {
        Self::new(reply, MessageOutcome::Refused)
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
    let mut merged = match incoming.finish().await {
        Ok(merged) => merged,
        Err(error) => {
            tracing::error!(%error, "mail data cannot be read back");
            return ContentReply::One(content_reply(&error));
        }
    };
    let decision = decide(&origin, &mail.next_hops, &dialog, &mut merged).await;
    report(&origin.edge, mail, &dialog, merged.steps, octets, &decision);
    decision.reply
}

async fn decide(
    origin: &Origin,
    next_hops: &HashMap<usize, NextHop>,
    dialog: &Dialog,
    merged: &mut Merged,
) -> Decision {
    match &merged.verdict {
        Verdict::Refuse(reply) => return Decision::refused(reply.clone()),
        Verdict::Discard => return Decision::new(Reply::QUEUED, MessageOutcome::Discarded),
        Verdict::Accept => {}
    }
    let Some(view) = merged.view.take() else {
        return Decision::refused(Reply::LOCAL_ERROR);
    };
    match is_looping(view.content()).await {
        Ok(false) => {}
        Ok(true) => return Decision::refused(Reply::ROUTING_LOOP),
        Err(error) => return Decision::refused(content_reply(&error)),
    }
    let view = match with_received(origin, dialog, &view) {
        Ok(view) => view,
        Err(error) => {
            opes_telemetry::bug!("trace field cannot be added", %error);
            return Decision::refused(Reply::LOCAL_ERROR);
        }
    };
    let envelope = envelope(origin, dialog, next_hops, merged);
    if envelope.recipients.is_empty() {
        return Decision::new(Reply::QUEUED, MessageOutcome::Discarded);
    }
    if let Some(advice) = merged.quarantine.take() {
        return hold(&origin.edge, &dialog.id, &envelope, &view, &advice).await;
    }
    match origin.listener.config.delivery {
        Acceptance::Spool => spool(&origin.edge, envelope, &view).await,
        Acceptance::CutThrough if origin.listener.config.protocol == ListenerProtocol::Lmtp => {
            // One reply per recipient is owed, so the recipients must still be those that the client named.
            if merged.recipients.iter().all(keeps_recipients) {
                per_recipient(&origin.edge, &envelope, &view).await
            } else {
                spool(&origin.edge, envelope, &view).await
            }
        }
        Acceptance::CutThrough => cut_through(&origin.edge, envelope, &view).await,
    }
}

/// Neither adds nor removes one.
fn keeps_recipients(change: &smtp::RecipientChange) -> bool {
    !change.original.is_empty() && !change.remove
}

async fn spool(edge: &Edge, envelope: Envelope, view: &View) -> Decision {
    match edge.spool.store(envelope, view).await {
        Ok(queued) => {
            let id = queued.id.to_string();
            let reply = Reply::QUEUED.with_text(format!("Message queued for delivery as {id}"));
            edge.relay.enqueue(queued);
            Decision::new(reply, MessageOutcome::Queued(id))
        }
        Err(error) => {
            tracing::error!(%error, "message cannot be spooled");
            Decision::refused(spool_reply(&error))
        }
    }
}

/// The next hop's word is ours, for all recipients or for none (ADR 0004). Recipients that cannot have one fate go through the spool.
async fn cut_through(edge: &Edge, envelope: Envelope, view: &View) -> Decision {
    let Some(replies) = edge.relay.deliver_to_all(&envelope, view).await else {
        return spool(edge, envelope, view).await;
    };
    let worst = replies
        .into_iter()
        .max_by_key(|reply| (reply.is_transient(), reply.is_permanent()));
    let reply = worst.map_or(Reply::LOCAL_ERROR, keep_session);
    let outcome = if reply.is_positive() {
        MessageOutcome::Relayed
    } else {
        MessageOutcome::Refused
    };
    Decision::new(reply, outcome)
}

async fn per_recipient(edge: &Edge, envelope: &Envelope, view: &View) -> Decision {
    let replies: Vec<Reply> = edge
        .relay
        .deliver(envelope, view)
        .await
        .into_iter()
        .map(keep_session)
        .collect();
    let delivered = replies.iter().any(Reply::is_positive);
    let outcome = if delivered {
        MessageOutcome::Relayed
    } else {
        MessageOutcome::Refused
    };
    Decision {
        reply: ContentReply::PerRecipient(replies),
        outcome,
    }
}

/// 421 of the next hop closes its connection, not ours: said to our client, it would take back the 250 of its neighbours.
fn keep_session(reply: Reply) -> Reply {
    if reply.closes() {
        Reply::LOCAL_ERROR.with_text(format!("Next hop said: {reply}"))
    } else {
        reply
    }
}

async fn hold(
    edge: &Edge,
    id: &str,
    envelope: &Envelope,
    view: &View,
    advice: &smtp::Quarantine,
) -> Decision {
    match quarantine::hold(&edge.quarantine, id, envelope, view, advice, ("", "")).await {
        Ok(()) => Decision::new(Reply::QUEUED, MessageOutcome::Quarantined(id.to_owned())),
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "message cannot be quarantined"
            );
            Decision::refused(Reply::INSUFFICIENT_STORAGE)
        }
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

fn with_received(
    origin: &Origin,
    dialog: &Dialog,
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
        recipient: match dialog.recipients.as_slice() {
            [only] => Some(&only.address),
            _ => None,
        },
        at: SystemTime::now(),
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

/// The envelope as the client gave it, with what the services changed.
fn envelope(
    origin: &Origin,
    dialog: &Dialog,
    next_hops: &HashMap<usize, NextHop>,
    merged: &Merged,
) -> Envelope {
    let mut recipients: Vec<Recipient> = dialog
        .recipients
        .iter()
        .enumerate()
        .map(|(index, path)| Recipient {
            address: path.address.clone(),
            params: path.parameters.clone(),
            next_hop: next_hops.get(&index).cloned(),
        })
        .collect();
    for change in &merged.recipients {
        change_recipients(&mut recipients, change);
    }
    let sender = dialog.mail_from.clone().unwrap_or_default();
    Envelope {
        reverse_path: merged.sender.clone().unwrap_or(sender.address),
        mail_params: sender.parameters,
        recipients,
        received_at_ms: unix_ms(),
        session_id: dialog.id.clone(),
        body_8bit: origin.body_8bit,
        smtputf8: origin.smtputf8,
        client: dialog.client.ip().to_string(),
        helo: dialog.helo.clone().unwrap_or_default(),
        auth: dialog.auth.as_ref().map(|auth| auth.identity.clone()),
        ..Envelope::default()
    }
}

/// `*` as the original stands for every recipient.
fn change_recipients(recipients: &mut Vec<Recipient>, change: &smtp::RecipientChange) {
    let hop = change.next_hop.as_ref().and_then(next_hop);
    if change.original.is_empty() {
        recipients.push(Recipient {
            address: change.address.clone(),
            params: Vec::new(),
            next_hop: hop,
        });
        return;
    }
    let concerns = |recipient: &Recipient| {
        change.original == "*" || recipient.address.eq_ignore_ascii_case(&change.original)
    };
    if change.remove {
        recipients.retain(|recipient| !concerns(recipient));
        return;
    }
    for recipient in recipients
        .iter_mut()
        .filter(|recipient| concerns(recipient))
    {
        if !change.address.is_empty() {
            recipient.address.clone_from(&change.address);
        }
        recipient.next_hop = hop.clone().or(recipient.next_hop.take());
    }
}

/// The profile's next hop; none if the port is none.
pub(crate) fn next_hop(hop: &smtp::NextHop) -> Option<NextHop> {
    let port = u16::try_from(hop.port).ok().filter(|port| *port != 0)?;
    Some(NextHop {
        host: hop.host.clone(),
        port,
        lmtp: hop.lmtp,
    })
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn content_reply(error: &ContentError) -> Reply {
    match error {
        ContentError::TooLarge { .. } => Reply::MESSAGE_TOO_LARGE,
        ContentError::Spill { .. } => Reply::INSUFFICIENT_STORAGE,
        _ => Reply::LOCAL_ERROR,
    }
}

fn spool_reply(error: &SpoolError) -> Reply {
    if error.is_full() {
        Reply::INSUFFICIENT_STORAGE
    } else {
        Reply::LOCAL_ERROR
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
    edge.metrics
        .messages
        .get_or_create(&ByOutcome {
            outcome: (&decision.outcome).into(),
        })
        .inc();
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
        outcome: decision.outcome.clone(),
        reply: decision.shown(),
        elapsed: mail
            .started
            .map(|started| started.elapsed())
            .unwrap_or_default(),
    });
}
