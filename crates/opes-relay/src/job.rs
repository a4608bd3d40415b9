//! One message for one destination, and the books about it: what is settled, what is told, what is tried again.

use std::sync::Arc;
use std::time::Duration;

use opes_smtp::reply::Reply;
use opes_spool::{Envelope, QueueId, Queued, Recipient, Settlement};
use tokio::sync::oneshot;

use crate::event::{DeliveryEvent, DeliveryOutcome};
use crate::lane::Target;
use crate::relay::Shared;
use crate::report;
use crate::source::Source;

/// A message, the recipients at one destination, and how often it was tried.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) source: Source,
    /// Indices into the envelope's recipients.
    pub(crate) recipients: Vec<u32>,
    pub(crate) target: Target,
    pub(crate) origin: Origin,
    /// To every recipient, or to nobody.
    pub(crate) all_or_none: bool,
}

/// Who is responsible for the message.
#[derive(Debug)]
pub(crate) enum Origin {
    /// We are.
    Spool {
        id: QueueId,
        attempts: u32,
        /// An earlier attempt, perhaps of an earlier process, may have delivered without getting to say so.
        suspect: bool,
    },
    /// The client that waits for these replies, in the order of the job's recipients.
    Client(oneshot::Sender<Vec<Reply>>),
}

/// What one attempt came to for one recipient.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) reply: Reply,
    /// Cause and remedy of a failure of our own.
    pub(crate) detail: Option<String>,
    /// Where it was delivered to.
    pub(crate) place: Option<String>,
    /// Who took it tells the sender of it (RFC 3461 §5.2.1).
    pub(crate) reports: bool,
}

/// What a verdict means for the recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    /// It will never be.
    Failed,
    /// Not this time. Also every refusal of a client's message in cut-through mode that is not for good.
    Again,
}

// === impl Verdict ===

impl Verdict {
    pub(crate) fn new(reply: Reply) -> Self {
        Self {
            reply,
            detail: None,
            place: None,
            reports: false,
        }
    }
}

// === impl Job ===

impl Job {
    /// The part of a stored message that goes to `target`.
    pub(crate) fn stored(
        queued: &Queued,
        target: Target,
        recipients: Vec<u32>,
        suspect: bool,
    ) -> Self {
        Self {
            envelope: Arc::clone(&queued.envelope),
            source: Source::Stored(queued.content.clone()),
            recipients,
            target,
            origin: Origin::Spool {
                id: queued.id,
                attempts: 0,
                suspect,
            },
            all_or_none: false,
        }
    }

    /// A client waits, and has not gone.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.origin, Origin::Client(_))
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(&self.origin, Origin::Client(answer) if answer.is_closed())
    }

    pub(crate) fn queue_id(&self) -> Option<QueueId> {
        match &self.origin {
            Origin::Spool { id, .. } => Some(*id),
            Origin::Client(_) => None,
        }
    }

    pub(crate) fn recipients(&self) -> impl Iterator<Item = &Recipient> {
        self.recipients
            .iter()
            .filter_map(|index| self.envelope.recipients.get(*index as usize))
    }

    /// Since the message was received.
    pub(crate) fn age(&self, shared: &Shared) -> Duration {
        let now = shared.config.host.clock.since_epoch();
        now.saturating_sub(Duration::from_millis(self.envelope.received_at_ms))
    }

    pub(crate) fn is_expired(&self, shared: &Shared) -> bool {
        !self.is_live() && self.age(shared) >= shared.config.retry.give_up_after
    }

    /// The same verdict for everybody.
    pub(crate) fn all(&self, verdict: &Verdict) -> Vec<Verdict> {
        vec![verdict.clone(); self.recipients.len()]
    }

    /// Closes the books on one attempt: settles in the spool first, then tells, then plans the next attempt.
    pub(crate) async fn finish(self, mut verdicts: Vec<Verdict>, shared: &Arc<Shared>) {
        let mut fates = self.fates(&verdicts, shared);
        if let Some(id) = self.queue_id() {
            self.record(&id, &mut verdicts, &mut fates, shared).await;
        }
        let again = self.again(&verdicts, &fates, shared);
        if again.is_none() && !self.is_live() {
            shared.closed_one();
        }
        let wait = again.as_ref().map(|again| again.wait);
        self.tell(&verdicts, &fates, wait, shared);
        match again {
            Some(again) => self.try_again(again, shared),
            None => self.answer(verdicts),
        }
    }

    fn fates(&self, verdicts: &[Verdict], shared: &Shared) -> Vec<Fate> {
        let expired = self.is_expired(shared);
        let fate = |verdict: &Verdict| match &verdict.reply {
            reply if reply.is_positive() => Fate::Delivered,
            reply if reply.is_permanent() || expired => Fate::Failed,
            _ => Fate::Again,
        };
        verdicts.iter().map(fate).collect()
    }

    /// Settles what is decided. Recipients that the sender is told of are settled by the report itself; all others first, since a
    /// report may have to wait for the disk.
    async fn record(
        &self,
        id: &QueueId,
        verdicts: &mut [Verdict],
        fates: &mut [Fate],
        shared: &Arc<Shared>,
    ) {
        let told = report::due(self, verdicts, fates, shared);
        self.settle(
            id,
            verdicts,
            fates,
            |place| !told.places.contains(&place),
            shared,
        )
        .await;
        if told.places.is_empty() {
            return;
        }
        let Err(error) = report::send(self, id, &told, verdicts, shared).await else {
            return;
        };
        let detail = format!("the report to the sender cannot be stored: {error}");
        tracing::error!(queue_id = %id, %error, "the report to a sender cannot be stored; its recipients are tried again");
        for place in &told.places {
            if let (Some(verdict), Some(fate @ Fate::Failed)) =
                (verdicts.get_mut(*place), fates.get_mut(*place))
            {
                *fate = Fate::Again;
                verdict.reply = Reply::LOCAL_ERROR;
                verdict.detail = Some(detail.clone());
            }
        }
        // What was delivered must not be delivered again, told or not.
        self.settle(
            id,
            verdicts,
            fates,
            |place| told.places.contains(&place),
            shared,
        )
        .await;
    }

    async fn settle(
        &self,
        id: &QueueId,
        verdicts: &[Verdict],
        fates: &[Fate],
        which: impl Fn(usize) -> bool,
        shared: &Shared,
    ) {
        let settlement =
            |(place, index): (usize, &u32)| match (fates.get(place)?, verdicts.get(place)?) {
                (Fate::Delivered, _) if which(place) => Some((*index, Settlement::Delivered)),
                (Fate::Failed, verdict) if which(place) => {
                    let reply = verdict.reply.to_string();
                    Some((*index, Settlement::Failed { reply }))
                }
                (Fate::Delivered | Fate::Failed | Fate::Again, _) => None,
            };
        let decided: Vec<_> = self
            .recipients
            .iter()
            .enumerate()
            .filter_map(settlement)
            .collect();
        if !decided.is_empty()
            && let Err(error) = shared.spool.settle(id, &decided).await
        {
            tracing::error!(queue_id = %id, %error, "an outcome is not recorded yet; after a crash now, the message would be delivered again");
        }
    }

    fn again(&self, verdicts: &[Verdict], fates: &[Fate], shared: &Shared) -> Option<Again> {
        let Origin::Spool { attempts, .. } = self.origin else {
            return None;
        };
        let both = self.recipients.iter().zip(fates);
        let left: Vec<u32> = both
            .filter(|(_, fate)| **fate == Fate::Again)
            .map(|(index, _)| *index)
            .collect();
        if left.is_empty() {
            return None;
        }
        // "Too many recipients", and some were taken: the rest is welcome in a transaction of its own.
        let at_once = verdicts.iter().any(|verdict| verdict.reply.is_positive())
            && verdicts.iter().all(|verdict| {
                !verdict.reply.is_transient() || asks_for_another_transaction(&verdict.reply)
            });
        let wait = if at_once {
            Duration::ZERO
        } else {
            shared
                .config
                .retry
                .message
                .delay(attempts + 1, shared.random())
        };
        Some(Again { wait, left })
    }

    fn try_again(mut self, again: Again, shared: &Arc<Shared>) {
        self.recipients = again.left;
        if let Origin::Spool {
            attempts, suspect, ..
        } = &mut self.origin
        {
            *attempts += 1;
            *suspect = true;
        }
        if again.wait.is_zero() {
            shared.push(self);
        } else {
            self.source.release_memory();
            shared.delayed.push(again.wait, self);
        }
    }

    fn answer(self, verdicts: Vec<Verdict>) {
        if let Origin::Client(answer) = self.origin {
            // A client that has gone does not wait for its replies any more.
            let _ = answer.send(verdicts.into_iter().map(|verdict| verdict.reply).collect());
        }
    }

    /// Tells that a stored message waits for its next hop. It stays where it is in the queue.
    pub(crate) fn tell_waiting(&self, reply: &Reply, wait: Duration, shared: &Shared) {
        if !self.is_live() && !self.is_expired(shared) {
            let verdicts = self.all(&Verdict::new(reply.clone()));
            let fates = vec![Fate::Again; verdicts.len()];
            self.tell(&verdicts, &fates, Some(wait), shared);
        }
    }

    fn tell(
        &self,
        verdicts: &[Verdict],
        fates: &[Fate],
        next_attempt: Option<Duration>,
        shared: &Shared,
    ) {
        let elapsed = self.age(shared);
        for (recipient, (verdict, fate)) in self.recipients().zip(verdicts.iter().zip(fates)) {
            let event = DeliveryEvent {
                queue_id: self.queue_id(),
                session_id: self.envelope.session_id.clone(),
                envelope: Arc::clone(&self.envelope),
                recipient: recipient.address.clone(),
                outcome: outcome(verdict, *fate, next_attempt, &self.target),
                elapsed,
            };
            log(&event);
            (shared.config.on_event)(&event);
        }
    }
}

struct Again {
    wait: Duration,
    left: Vec<u32>,
}

fn asks_for_another_transaction(reply: &Reply) -> bool {
    reply.code() == Reply::TOO_MANY_RECIPIENTS.code()
}

fn outcome(
    verdict: &Verdict,
    fate: Fate,
    next_attempt: Option<Duration>,
    target: &Target,
) -> DeliveryOutcome {
    let reply = verdict.reply.clone();
    let detail = verdict.detail.clone();
    match fate {
        Fate::Delivered => {
            let place = verdict.place.clone().unwrap_or_else(|| target.to_string());
            DeliveryOutcome::Delivered { place, reply }
        }
        Fate::Failed => DeliveryOutcome::Failed { reply, detail },
        Fate::Again => DeliveryOutcome::Deferred {
            reply,
            detail,
            next_attempt,
        },
    }
}

/// Addresses are for debugging only; the queue id finds them.
fn log(event: &DeliveryEvent) {
    let queue_id = event.queue_id.map(|id| id.to_string()).unwrap_or_default();
    let (recipient, outcome) = (&event.recipient, &event.outcome);
    match outcome {
        DeliveryOutcome::Delivered { .. } => {
            tracing::debug!(queue_id, recipient, %outcome, "delivered");
        }
        DeliveryOutcome::Deferred { next_attempt, .. } => {
            tracing::info!(queue_id, session_id = event.session_id, %outcome, ?next_attempt, "delivery deferred");
        }
        DeliveryOutcome::Failed { .. } => {
            tracing::warn!(queue_id, session_id = event.session_id, %outcome, "delivery failed for good");
        }
    }
}
