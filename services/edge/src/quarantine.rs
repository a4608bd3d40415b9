//! Held messages on their way to the quarantine store, and released ones on their way back.
//!
//! A message that is held becomes a pair of files here, `ID.eml` (octets as they would have been delivered) and `ID.json` (envelope and
//! reason), durable before the client is answered. [`handover`] gives the pair to the store and removes it afterwards, so mail
//! is taken at disk speed, and whatever happens to the store loses nothing. [`release`] is the way back. The edge links no
//! database: the program that embeds it gives it a [`Quarantine`]; without one the pairs stay where they are.

mod edge_id;
pub(crate) mod handover;
pub(crate) mod metrics;
mod pair;
pub(crate) mod release;

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use opes_content::View;
use opes_spool::{Envelope, Queued};
use serde::{Deserialize, Serialize};

pub(crate) use handover::{Handover, Taken};
pub use release::{Outcome, Releases};

use crate::edge::Edge;
use crate::engine::Hold;
use release::Parts;

/// A message that is held, without its octets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The name of the files; unique in this edge.
    #[serde(default)]
    pub id: String,
    /// For people.
    pub reason: String,
    /// Queue that the service named, such as `spam`; may be empty.
    pub queue: String,
    /// `namespace/name`; empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// `namespace/name`; empty for a rule's own action.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub held_at_ms: u64,
    /// As it would have been spooled.
    pub envelope: Envelope,
}

/// Gives octets of a held message from an offset on; no octets at its end.
pub type ReadContent = Box<dyn Fn(u64) -> BoxFuture<'static, Result<Bytes>> + Send + Sync>;

/// A release that the store has begun for this edge.
pub struct Release {
    /// Goes into the spool with the message, so that a restart can tell what was done.
    pub id: String,
    /// The original envelope with the released recipients.
    pub envelope: Envelope,
    /// The octets.
    pub content: ReadContent,
}

/// What becomes of a released message that is durable in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Deliver it.
    Deliver,
    /// Forget it: the release was cancelled.
    Withdraw,
}

/// The store of held messages, as an edge sees it. Every operation may be repeated.
pub trait Quarantine: Send + Sync {
    /// Takes a message over, durably; its octets are in the file `content`.
    fn hold<'a>(
        &'a self,
        edge: &'a str,
        held: &'a Held,
        content: &'a Path,
    ) -> BoxFuture<'a, Result<()>>;

    /// Releases that were begun for this edge and not decided.
    fn unfinished<'a>(&'a self, edge: &'a str) -> BoxFuture<'a, Result<Vec<Release>>>;

    /// Decides on a release whose message is durable in the spool of the edge.
    fn finish<'a>(&'a self, release: &'a str) -> BoxFuture<'a, Result<Fate>>;
}

/// Makes a held message durable. After an error nothing is left of it. The store gets it when the [`Taken`] is dropped.
pub(crate) async fn hold(
    handover: &Arc<Handover>,
    id: &str,
    envelope: &Envelope,
    view: &View,
    advice: &Hold,
) -> Result<Taken> {
    let held = Held {
        id: id.into(),
        reason: advice.reason.clone(),
        queue: advice.queue.clone(),
        rule: advice.rule.clone(),
        service: advice.service.clone(),
        held_at_ms: envelope.received_at_ms,
        envelope: envelope.clone(),
    };
    handover.take(&held, view).await
}

/// Gives a message to the store at once: what is here may be gone any moment. After an error the store may have it all the same.
pub(crate) async fn hold_now(
    handover: &Arc<Handover>,
    id: &str,
    envelope: &Envelope,
    view: &View,
    advice: &Hold,
) -> Result<()> {
    let taken = hold(handover, id, envelope, view, advice).await?;
    let given = handover.give_now(&taken).await;
    if given.is_err() {
        taken.withdraw().await?;
    }
    given
}

/// Hand-over and releases, until the edge drains. `withheld`: the released messages that the spool had.
pub(crate) fn start(
    edge: &Arc<Edge>,
    store: Arc<dyn Quarantine>,
    withheld: Vec<Queued>,
) -> Result<Releases> {
    let id = edge_id::edge_id(&edge.config.spool)?;
    if edge.config.quarantine.postgres.is_some() {
        edge.quarantine.may_give_now(&id, &store);
    }
    let relay = Arc::downgrade(edge);
    let parts = Parts {
        edge: id.clone(),
        store: Arc::clone(&store),
        spool: edge.spool.clone(),
        budget: edge.budget.clone(),
        limits: Arc::clone(&edge.content_limits),
        clock: edge.host.clock.clone(),
        // An edge that is gone leaves the message in its spool.
        deliver: Box::new(move |queued| {
            if let Some(edge) = relay.upgrade() {
                edge.relay.enqueue(queued);
            }
        }),
        metrics: edge.metrics.quarantine.clone(),
    };
    let releases = Releases::new(parts, withheld);
    let handover = Arc::clone(&edge.quarantine).run(id, store);
    let retries = releases.clone().run();
    let draining = edge.draining.clone();
    tokio::spawn(draining.clone().run_until_cancelled_owned(handover));
    tokio::spawn(draining.run_until_cancelled_owned(retries));
    Ok(releases)
}
