//! One message for one destination, and the books about it: what is settled, what is told, what is tried again.

use std::sync::Arc;
use std::time::Duration;

use opes_smtp::reply::Reply;
use opes_spool::{Envelope, QueueId, Queued, Recipient, Settlement};
use tokio::sync::oneshot;

use crate::event::{DeliveryEvent, DeliveryOutcome};
use crate::lane::Target;
use crate::relay::Shared;
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
}

// === impl Verdict ===

impl Verdict {
    pub(crate) fn new(reply: Reply) -> Self {
        Self {
            reply,
            detail: None,
            place: None,
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
    pub(crate) async fn finish(self, verdicts: Vec<Verdict>, shared: &Arc<Shared>) {
        let decided = self.decided(&verdicts, shared);
        if let (Some(id), false) = (self.queue_id(), decided.is_empty()) {
            settle(&id, &decided, shared).await;
        }
        let again = self.again(&verdicts, &decided, shared);
        if again.is_none() && !self.is_live() {
            shared.closed_one();
        }
        self.tell(&verdicts, again.as_ref().map(|again| again.wait), shared);
        match again {
            Some(again) => self.try_again(again, shared),
            None => self.answer(verdicts),
        }
    }

    /// Recipients that need no more work. Those of a client are its business.
    fn decided(&self, verdicts: &[Verdict], shared: &Shared) -> Vec<(u32, Settlement)> {
        let expired = self.is_expired(shared);
        let settlement = |verdict: &Verdict| match &verdict.reply {
            reply if reply.is_positive() => Some(Settlement::Delivered),
            reply if reply.is_permanent() || expired => Some(Settlement::Failed {
                reply: reply.to_string(),
            }),
            _ => None,
        };
        let both = self.recipients.iter().zip(verdicts);
        both.filter_map(|(index, verdict)| Some((*index, settlement(verdict)?)))
            .collect()
    }

    fn again(
        &self,
        verdicts: &[Verdict],
        decided: &[(u32, Settlement)],
        shared: &Shared,
    ) -> Option<Again> {
        let Origin::Spool { attempts, .. } = self.origin else {
            return None;
        };
        if decided.len() == self.recipients.len() {
            return None;
        }
        let is_left = |index: &u32| !decided.iter().any(|(settled, _)| settled == index);
        let left = self.recipients.iter().copied().filter(is_left).collect();
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
            self.tell(&self.all(&Verdict::new(reply.clone())), Some(wait), shared);
        }
    }

    fn tell(&self, verdicts: &[Verdict], next_attempt: Option<Duration>, shared: &Shared) {
        let expired = self.is_expired(shared);
        let elapsed = self.age(shared);
        for (recipient, verdict) in self.recipients().zip(verdicts) {
            let event = DeliveryEvent {
                queue_id: self.queue_id(),
                session_id: self.envelope.session_id.clone(),
                recipient: recipient.address.clone(),
                outcome: outcome(verdict, expired, next_attempt, &self.target),
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

async fn settle(id: &QueueId, decided: &[(u32, Settlement)], shared: &Shared) {
    if let Err(error) = shared.spool.settle(id, decided).await {
        tracing::error!(queue_id = %id, %error, "an outcome is not recorded yet; after a crash now, the message would be delivered again");
    }
}

fn asks_for_another_transaction(reply: &Reply) -> bool {
    reply.code() == Reply::TOO_MANY_RECIPIENTS.code()
}

fn outcome(
    verdict: &Verdict,
    expired: bool,
    next_attempt: Option<Duration>,
    target: &Target,
) -> DeliveryOutcome {
    let reply = verdict.reply.clone();
    let detail = verdict.detail.clone();
    if reply.is_positive() {
        let place = verdict.place.clone().unwrap_or_else(|| target.to_string());
        DeliveryOutcome::Delivered { place, reply }
    } else if reply.is_permanent() || expired {
        DeliveryOutcome::Failed { reply, detail }
    } else {
        DeliveryOutcome::Deferred {
            reply,
            detail,
            next_attempt,
        }
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
            tracing::error!(queue_id, session_id = event.session_id, %outcome, "delivery failed for good; the sender is not told by this version");
        }
    }
}
