//! When the table on disk is read, written and confirmed. One operation at a time, none of them waited for but the first.

use std::path::PathBuf;
use std::time::Duration;

use opes_proto::routing::Endpoints;
use tokio::task::JoinHandle;

use crate::cache::{Cache, CacheError, Cached};
use crate::choice::Offer;

/// Between two writes because services have moved.
const MOVED_INTERVAL: Duration = Duration::from_secs(10);

/// How often the file is marked as confirmed.
const CONFIRM_INTERVAL: Duration = Duration::from_mins(1);

/// Times that the table on disk is tried at the start. More than one, because an operator may interrupt with one that is refused.
const TRIES_MAX: u32 = 3;

pub(super) struct Disk {
    cache: Option<Cache>,
    patience: Duration,
    tries: u32,
    /// The revision that was read from it, until an operator confirms it.
    unconfirmed: Option<String>,
    working: Option<JoinHandle<()>>,
    /// The table, or only its endpoints, is not on disk yet.
    table_due: bool,
    endpoints_due: bool,
    stored_at: Option<Duration>,
    confirmed_at: Option<Duration>,
}

// === impl Disk ===

impl Disk {
    pub(super) fn new(folder: Option<PathBuf>, patience: Duration) -> Self {
        Self {
            cache: folder.map(Cache::new),
            patience,
            tries: 0,
            unconfirmed: None,
            working: None,
            table_due: false,
            endpoints_due: false,
            stored_at: None,
            confirmed_at: None,
        }
    }

    /// What is there, once the operators had their time.
    pub(super) async fn begin(&mut self, now: Duration) -> Option<Cached> {
        let cache = self.cache.clone()?;
        if now < self.patience || self.tries >= TRIES_MAX {
            return None;
        }
        self.tries += 1;
        let read = tokio::task::spawn_blocking(move || cache.load()).await;
        match read {
            Ok(Ok(Some(cached))) => {
                tracing::warn!(
                    revision = cached.table.revision,
                    age_seconds = cached.age.as_secs(),
                    "no operator has a table for us; the last good one is used"
                );
                self.unconfirmed = Some(cached.table.revision.clone());
                return Some(cached);
            }
            Ok(Ok(None)) => tracing::info!("no routing table was ever kept on disk"),
            Ok(Err(error)) => tracing::error!(%error, "no routing table from disk"),
            Err(error) => tracing::error!(%error, "no routing table from disk"),
        }
        self.tries = TRIES_MAX;
        None
    }

    /// It was read here, and no operator has said it since.
    pub(super) fn is_from_disk(&self, revision: &str) -> bool {
        self.unconfirmed.as_deref() == Some(revision)
    }

    /// What was read here cannot be run; false: it was not read here.
    pub(super) fn give_up(&mut self, revision: &str) -> bool {
        let ours = self.is_from_disk(revision);
        if ours {
            self.tries = TRIES_MAX;
            self.unconfirmed = None;
        }
        ours
    }

    pub(super) fn confirmed(&mut self) {
        self.unconfirmed = None;
    }

    pub(super) fn table_changed(&mut self) {
        self.table_due = true;
    }

    pub(super) fn endpoints_changed(&mut self) {
        self.endpoints_due = true;
    }

    /// Writes what is in force, if that is due.
    pub(super) fn keep(&mut self, now: Duration, offer: &Offer, endpoints: &Endpoints) {
        let often = |at: Duration| now.saturating_sub(at) < MOVED_INTERVAL;
        let moved = self.endpoints_due && !self.stored_at.is_some_and(often);
        let due = self.table_due || moved;
        let Some(cache) = self.cache.clone() else {
            return;
        };
        if !due || self.is_from_disk(&offer.revision) || self.is_working() {
            return;
        }
        (self.table_due, self.endpoints_due) = (false, false);
        (self.stored_at, self.confirmed_at) = (Some(now), Some(now));
        let (offer, endpoints) = (offer.clone(), endpoints.clone());
        self.work(move || cache.store(&offer.table(&endpoints)));
    }

    /// Marks the file, now and then.
    pub(super) fn confirm(&mut self, now: Duration) {
        let Some(cache) = self.cache.clone() else {
            return;
        };
        let often = |at: Duration| now.saturating_sub(at) < CONFIRM_INTERVAL;
        if self.table_due || self.confirmed_at.is_some_and(often) || self.is_working() {
            return;
        }
        self.confirmed_at = Some(now);
        self.work(move || cache.confirm());
    }

    fn is_working(&self) -> bool {
        let working = self.working.as_ref();
        working.is_some_and(|task| !task.is_finished())
    }

    fn work(&mut self, work: impl FnOnce() -> Result<(), CacheError> + Send + 'static) {
        self.working = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = work() {
                tracing::error!(%error, "the routing table is not kept on disk; a restart needs an operator");
            }
        }));
    }
}
