//! From the folder of pairs to the store, in the background.
//!
//! The folder is a queue with a limit: when the store is away for so long that it is full, held messages are answered 452.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use opes_content::View;
use opes_spool::Files;
use tokio::sync::Notify;

use super::metrics::QuarantineMetrics;
use super::pair::{Pair, scan, sync};
use super::{Held, Quarantine};

/// Most messages that wait for the store.
pub(crate) const WAITING_MAX: i64 = 100_000;

/// Pairs that one round looks at.
const ROUND_MAX: usize = 1024;

/// After so many failures one after the other the store is taken to be away.
const FAILURES_MAX: u32 = 3;

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// The folder, and what waits there.
#[derive(Debug)]
pub(crate) struct Handover {
    /// A store that outlives this machine.
    shared: OnceLock<Shared>,
    folder: PathBuf,
    files: Files,
    metrics: QuarantineMetrics,
    more: Notify,
    /// Taken, and their clients not answered yet.
    undecided: Mutex<HashSet<String>>,
}

/// Our name there, and the store.
struct Shared(String, Arc<dyn Quarantine>);

/// A message that was taken, until its client is answered. Dropping it lets the message go to the store.
#[derive(Debug)]
pub(crate) struct Taken {
    id: String,
    handover: Arc<Handover>,
}

/// How a round went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Nothing is left.
    Empty,
    /// Something was handed over, and there may be more.
    Progress,
    /// Nothing could be handed over.
    Stuck,
}

impl Handover {
    /// Removes halves that a crash left. Call it before anything is held.
    pub(crate) fn open(folder: PathBuf, files: Files, metrics: QuarantineMetrics) -> Result<Self> {
        let waiting = scan(&folder, usize::MAX, true)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .len();
        metrics
            .waiting
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        Ok(Self {
            shared: OnceLock::new(),
            folder,
            files,
            metrics,
            more: Notify::new(),
            undecided: Mutex::default(),
        })
    }

    pub(super) fn may_give_now(&self, edge: &str, store: &Arc<dyn Quarantine>) {
        // Set once, when the edge starts.
        let _again = self.shared.set(Shared(edge.to_owned(), Arc::clone(store)));
    }

    /// To the store, while the client waits.
    pub(super) async fn give_now(&self, taken: &Taken) -> Result<()> {
        let Shared(edge, store) = self.shared.get().context(
            "no quarantine outlives this machine: set quarantine.postgres and quarantine.s3",
        )?;
        self.give(edge, &taken.id, store.as_ref()).await
    }

    /// Writes the pair.
    pub(super) async fn take(self: &Arc<Self>, held: &Held, view: &View) -> Result<Taken> {
        ensure!(
            self.metrics.waiting.get() < WAITING_MAX,
            "{WAITING_MAX} held messages wait for the quarantine store in {}",
            self.folder.display()
        );
        self.make_folder().await?;
        self.undecided().insert(held.id.clone());
        let taken = Taken {
            id: held.id.clone(),
            handover: Arc::clone(self),
        };
        let pair = Pair::of(&self.folder, &held.id);
        if let Err(error) = pair.write(&self.files, &self.folder, held, view).await {
            pair.clear(&self.files, &self.folder, &held.id).await;
            return Err(error);
        }
        self.metrics.waiting.inc();
        Ok(taken)
    }

    /// Held for moments.
    fn undecided(&self) -> MutexGuard<'_, HashSet<String>> {
        self.undecided
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The first message makes the folder, which must not vanish either.
    async fn make_folder(&self) -> Result<()> {
        if self.folder.is_dir() {
            return Ok(());
        }
        self.files
            .make_dir(&self.folder)
            .await
            .with_context(|| format!("cannot make {}", self.folder.display()))?;
        match self.folder.parent() {
            Some(parent) => sync(&self.files, parent).await,
            None => Ok(()),
        }
    }

    /// Hands over until dropped.
    pub(crate) async fn run(self: Arc<Self>, edge: String, store: Arc<dyn Quarantine>) {
        let mut failed = HashMap::new();
        let mut pause = RETRY_MIN;
        loop {
            match self.round(&edge, store.as_ref(), &mut failed).await {
                Round::Progress => pause = RETRY_MIN,
                Round::Empty => {
                    pause = RETRY_MIN;
                    self.more.notified().await;
                }
                Round::Stuck => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Those that failed least come first, so that one bad message does not hold the others.
    async fn round(
        &self,
        edge: &str,
        store: &dyn Quarantine,
        failed: &mut HashMap<String, u32>,
    ) -> Round {
        let mut ids = self.waiting().await;
        failed.retain(|id, _| ids.binary_search(id).is_ok());
        ids.sort_by_key(|id| failed.get(id).copied().unwrap_or(0));
        let (mut progress, mut in_a_row) = (false, 0);
        let empty = ids.is_empty();
        for id in ids {
            match self.give(edge, &id, store).await {
                Ok(()) => (progress, in_a_row) = (true, 0),
                Err(error) => {
                    self.metrics.handover_failures.inc();
                    tracing::warn!(
                        held = id,
                        error = format!("{error:#}"),
                        "held message not yet in the quarantine store"
                    );
                    *failed.entry(id).or_default() += 1;
                    in_a_row += 1;
                }
            }
            if in_a_row >= FAILURES_MAX {
                break;
            }
        }
        match (empty, progress) {
            (true, _) => Round::Empty,
            (false, true) => Round::Progress,
            (false, false) => Round::Stuck,
        }
    }

    async fn waiting(&self) -> Vec<String> {
        let folder = self.folder.clone();
        let found = tokio::task::spawn_blocking(move || scan(&folder, ROUND_MAX, false))
            .await
            .map_err(std::io::Error::other)
            .flatten();
        let mut ids = found.unwrap_or_else(|error| {
            tracing::error!(folder = %self.folder.display(), %error, "held messages cannot be listed");
            Vec::new()
        });
        // After the scan: whoever writes a pair stands here before its first file does.
        let undecided = self.undecided();
        ids.retain(|id| !undecided.contains(id));
        ids
    }

    async fn give(&self, edge: &str, id: &str, store: &dyn Quarantine) -> Result<()> {
        let pair = Pair::of(&self.folder, id);
        if !pair.exists().await {
            // Taken back just now.
            return Ok(());
        }
        let mut held = match pair.read().await {
            Ok(held) => held,
            Err(error) => {
                tracing::error!(
                    held = id,
                    error = format!("{error:#}"),
                    "the envelope of a held message is damaged; the files stay"
                );
                pair.set_aside().await?;
                self.metrics.waiting.dec();
                return Ok(());
            }
        };
        // Of a version that did not write it.
        if held.id.is_empty() {
            held.id = id.into();
        }
        if held.held_at_ms == 0 {
            held.held_at_ms = held.envelope.received_at_ms;
        }
        store.hold(edge, &held, &pair.content).await?;
        pair.remove(&self.files).await?;
        self.metrics.waiting.dec();
        Ok(())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.0).finish()
    }
}

impl Taken {
    /// Takes the message back: its client is not told 250 after all.
    pub(crate) async fn withdraw(self) -> Result<()> {
        let Handover { folder, files, .. } = &*self.handover;
        Pair::of(folder, &self.id)
            .remove(files)
            .await
            .with_context(|| format!("cannot remove {} from {}", self.id, folder.display()))?;
        self.handover.metrics.waiting.dec();
        sync(files, folder).await
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.handover.undecided().remove(&self.id);
        self.handover.more.notify_one();
    }
}

#[cfg(test)]
mod tests;
