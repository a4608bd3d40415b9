//! Puts a message where its groups of recipients are to get it from: the spool, the next hop, the quarantine.

use std::sync::Once;

use opes_content::View;
use opes_proto::smtp;
use opes_smtp::reply::Reply;
use opes_spool::{Envelope, Queued, Settlement, SpoolError};
use tokio::time::Instant;

use super::{Origin, Traced, content_reply, received};
use crate::answered::fate;
use crate::config::Acceptance;
use crate::dialog::Dialog;
use crate::edge::Edge;
use crate::engine::{Group, Hold, Recipient};
use crate::metrics::{ByNeed, NeedLabel};
use crate::outcome::Verdict;
use crate::quarantine::{self, Taken};
use crate::report::MessageOutcome;
use crate::trace::{Pass, SealError, seal};

/// What became of the message for one group.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) outcome: MessageOutcome,
    told: Told,
}

#[derive(Debug)]
enum Told {
    All(Reply),
    /// In the order of the group's members; those whom a service took out are left out.
    Each(Vec<Reply>),
}

/// One message on its way to its places.
pub(super) struct Placing<'a> {
    origin: &'a Origin,
    dialog: &'a Dialog,
    recipients: &'a [Recipient],
    traced: &'a Traced,
    /// A bypass request is one of the message, not of each copy.
    request_counted: Once,
    deadline: Instant,
}

/// A group's copy, ready to go.
struct Copy {
    envelope: Envelope,
    view: View,
    hold: Option<Hold>,
    /// For the quarantine: unique in the edge.
    id: String,
    /// Services put recipients in or took some out.
    is_same_recipients: bool,
}

/// What is in place so far and can be taken back.
#[derive(Default)]
struct Undo {
    queued: Vec<Queued>,
    held: Vec<Taken>,
}

impl Placed {
    fn all(reply: Reply, outcome: MessageOutcome) -> Self {
        let told = Told::All(reply);
        Self { outcome, told }
    }

    fn refused(reply: Reply) -> Self {
        Self::all(reply, MessageOutcome::Refused)
    }

    fn discarded() -> Self {
        Self::all(Reply::QUEUED, MessageOutcome::Discarded)
    }

    fn queued(queued: &Queued) -> Self {
        let id = queued.id.to_string();
        let text = format!("Message queued for delivery as {id}");
        Self::all(Reply::QUEUED.with_text(text), MessageOutcome::Queued(id))
    }

    fn held(id: String) -> Self {
        Self::all(Reply::QUEUED, MessageOutcome::Quarantined(id))
    }

    /// What the member of the group at `position` is told.
    pub(super) fn reply_to(&self, position: usize) -> Reply {
        match &self.told {
            Told::All(reply) => reply.clone(),
            Told::Each(replies) => replies.get(position).cloned().unwrap_or(Reply::LOCAL_ERROR),
        }
    }

    /// For observers: one for all of `members`, or one for each reply that the next hop gave some of them.
    pub(super) fn fates(&self, members: usize) -> Vec<smtp::Fate> {
        let replies = match &self.told {
            Told::All(reply) => return vec![fate(&self.outcome, members, reply)],
            Told::Each(replies) => replies,
        };
        let mut told: Vec<(&Reply, usize)> = Vec::new();
        for reply in replies {
            match told.iter_mut().find(|(known, _)| *known == reply) {
                Some((_, count)) => *count += 1,
                None => told.push((reply, 1)),
            }
        }
        let each = told.into_iter().map(|(reply, count)| {
            let outcome = if reply.is_positive() {
                MessageOutcome::Relayed
            } else {
                MessageOutcome::Refused
            };
            fate(&outcome, count, reply)
        });
        each.collect()
    }

    /// The reply to a message of which every group was placed: that of one that is on its way, if any is.
    pub(super) fn common_reply(placed: &[Self]) -> Reply {
        let on_its_way = |placed: &&Self| {
            matches!(
                placed.outcome,
                MessageOutcome::Queued(_) | MessageOutcome::Relayed
            )
        };
        let chosen = placed.iter().find(on_its_way).or(placed.first());
        chosen.map_or(Reply::QUEUED, |placed| placed.reply_to(0))
    }
}

impl<'a> Placing<'a> {
    pub(super) fn new(
        origin: &'a Origin,
        dialog: &'a Dialog,
        recipients: &'a [Recipient],
        traced: &'a Traced,
        deadline: Instant,
    ) -> Self {
        Self {
            origin,
            dialog,
            recipients,
            traced,
            request_counted: Once::new(),
            deadline,
        }
    }

    /// Places every group by itself.
    pub(super) async fn each(&self, groups: &[Group]) -> Vec<Placed> {
        let mut placed = Vec::with_capacity(groups.len());
        for (number, group) in groups.iter().enumerate() {
            placed.push(self.one(number, group).await);
        }
        placed
    }

    async fn one(&self, number: usize, group: &Group) -> Placed {
        let copy = match self.copy(number, group).await {
            Ok(Some(copy)) => copy,
            Ok(None) => return Placed::discarded(),
            Err(reply) => return Placed::refused(reply),
        };
        let relays = copy.hold.is_none()
            && copy.is_same_recipients
            && self.origin.listener.config.delivery == Acceptance::CutThrough;
        if relays {
            return self.relay_each(&copy).await;
        }
        let mut undo = Undo::default();
        let placed = match self.put(&copy, &mut undo).await {
            Ok(placed) => placed,
            Err(reply) => return Placed::refused(reply),
        };
        match self.commit(undo).await {
            Ok(()) => placed,
            Err(reply) => Placed::refused(reply),
        }
    }

    /// Places all groups, or none and gives the reply that says why.
    pub(super) async fn all_or_none(&self, groups: &[Group]) -> Result<Vec<Placed>, Reply> {
        let mut copies = Vec::with_capacity(groups.len());
        for (number, group) in groups.iter().enumerate() {
            copies.push(self.copy(number, group).await?);
        }
        let to_deliver = copies.iter().flatten().filter(|copy| copy.hold.is_none());
        let to_deliver = to_deliver.count();
        // Copies that may have different fates go through the spool, which is as safe and has a fate for each (ADR 0004).
        let relays =
            self.origin.listener.config.delivery == Acceptance::CutThrough && to_deliver == 1;
        if to_deliver > 1 && !self.keeps() {
            return Err(self.nothing_is_kept(NeedLabel::Copies));
        }
        let mut undo = Undo::default();
        match self.put_all(&copies, relays, &mut undo).await {
            Ok(placed) => self.commit(undo).await.map(|()| placed),
            Err(reply) => {
                undo.take_back(&self.origin.edge).await;
                Err(reply)
            }
        }
    }

    async fn put_all(
        &self,
        copies: &[Option<Copy>],
        relays: bool,
        undo: &mut Undo,
    ) -> Result<Vec<Placed>, Reply> {
        let mut placed = Vec::with_capacity(copies.len());
        let mut relayed = None;
        for copy in copies {
            match copy {
                None => placed.push(Placed::discarded()),
                // It comes last, because what the next hop has taken cannot be taken back.
                Some(copy) if relays && copy.hold.is_none() => relayed = Some(copy),
                Some(copy) => placed.push(self.put(copy, undo).await?),
            }
        }
        if let Some(copy) = relayed {
            placed.push(self.relay(copy, undo).await?);
        }
        Ok(placed)
    }

    async fn put(&self, copy: &Copy, undo: &mut Undo) -> Result<Placed, Reply> {
        let edge = &self.origin.edge;
        let Some(hold) = &copy.hold else {
            return if self.keeps() {
                self.store(copy, undo).await
            } else {
                self.relay(copy, undo).await
            };
        };
        if !self.keeps() {
            return self.hold_elsewhere(copy, hold).await;
        }
        match quarantine::hold(&edge.quarantine, &copy.id, &copy.envelope, &copy.view, hold).await {
            Ok(taken) => {
                undo.held.push(taken);
                Ok(Placed::held(copy.id.clone()))
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "message cannot be quarantined");
                Err(Reply::INSUFFICIENT_STORAGE)
            }
        }
    }

    /// The spool outlives this machine.
    fn keeps(&self) -> bool {
        self.origin.edge.config.spool_durable
    }

    /// What cannot be had without a spool that lasts. With fewer recipients at a time it can, mostly: the client is asked for that.
    fn nothing_is_kept(&self, reason: NeedLabel) -> Reply {
        let edge = &self.origin.edge;
        edge.metrics
            .spool_needed
            .get_or_create(&ByNeed { reason })
            .inc();
        tracing::warn!(
            session_id = self.dialog.id,
            ?reason,
            "message not accepted: it would have to be kept, and spoolDurable is false"
        );
        let splits = self.dialog.recipients.len() > 1 && !self.origin.apart;
        if splits && reason != NeedLabel::Quarantine {
            let sender = self.dialog.mail_from.as_ref();
            let sender = sender.map(|path| path.address.as_str()).unwrap_or_default();
            edge.splits.insert(sender);
            return Reply::SEPARATE_TRANSACTIONS;
        }
        Reply::NOTHING_IS_KEPT
    }

    /// In the store that all edges share, before the client is answered. There it stays, whatever becomes of other copies.
    async fn hold_elsewhere(&self, copy: &Copy, hold: &Hold) -> Result<Placed, Reply> {
        let (id, envelope) = (&copy.id, &copy.envelope);
        let handover = &self.origin.edge.quarantine;
        let given = quarantine::hold_now(handover, id, envelope, &copy.view, hold);
        let error = match tokio::time::timeout_at(self.deadline, given).await {
            Ok(Ok(())) => return Ok(Placed::held(copy.id.clone())),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_elapsed) => "decisionTimeout is over".to_owned(),
        };
        tracing::error!(error, "message cannot be quarantined");
        Err(self.nothing_is_kept(NeedLabel::Quarantine))
    }

    async fn store(&self, copy: &Copy, undo: &mut Undo) -> Result<Placed, Reply> {
        if !self.keeps() {
            return Err(self.nothing_is_kept(NeedLabel::NextHops));
        }
        let stored = self
            .origin
            .edge
            .spool
            .store(copy.envelope.clone(), &copy.view);
        let queued = stored.await.map_err(|error| {
            tracing::error!(%error, "message cannot be spooled");
            spool_reply(&error)
        })?;
        let placed = Placed::queued(&queued);
        undo.queued.push(queued);
        Ok(placed)
    }

    /// The next hop's word is ours, for all recipients or for none (ADR 0004). Recipients that cannot have one fate go through the spool.
    async fn relay(&self, copy: &Copy, undo: &mut Undo) -> Result<Placed, Reply> {
        let relay = &self.origin.edge.relay;
        let Some(replies) = relay.deliver_to_all(&copy.envelope, &copy.view).await else {
            return self.store(copy, undo).await;
        };
        let worst = replies
            .into_iter()
            .max_by_key(|reply| (reply.is_transient(), reply.is_permanent()));
        let reply = worst.map_or(Reply::LOCAL_ERROR, keep_session);
        if reply.is_positive() {
            Ok(Placed::all(reply, MessageOutcome::Relayed))
        } else {
            Err(reply)
        }
    }

    async fn relay_each(&self, copy: &Copy) -> Placed {
        let relay = &self.origin.edge.relay;
        let replies = relay.deliver(&copy.envelope, &copy.view).await;
        let replies: Vec<Reply> = replies.into_iter().map(keep_session).collect();
        let outcome = if replies.iter().any(Reply::is_positive) {
            MessageOutcome::Relayed
        } else {
            MessageOutcome::Refused
        };
        let told = Told::Each(replies);
        Placed { outcome, told }
    }

    /// Lets go what was placed, or takes it back: a client that has given up sends the message again, and everybody would have it twice
    /// (RFC 1047).
    async fn commit(&self, undo: Undo) -> Result<(), Reply> {
        let edge = &self.origin.edge;
        // The next hop's 250 alone cannot be taken back; then it is passed on, however late.
        if Instant::now() > self.deadline && !undo.is_empty() {
            tracing::warn!(
                session_id = self.dialog.id,
                "decisionTimeout is over, message not accepted"
            );
            edge.metrics.unaccepted.inc();
            undo.take_back(edge).await;
            return Err(Reply::DECISION_TOO_LATE);
        }
        for queued in undo.queued {
            edge.relay.enqueue(queued);
        }
        Ok(())
    }

    /// What the group is to get; none if there is nobody left to get it.
    async fn copy(&self, number: usize, group: &Group) -> Result<Option<Copy>, Reply> {
        match &group.fate.verdict {
            Verdict::Refuse(reply) => {
                let tracer = &self.origin.edge.tracer;
                return Err(tracer.refusal(reply, &self.dialog.id));
            }
            Verdict::Discard => return Ok(None),
            Verdict::Accept => {}
        }
        let all = group.members.iter();
        let all = all.filter_map(|member| self.recipients.get(*member));
        let recipients: Vec<&Recipient> = all.filter(|recipient| !recipient.removed).collect();
        if recipients.is_empty() {
            return Ok(None);
        }
        let is_same_recipients = recipients.len() == group.members.len()
            && recipients.iter().all(|recipient| !recipient.added);
        let only = match recipients.as_slice() {
            [only] => Some(only.address.as_str()),
            _ => None,
        };
        let view = group.fate.version.as_ref().ok_or(Reply::LOCAL_ERROR)?;
        let view = self.seal(&view.view, &group.members, only).await?;
        let id = match number {
            0 => self.dialog.id.clone(),
            _ => format!("{}-{}", self.dialog.id, number + 1),
        };
        Ok(Some(Copy {
            envelope: self.envelope(group, &recipients),
            view,
            hold: group.fate.hold.clone(),
            id,
            is_same_recipients,
        }))
    }

    /// `view` with this pass's trace fields. `only`: the recipient, if this copy is for nobody else.
    async fn seal(
        &self,
        view: &View,
        members: &[usize],
        only: Option<&str>,
    ) -> Result<View, Reply> {
        let (dialog, edge) = (self.dialog, &self.origin.edge);
        let called = self.traced.calls.of(members);
        let pass = Pass {
            tracer: &edge.tracer,
            agents: &self.traced.routing.agents,
            id: &dialog.id,
            first_octets: &self.traced.first_octets,
            believed: edge.may_relay(dialog.client.ip(), dialog.auth.is_some()),
            may_bypass: edge.tracer.may_bypass_in(dialog),
            parameters: dialog.mail_parameters(),
            ran: &called.ran,
            bypassed: &called.bypassed,
            received: received(self.origin, dialog, only),
        };
        let sealed = seal(view, &pass).await.map_err(|error| unsealed(&error))?;
        if sealed.restored || sealed.forged > 0 {
            tracing::warn!(session_id = dialog.id, services = ?called.ran, "trace fields were not as the edge wrote them");
        }
        edge.metrics.trace.count_repairs(&sealed);
        self.request_counted
            .call_once(|| edge.metrics.trace.count_request(&sealed));
        Ok(sealed.view)
    }

    /// The envelope as the client gave it, with what the services changed.
    fn envelope(&self, group: &Group, recipients: &[&Recipient]) -> Envelope {
        let dialog = self.dialog;
        let sender = dialog.mail_from.clone().unwrap_or_default();
        let recipients = recipients.iter().map(|recipient| opes_spool::Recipient {
            address: recipient.address.clone(),
            params: recipient.parameters.clone(),
            next_hop: recipient.next_hop.clone(),
        });
        Envelope {
            reverse_path: group.fate.sender.clone().unwrap_or(sender.address),
            mail_params: sender.parameters,
            recipients: recipients.collect(),
            received_at_ms: self.origin.edge.host.clock.epoch_ms(),
            session_id: dialog.id.clone(),
            body_8bit: self.origin.body_8bit,
            smtputf8: self.origin.smtputf8,
            client: dialog.client.ip().to_string(),
            helo: dialog.helo.clone().unwrap_or_default(),
            auth: dialog.auth.as_ref().map(|auth| auth.identity.clone()),
            ..Envelope::default()
        }
    }
}

impl Undo {
    fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.held.is_empty()
    }

    async fn take_back(self, edge: &Edge) {
        for queued in self.queued {
            let all: Vec<(u32, Settlement)> = queued
                .pending
                .iter()
                .map(|recipient| (*recipient, Settlement::Withdrawn))
                .collect();
            if let Err(error) = edge.spool.settle(&queued.id, &all).await {
                tracing::error!(queue_id = %queued.id, %error, "message refused after all may still be delivered after a restart");
            }
        }
        for taken in self.held {
            if let Err(error) = taken.withdraw().await {
                let error = format!("{error:#}");
                tracing::error!(error, "message refused after all stays in the quarantine");
            }
        }
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

fn unsealed(error: &SealError) -> Reply {
    match error {
        SealError::Looping => Reply::ROUTING_LOOP,
        SealError::Content(error) => content_reply(error),
        SealError::Rope(error) => {
            opes_telemetry::bug!("trace fields cannot be spliced in", %error);
            Reply::LOCAL_ERROR
        }
    }
}

fn spool_reply(error: &SpoolError) -> Reply {
    if error.is_full() {
        Reply::INSUFFICIENT_STORAGE
    } else {
        Reply::LOCAL_ERROR
    }
}
