//! The one thread that commits messages, syncs and changes segments: group commit here, segments in [`rotation`].
//!
//! A commit is one `pwritev` of all messages that wait and one `fdatasync`. While that runs the next commit collects, and the settler goes on
//! writing settlements; nothing is ever delayed to make a commit larger.

mod rotation;

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use crate::cleaner::Cleaning;
use crate::index::{Entry, Location};
use crate::own_file::OWN_FILES;
use crate::queue::{Job, Settle, Store};
use crate::queued::Receipt;
use crate::segment::{Appended, SegmentEnd};
use crate::spool::Shared;
use crate::tail::{Note, settle_waiting};
use crate::{QueueId, SpoolError};

/// A commit takes no more than this, so that the first to wait does not wait for everybody's octets.
const BATCH_OCTETS_MAX: u64 = 16 * 1024 * 1024;

/// Time between attempts to get a working segment.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    /// Segments before the current one, oldest first.
    pub(crate) sealed: VecDeque<SegmentEnd>,
    pub(crate) cleaning: Cleaning,
    next_number: u64,
    /// Where the segment before the next one ends.
    left: SegmentEnd,
    /// Settlements that could not be written; the next segment starts with them. At most one a recipient that was live.
    unwritten: Vec<Note>,
    /// The last good sync.
    synced_at: Option<Instant>,
    /// A segment failed, and there has been no good commit since.
    suspect: bool,
    /// The last attempt to get a segment for messages, if it failed.
    trouble: Option<(Instant, SpoolError)>,
    /// The last attempt to get one for settlements alone, if it failed.
    crammed_at: Option<Instant>,
    /// Held until the last octet is written.
    _lock: File,
}

/// What one commit writes.
#[derive(Default)]
struct Batch {
    stores: Vec<Store>,
    octets: u64,
}

impl Writer {
    /// With its first segment open. A full volume is no reason to fail: what waits must be delivered, so that there is room again.
    pub(crate) fn start(
        shared: Arc<Shared>,
        lock: File,
        sealed: VecDeque<SegmentEnd>,
        next_number: u64,
    ) -> Result<Self, SpoolError> {
        let left = sealed.back().copied().unwrap_or_default();
        let mut writer = Self {
            shared,
            sealed,
            cleaning: Cleaning::default(),
            next_number,
            left,
            unwritten: Vec::new(),
            synced_at: None,
            suspect: false,
            trouble: None,
            crammed_at: None,
            _lock: lock,
        };
        match writer.rotate() {
            Err(error) if !error.is_full() => Err(error),
            _ => Ok(writer),
        }
    }

    /// On a thread, until the queue is closed.
    pub(crate) fn run(mut self, settler: JoinHandle<()>) {
        while let Some(jobs) = self.shared.queue.take(self.deadline()) {
            self.process(jobs);
            self.tick();
        }
        // Messages of the last commit may have been withdrawn.
        self.shared.settles.close();
        if settler.join().is_err() {
            tracing::error!("the spool's settler thread has panicked");
        }
        self.end();
    }

    /// In a task, on a disk that takes `latency` for a commit and does not block.
    pub(crate) async fn run_in_task(mut self, latency: Duration) {
        while let Some(jobs) = self.shared.queue.take_in_task(self.deadline()).await {
            tokio::time::sleep(latency).await;
            self.process(jobs);
            self.tick();
        }
        self.shared.settles.close();
        settle_waiting(&self.shared);
        self.end();
    }

    /// Both queues are closed.
    fn end(&mut self) {
        while let Some(jobs) = self.shared.queue.take(None) {
            self.process(jobs);
        }
        self.finish();
    }

    /// When to look again although nobody asks.
    fn deadline(&self) -> Option<Instant> {
        if self.cleaning.has_more() {
            return Some(Instant::now());
        }
        let dirty_since = self.shared.tail().dirty_since();
        // After a sync the next settlements are near: a look after the usual time spares the settler a nudge for each.
        let since = dirty_since.or(self.synced_at);
        let sync = since.map(|since| since + self.shared.config.settle_sync);
        let sync = sync.filter(|at| dirty_since.is_some() || *at > Instant::now());
        let retry = self.trouble.as_ref().map(|(at, _)| *at + RETRY);
        sync.into_iter().chain(retry).min()
    }

    fn tick(&mut self) {
        let dirty_since = self.shared.tail().dirty_since();
        if dirty_since.is_some_and(|since| since.elapsed() >= self.shared.config.settle_sync) {
            self.sync_settlements();
        }
        let trouble = self.trouble.as_ref();
        if trouble.is_some_and(|(at, _)| at.elapsed() >= RETRY) {
            let _ = self.rotate();
        }
        self.clean();
    }

    fn process(&mut self, jobs: Vec<Job>) {
        let (mut stores, mut settles) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Store(store) => stores.push(store),
                Job::Settle(settle) => settles.push(settle),
            }
        }
        self.settle(settles);
        let mut batch = Batch::default();
        for store in stores {
            self.collect(&mut batch, store);
        }
        self.commit(batch);
    }

    /// Puts `store` into `batch`, after a commit or in a new segment if need be.
    fn collect(&mut self, batch: &mut Batch, store: Box<Store>) {
        let octets = store.record.octets();
        if !self.fits(batch, &store) {
            self.commit(std::mem::take(batch));
            if !self.fits(batch, &store) {
                let _ = if store.is_settlement() {
                    self.make_room(octets)
                } else {
                    self.rotate_unless_just_tried()
                };
            }
            if !self.fits(batch, &store) {
                let trouble = self.trouble.as_ref().map(|(_, error)| error.clone());
                return refuse(vec![*store], &trouble.unwrap_or(SpoolError::Closed));
            }
        }
        batch.octets += octets;
        batch.stores.push(*store);
    }

    /// Does `store` fit behind `batch`? Messages leave room for settlements, so that a full disk can be emptied.
    fn fits(&self, batch: &Batch, store: &Store) -> bool {
        let octets = batch.octets.saturating_add(store.record.octets());
        let small = batch.octets == 0 || octets <= BATCH_OCTETS_MAX;
        let tail = self.shared.tail();
        let room = if store.is_settlement() {
            tail.room()
        } else {
            tail.room_for_messages(self.shared.config.settle_reserve())
        };
        small && octets <= room
    }

    /// Settlements that the settler found no place for.
    fn settle(&mut self, mut settles: Vec<Settle>) {
        while !settles.is_empty() {
            let blocked = self.shared.write_settles(settles);
            settles = blocked.settles;
            let room = match (blocked.error, settles.first()) {
                (Some(error), _) => self.abandon(&error),
                // One at least; asking for all might be too much.
                (None, Some(first)) => self.make_room(first.record.octets()),
                (None, None) => Ok(()),
            };
            if let Err(error) = room {
                return self.settle_later(settles, &error);
            }
        }
    }

    /// The messages are settled all the same; only nobody has written it down.
    fn settle_later(&mut self, settles: Vec<Settle>, error: &SpoolError) {
        for settle in settles {
            let (note, reply) = settle.note(&mut self.shared.index());
            self.unwritten.push(note);
            if let Some(reply) = reply {
                let _ = reply.send(Err(error.clone()));
            }
        }
        self.report_trouble();
    }

    fn commit(&mut self, mut batch: Batch) {
        self.sync_own_file_names(&mut batch);
        if batch.stores.is_empty() {
            return;
        }
        let written = self.append(&mut batch);
        let committed = written.and_then(|appended| self.sync().map(|()| appended));
        match committed {
            Ok(appended) => self.accept(batch.stores, &appended),
            Err(error) => {
                // Those who are refused find `unhealthy_reason` set, if it is.
                let _ = self.abandon(&error);
                refuse(batch.stores, &error);
            }
        }
    }

    fn sync_own_file_names(&self, batch: &mut Batch) {
        if batch.stores.iter().all(|store| store.own_file.is_none()) {
            return;
        }
        let dir = self.shared.dir.join(OWN_FILES);
        if let Err(error) = self.shared.disk.sync_dir(&dir) {
            let error = SpoolError::sync(&dir)(error);
            tracing::error!(%error, "large messages refused");
            let (with, without) = std::mem::take(&mut batch.stores)
                .into_iter()
                .partition(|store| store.own_file.is_some());
            batch.stores = without;
            refuse(with, &error);
        }
    }

    /// If settlements have used room in the meantime, the file grows a little beyond what was reserved.
    fn append(&self, batch: &mut Batch) -> Result<Appended, SpoolError> {
        let mut tail = self.shared.tail();
        let segment = tail.segment.as_mut().ok_or(SpoolError::Closed)?;
        let records = batch.stores.iter_mut().map(|store| &mut store.record);
        let appended = segment.append(&*self.shared.disk, records)?;
        self.shared.count_written(appended.octets);
        Ok(appended)
    }

    /// Everything that is written so far.
    pub(crate) fn sync(&mut self) -> Result<(), SpoolError> {
        let syncing = self.shared.tail().begin_sync().ok_or(SpoolError::Closed)?;
        self.shared.sync_data(&syncing)?;
        let notes = self.shared.tail().end_sync(&syncing);
        self.synced_at = Some(Instant::now());
        self.suspect = false;
        self.remove_own_files(notes.iter().filter_map(|note| note.own_file));
        Ok(())
    }

    /// Of messages whose settlement is on disk.
    fn remove_own_files(&self, ids: impl IntoIterator<Item = QueueId>) {
        for id in ids {
            if let Err(error) = self.shared.disk.remove(&self.shared.own_file_path(&id)) {
                tracing::warn!(queue_id = %id, %error, "cannot remove the content of a settled message; the next start will");
            }
        }
    }

    /// Settlements nobody waits for any more.
    fn sync_settlements(&mut self) {
        if let Err(error) = self.sync_if_dirty() {
            let _ = self.abandon(&error);
        }
    }

    fn sync_if_dirty(&mut self) -> Result<(), SpoolError> {
        if self.shared.tail().dirty_since().is_none() {
            return Ok(());
        }
        self.sync()
    }

    fn accept(&self, stores: Vec<Store>, appended: &Appended) {
        let mut offset = appended.start;
        let mut needless = Vec::new();
        {
            let mut index = self.shared.index();
            for store in &stores {
                index.insert(store.queued.id, entry(store, appended, offset));
                offset += store.record.octets();
                needless.extend(store.settle(&mut index));
            }
        }
        self.remove_own_files(needless);
        let counter = &self.shared.counters.stored;
        counter.fetch_add(stores.len() as u64, Ordering::Relaxed);
        for store in stores {
            if let Some(file) = store.own_file {
                file.keep();
            }
            // A receipt that nobody takes withdraws the message when it is dropped here.
            let _ = store.reply.send(Ok(Receipt::new(store.queued)));
        }
    }
}

fn refuse(stores: Vec<Store>, error: &SpoolError) {
    for store in stores {
        let _ = store.reply.send(Err(error.clone()));
    }
}

fn entry(store: &Store, appended: &Appended, offset: u64) -> Entry {
    let at = Location {
        segment: appended.segment,
        record_seed: appended.record_seed,
        file: Arc::clone(&appended.file),
        offset,
        meta_len: store.record.meta_len(),
        content_len: store.queued.content.len(),
        own_file: store.own_file.is_some(),
        octets: store.record.octets(),
    };
    Entry {
        at,
        recipients: u32::try_from(store.queued.envelope.recipients.len()).unwrap_or(u32::MAX),
        settled: Vec::new(),
    }
}
