//! The handle: store, settle, health.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use opes_content::{Budget, ContentError, FILE_READ_OCTETS_MAX, View};
use opes_host::Clock;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::disk::{Disk, SystemDisk};
use crate::health::Health;
use crate::id::Ids;
use crate::index::Index;
use crate::own_file::{OwnFile, own_file_path};
use crate::queue::{Job, Queue, Settle, Store};
use crate::queued::{Kept, Receipt};
use crate::record::Prepared;
use crate::segment::{SEGMENT_HEADER_OCTETS, segment_path};
use crate::tail::Tail;
use crate::{Envelope, Files, QueueId, Queued, Settlement, SpoolError, StoredContent};

/// Octets of contents that are read back from temporary files to be put into segments at the same time.
const LOADING_OCTETS_MAX: u32 = 16 * 1024 * 1024;

/// A semaphore permit stands for this many octets.
const LOADING_UNIT: u32 = 1024;

/// Longest reply text kept with a failed recipient, octets; five times the 512 of RFC 5321 §4.5.3.1.5.
const REPLY_OCTETS_MAX: usize = 2560;

/// How a spool uses its disk and memory.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// Size of a segment file, reserved at once.
    pub segment_octets: u64,
    /// Contents above this get a file of their own; at most a quarter of a segment is used.
    pub own_file_octets: u64,
    /// Space on the volume that new segments and own files must leave free.
    pub reserve_octets: u64,
    /// Content of stored messages that may stay in memory for immediate delivery, over all messages.
    pub kept_octets: u64,
    /// Longest time after which a settlement is on disk, when no commit takes it there before.
    pub settle_sync: Duration,
    /// What is written to.
    pub disk: Arc<dyn Disk>,
    /// For queue ids.
    pub clock: Clock,
}

/// Counters since the spool was opened, and what is in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages made durable.
    pub stored: u64,
    /// `fdatasync` calls on segments.
    pub commits: u64,
    /// Octets written to segments.
    pub written_octets: u64,
    /// Messages with recipients that are not settled.
    pub live_messages: u64,
    /// Octets of their records.
    pub live_octets: u64,
}

/// A durable spool in one directory. Clones share it; when the last one goes, what waits is written, and the directory is free for
/// another process.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
    _thread: Arc<Thread>,
}

/// Closes the queue and waits for the writer when the last handle goes.
struct Thread {
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

/// What handles, messages and the writer thread have in common.
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) config: SpoolConfig,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) queue: Queue<Job>,
    pub(crate) settles: Queue<Settle>,
    pub(crate) health: Health,
    pub(crate) counters: Counters,
    ids: Ids,
    tail: Mutex<Tail>,
    index: Mutex<Index>,
    kept: Budget,
    loading: Semaphore,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) stored: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) written_octets: AtomicU64,
}

// === impl SpoolConfig ===

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            segment_octets: 64 * 1024 * 1024,
            own_file_octets: 1024 * 1024,
            reserve_octets: 64 * 1024 * 1024,
            kept_octets: 32 * 1024 * 1024,
            settle_sync: Duration::from_secs(1),
            disk: Arc::new(SystemDisk),
            clock: Clock::System,
        }
    }
}

impl SpoolConfig {
    /// Room that is kept in a segment for settlements when a full disk forbids a new one.
    pub(crate) fn settle_reserve(&self) -> u64 {
        (self.segment_octets / 16).min(64 * 1024)
    }

    /// Largest record.
    fn record_max(&self) -> u64 {
        self.segment_octets
            .saturating_sub(SEGMENT_HEADER_OCTETS + self.settle_reserve())
    }

    fn inline_max(&self) -> u64 {
        self.own_file_octets.min(self.segment_octets / 4)
    }
}

// === impl Spool ===

impl Spool {
    /// `handle`: of the writer, if it is a thread.
    pub(crate) fn new(shared: Arc<Shared>, handle: Option<JoinHandle<()>>) -> Self {
        let thread = Thread {
            shared: Arc::clone(&shared),
            handle,
        };
        Self {
            shared,
            _thread: Arc::new(thread),
        }
    }

    /// Makes a message durable. After `Ok` it survives `kill -9` and power cuts, and the caller owns its delivery. Waits for the
    /// end of the content if it still grows. A future that is dropped before it is ready leaves no message behind.
    pub async fn store(&self, envelope: Envelope, view: &View) -> Result<Queued, SpoolError> {
        if envelope.recipients.is_empty() {
            return Err(SpoolError::NoRecipients);
        }
        if !view.content().wait_complete().await {
            return Err(ContentError::Aborted.into());
        }
        let (reply, answer) = oneshot::channel();
        let store = self.prepare(envelope, view, reply).await?;
        self.commit(store, answer).await
    }

    /// As [`Spool::store`], for a message of our own that is in memory already: reports and notifications. They are small, and
    /// always kept in the log itself. With [`Envelope::reports_on`] the recipients named there are settled by the same write.
    pub async fn store_octets(
        &self,
        envelope: Envelope,
        octets: Bytes,
    ) -> Result<Queued, SpoolError> {
        if envelope.recipients.is_empty() {
            return Err(SpoolError::NoRecipients);
        }
        let (reply, answer) = oneshot::channel();
        let (id, json) = (self.shared.ids.next(), to_json(&envelope));
        let len = octets.len() as u64;
        let slices = vec![octets];
        let kept = self.shared.keep(&slices, len);
        let store = Store {
            record: Prepared::message(id, &json, slices),
            queued: self.queued(id, envelope, len, kept),
            own_file: None,
            reply,
        };
        self.commit(store, answer).await
    }

    async fn commit(
        &self,
        store: Store,
        answer: oneshot::Receiver<Result<Receipt, SpoolError>>,
    ) -> Result<Queued, SpoolError> {
        self.check_size(store.record.octets())?;
        self.shared.queue.push(Job::Store(Box::new(store)))?;
        let receipt = answer.await.map_err(|_| SpoolError::Closed)??;
        receipt.claim().ok_or(SpoolError::Closed)
    }

    fn queued(&self, id: QueueId, envelope: Envelope, len: u64, kept: Option<Arc<Kept>>) -> Queued {
        Queued {
            id,
            pending: (0..).take(envelope.recipients.len()).collect(),
            envelope: Arc::new(envelope),
            content: StoredContent::new(id, len, kept, Arc::clone(&self.shared)),
        }
    }

    async fn prepare(
        &self,
        envelope: Envelope,
        view: &View,
        reply: oneshot::Sender<Result<Receipt, SpoolError>>,
    ) -> Result<Store, SpoolError> {
        let shared = &self.shared;
        let id = shared.ids.next();
        let json = to_json(&envelope);
        let len = view.len().unwrap_or_else(|| view.content().len_now());
        let (record, own_file, kept) = if len > shared.config.inline_max() {
            let file = OwnFile::write(shared, &id, view, len).await?;
            let record = Prepared::message_with_own_file(id, &json, len);
            (record, Some(file), None)
        } else {
            let (slices, _loading) = self.slices(view, len).await?;
            let kept = shared.keep(&slices, len);
            (Prepared::message(id, &json, slices), None, kept)
        };
        Ok(Store {
            record,
            queued: self.queued(id, envelope, len, kept),
            own_file,
            reply,
        })
    }

    /// The content as slices, from memory if it is there. What must be read back from a file is counted.
    async fn slices(
        &self,
        view: &View,
        len: u64,
    ) -> Result<(Vec<Bytes>, Option<SemaphorePermit<'_>>), SpoolError> {
        if let Some(slices) = view.slices_in_memory() {
            return Ok((slices, None));
        }
        let units = u32::try_from(len).unwrap_or(u32::MAX) / LOADING_UNIT + 1;
        let units = units.min(LOADING_OCTETS_MAX / LOADING_UNIT);
        let loading = self.shared.loading.acquire_many(units).await;
        let loading = loading.map_err(|_| SpoolError::Closed)?;
        let mut slices = Vec::new();
        let mut offset = 0;
        while offset < len {
            let octets = view.read_at(offset, FILE_READ_OCTETS_MAX).await?;
            if octets.is_empty() {
                return Err(ContentError::OutOfRange { offset, len }.into());
            }
            offset += octets.len() as u64;
            slices.push(octets);
        }
        Ok((slices, Some(loading)))
    }

    /// Records that recipients of `id` need no more work; they are not offered again after a crash of the program, and after a power
    /// cut once [`SpoolConfig::settle_sync`] has passed. When all recipients are settled, the message is forgotten.
    /// Settling twice is no error. After an error the spool still knows, and writes it down as soon as it can.
    pub async fn settle(
        &self,
        id: &QueueId,
        outcomes: &[(u32, Settlement)],
    ) -> Result<(), SpoolError> {
        let (reply, answer) = oneshot::channel();
        let settle = settle_job(*id, outcomes, Some(reply));
        self.check_size(settle.record.octets())?;
        self.shared.settles.push(settle)?;
        answer.await.map_err(|_| SpoolError::Closed)?
    }

    /// Why messages cannot be stored at present, in words for a 4xx reply; `None` = they can. Costs one load.
    pub fn unhealthy_reason(&self) -> Option<&'static str> {
        self.shared.health.reason()
    }

    /// For other files of the program that must survive what the spool survives.
    pub fn files(&self) -> Files {
        Files::on(Arc::clone(&self.shared.disk))
    }

    /// Counters for metrics.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let (live_messages, live_octets) = {
            let index = self.shared.index();
            (index.len() as u64, index.live_octets())
        };
        Stats {
            stored: counters.stored.load(Ordering::Relaxed),
            commits: counters.commits.load(Ordering::Relaxed),
            written_octets: counters.written_octets.load(Ordering::Relaxed),
            live_messages,
            live_octets,
        }
    }

    fn check_size(&self, octets: u64) -> Result<(), SpoolError> {
        let max = self.shared.config.record_max();
        if octets > max {
            return Err(SpoolError::RecordTooLarge { octets, max });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("dir", &self.shared.dir)
            .finish_non_exhaustive()
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(handle) = self.handle.take()
            && handle.join().is_err()
        {
            tracing::error!("the spool's writer thread has panicked");
            self.shared.settles.close();
        }
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(dir: &Path, config: SpoolConfig, first_segment: u64, index: Index) -> Self {
        Self {
            dir: dir.to_owned(),
            disk: Arc::clone(&config.disk),
            queue: Queue::new(),
            settles: Queue::new(),
            tail: Mutex::default(),
            health: Health::default(),
            counters: Counters::default(),
            ids: Ids::new(config.clock.clone(), first_segment),
            index: Mutex::new(index),
            kept: Budget::new(config.kept_octets),
            loading: Semaphore::new((LOADING_OCTETS_MAX / LOADING_UNIT) as usize),
            config,
        }
    }

    /// Held while records are written into the page cache, never across a sync. Locked before the index.
    pub(crate) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held for moments, never across I/O.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count_written(&self, octets: u64) {
        let written = &self.counters.written_octets;
        written.fetch_add(octets, Ordering::Relaxed);
    }

    pub(crate) fn segment_path(&self, number: u64) -> PathBuf {
        segment_path(&self.dir, number)
    }

    pub(crate) fn own_file_path(&self, id: &QueueId) -> PathBuf {
        own_file_path(&self.dir, id)
    }

    pub(crate) fn create_own_file(&self, path: &Path, len: u64) -> Result<File, SpoolError> {
        self.check_space(len)?;
        self.disk.create(path, len).map_err(SpoolError::write(path))
    }

    /// Is there room for `octets` more, and the reserve?
    pub(crate) fn check_space(&self, octets: u64) -> Result<(), SpoolError> {
        let needed = octets.saturating_add(self.config.reserve_octets);
        let free = self
            .disk
            .free_octets(&self.dir)
            .map_err(SpoolError::read(&self.dir))?;
        if free < needed {
            return Err(SpoolError::Full {
                dir: self.dir.clone(),
                free,
                needed,
            });
        }
        Ok(())
    }

    /// The client of `queued` was not told 250.
    pub(crate) fn withdraw(&self, queued: &Queued) {
        let outcomes: Vec<_> = queued
            .pending
            .iter()
            .map(|recipient| (*recipient, Settlement::Withdrawn))
            .collect();
        let settle = settle_job(queued.id, &outcomes, None);
        if let Err(error) = self.settles.push(settle) {
            tracing::warn!(queue_id = %queued.id, %error, "cannot withdraw a message nobody waits for; it will be delivered after the next start");
        }
    }

    fn keep(&self, slices: &[Bytes], len: u64) -> Option<Arc<Kept>> {
        let counted = self.kept.try_reserve(len)?;
        Some(Arc::new(Kept::new(slices.to_vec(), counted)))
    }
}

pub(crate) fn settle_job(
    id: QueueId,
    outcomes: &[(u32, Settlement)],
    reply: Option<oneshot::Sender<Result<(), SpoolError>>>,
) -> Settle {
    let shortened: Vec<_> = outcomes
        .iter()
        .map(|(recipient, outcome)| (*recipient, shorten(outcome)))
        .collect();
    Settle {
        record: Prepared::settled(id, &to_json(&shortened)),
        id,
        recipients: outcomes.iter().map(|(recipient, _)| *recipient).collect(),
        reply,
    }
}

fn shorten(outcome: &Settlement) -> Settlement {
    match outcome {
        Settlement::Failed { reply } => {
            let end = reply.floor_char_boundary(REPLY_OCTETS_MAX);
            Settlement::Failed {
                reply: reply.get(..end).unwrap_or(reply).to_owned(),
            }
        }
        other => other.clone(),
    }
}

/// Types of this crate with string keys and no maps: serialisation to memory has no way to fail.
fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
