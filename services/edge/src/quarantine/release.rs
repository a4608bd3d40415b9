//! Released messages: into the spool, then, when the store agrees, to the relay.
//!
//! Each step is durable before the next: the store has begun the release → the message is in the spool, with the release's id, and
//! withheld from the relay → the store decides (*released* or *cancelled*) → the relay delivers, or the message is withdrawn.
//! After a crash the spool says which releases were stored and the store which were decided, so each goes on where it was.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opes_content::{Budget, Limits, View};
use opes_host::Clock;
use opes_spool::{Queued, Settlement, Spool};
use tokio::sync::Mutex;

use super::metrics::QuarantineMetrics;
use super::{Fate, Quarantine, Release};

/// How often what was left unfinished is tried again; the pause doubles while the store is away.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// What a release needs of its edge.
pub(crate) struct Parts {
    pub(crate) edge: String,
    pub(crate) store: Arc<dyn Quarantine>,
    pub(crate) spool: Spool,
    pub(crate) budget: Budget,
    pub(crate) limits: Arc<Limits>,
    pub(crate) clock: Clock,
    pub(crate) deliver: Box<dyn Fn(Queued) + Send + Sync>,
    pub(crate) metrics: QuarantineMetrics,
}

/// Releases of one edge, one after the other. Clones share it.
#[derive(Clone)]
pub struct Releases(Arc<Shared>);

struct Shared {
    parts: Parts,
    state: Mutex<State>,
}

struct State {
    /// In the spool; the store has yet to decide.
    withheld: Vec<Queued>,
    /// Every release of ours that the store calls unfinished is in `withheld`.
    all_known: bool,
}

/// How a release that was begun ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The message is on its way.
    Released,
    /// It was cancelled meanwhile.
    Cancelled,
    /// This went wrong; the edge tries again until it is done.
    Pending(String),
}

impl Releases {
    /// `recovered` are the messages with a release that the spool had at the start.
    pub(crate) fn new(parts: Parts, recovered: Vec<Queued>) -> Self {
        let mut seen = HashSet::new();
        let (withheld, doubled): (Vec<_>, Vec<_>) = recovered
            .into_iter()
            .partition(|queued| seen.insert(queued.envelope.release.clone()));
        let shared = Arc::new(Shared {
            parts,
            state: Mutex::new(State {
                withheld,
                all_known: false,
            }),
        });
        if !doubled.is_empty() {
            // A store of the spool that failed, and was found after the crash all the same.
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                for queued in doubled {
                    shared.withdraw(&queued).await;
                }
            });
        }
        Self(shared)
    }

    /// Name of the edge that releases are begun for.
    pub fn edge(&self) -> &str {
        &self.0.parts.edge
    }

    /// Begins a release and sees it through. Goes on when the caller does not wait any more.
    pub async fn release<B, E>(&self, begin: B) -> Result<Outcome, E>
    where
        B: Future<Output = Result<Release, E>> + Send + 'static,
        E: Send + 'static,
    {
        let shared = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            // Held from the beginning: otherwise `retry` finds the release and stores it a second time.
            let mut state = shared.state.lock().await;
            let release = begin.await?;
            Ok(shared.see_through(&mut state, release).await)
        });
        task.await
            .unwrap_or_else(|error| Ok(Outcome::Pending(error.to_string())))
    }

    /// Goes on with what was left unfinished, until dropped.
    pub(crate) async fn run(self) {
        let mut pause = RETRY_MIN;
        loop {
            match self.retry().await {
                Ok(()) => pause = RETRY_MIN,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "releases wait for the quarantine store");
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    pub(crate) async fn retry(&self) -> Result<()> {
        let shared = &self.0;
        let mut state = shared.state.lock().await;
        let mut waiting = std::mem::take(&mut state.withheld).into_iter();
        while let Some(queued) = waiting.next() {
            if let Outcome::Pending(reason) = shared.decide(&mut state, queued).await {
                // The store is away for the others too.
                state.withheld.extend(waiting);
                anyhow::bail!(reason);
            }
        }
        if state.all_known {
            return Ok(());
        }
        let unfinished = shared.parts.store.unfinished(&shared.parts.edge).await?;
        state.all_known = true;
        for release in unfinished {
            let is_stored = |queued: &Queued| queued.envelope.release == release.id;
            if !state.withheld.iter().any(is_stored) {
                shared.see_through(&mut state, release).await;
            }
        }
        Ok(())
    }
}

impl Shared {
    async fn see_through(&self, state: &mut State, release: Release) -> Outcome {
        let id = release.id.clone();
        match self.store(release).await {
            Ok(queued) => self.decide(state, queued).await,
            Err(error) => {
                state.all_known = false;
                tracing::warn!(
                    release = id,
                    error = format!("{error:#}"),
                    "a released message cannot be spooled yet"
                );
                Outcome::Pending(format!("{error:#}"))
            }
        }
    }

    async fn store(&self, release: Release) -> Result<Queued> {
        let (mut writer, content) = opes_content::create(&self.parts.budget, &self.parts.limits);
        loop {
            let octets = (release.content)(writer.len_now()).await?;
            if octets.is_empty() {
                break;
            }
            writer.append(octets).await?;
        }
        writer.finish();
        let mut envelope = release.envelope;
        envelope.release = release.id;
        // The time in the queue begins now; it may have been held for weeks.
        envelope.received_at_ms = self.parts.clock.epoch_ms();
        let view = View::original(content);
        self.parts
            .spool
            .store(envelope, &view)
            .await
            .context("spool")
    }

    /// Only what the store calls released is delivered.
    async fn decide(&self, state: &mut State, queued: Queued) -> Outcome {
        let release = &queued.envelope.release;
        let outcome = match self.parts.store.finish(release).await {
            Ok(Fate::Deliver) => {
                (self.parts.deliver)(queued);
                Outcome::Released
            }
            Ok(Fate::Withdraw) => {
                self.withdraw(&queued).await;
                Outcome::Cancelled
            }
            Err(error) => {
                state.withheld.push(queued);
                Outcome::Pending(format!("{error:#}"))
            }
        };
        let waiting = i64::try_from(state.withheld.len()).unwrap_or(i64::MAX);
        self.parts.metrics.releases_waiting.set(waiting);
        outcome
    }

    async fn withdraw(&self, queued: &Queued) {
        let outcomes: Vec<_> = queued
            .pending
            .iter()
            .map(|recipient| (*recipient, Settlement::Withdrawn))
            .collect();
        if let Err(error) = self.parts.spool.settle(&queued.id, &outcomes).await {
            tracing::warn!(queue_id = %queued.id, %error, "a cancelled release stays in the spool until the next start");
        }
    }
}

#[cfg(test)]
mod tests;
