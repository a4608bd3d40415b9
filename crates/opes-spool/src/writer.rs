//! The one thread that writes segments: group commit, rotation, what happens when the disk fails.
//!
//! A commit is one `pwritev` of all that waits and one `fdatasync`. While that runs the next commit collects; nothing is ever delayed to make
//! a commit larger. A segment whose write or sync failed is left for good; the next segment's header says where it ends.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cleaner::Cleaning;
use crate::index::{Entry, Location, Settled};
use crate::own_file::OWN_FILES;
use crate::queue::{Job, Settle, Store};
use crate::queued::Receipt;
use crate::record::Prepared;
use crate::segment::{Segment, SegmentEnd};
use crate::spool::Shared;
use crate::{QueueId, SpoolError};

/// A commit takes no more than this, so that the first to wait does not wait for everybody's octets.
const BATCH_OCTETS_MAX: u64 = 16 * 1024 * 1024;

/// Time between attempts to get a working segment.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    /// `None` after it failed and no new one could be made.
    pub(crate) current: Option<Segment>,
    /// Segments before the current one, oldest first.
    pub(crate) sealed: VecDeque<u64>,
    pub(crate) cleaning: Cleaning,
    next_number: u64,
    /// Where the segment before the next one ends.
    left: SegmentEnd,
    /// Settlements that are written but not known to be on disk.
    unsynced: Vec<Prepared>,
    /// Settlements that could not be written; the next segment starts with them. At most one a recipient that was live.
    unwritten: Vec<Prepared>,
    /// Since when `unsynced` waits.
    dirty_since: Option<Instant>,
    /// Own files of settled messages, removed when the settlement is on disk.
    to_remove: Vec<QueueId>,
    /// A segment failed, and there has been no good commit since.
    suspect: bool,
    /// The last attempt to get a segment, if it failed.
    trouble: Option<(Instant, SpoolError)>,
    /// Held until the last octet is written.
    _lock: File,
}

/// What one commit writes.
#[derive(Default)]
struct Batch {
    stores: Vec<Store>,
    settles: Vec<Settle>,
    octets: u64,
}

impl Writer {
    /// With its first segment open.
    pub(crate) fn start(
        shared: Arc<Shared>,
        lock: File,
        sealed: VecDeque<u64>,
        left: SegmentEnd,
        next_number: u64,
    ) -> Result<Self, SpoolError> {
        let mut writer = Self {
            shared,
            current: None,
            sealed,
            cleaning: Cleaning::default(),
            next_number,
            left,
            unsynced: Vec::new(),
            unwritten: Vec::new(),
            dirty_since: None,
            to_remove: Vec::new(),
            suspect: false,
            trouble: None,
            _lock: lock,
        };
        writer.rotate()?;
        Ok(writer)
    }

    pub(crate) fn run(mut self) {
        while let Some(jobs) = self.shared.queue.take(self.deadline()) {
            self.process(jobs);
            self.tick();
        }
        self.sync_unsynced();
        if let Some(segment) = &self.current {
            segment.trim();
        }
    }

    /// When to look again although nobody asks.
    fn deadline(&self) -> Option<Instant> {
        if self.cleaning.has_more() {
            return Some(Instant::now());
        }
        let sync = self
            .dirty_since
            .map(|since| since + self.shared.config.settle_sync);
        let retry = self.trouble.as_ref().map(|(at, _)| *at + RETRY);
        sync.into_iter().chain(retry).min()
    }

    fn tick(&mut self) {
        let due = |since: Instant, after| since.elapsed() >= after;
        if self
            .dirty_since
            .is_some_and(|since| due(since, self.shared.config.settle_sync))
        {
            self.sync_unsynced();
        }
        if self.trouble.as_ref().is_some_and(|(at, _)| due(*at, RETRY)) {
            let _ = self.rotate();
        }
        self.clean();
    }

    fn process(&mut self, jobs: Vec<Job>) {
        let mut batch = Batch::default();
        for job in jobs {
            if !self.fits(&batch, &job) {
                self.commit(std::mem::take(&mut batch));
                self.make_room(&job);
                if !self.fits(&batch, &job) {
                    self.refuse(job);
                    continue;
                }
            }
            batch.push(job);
        }
        self.commit(batch);
    }

    /// Does `job` fit behind `batch`? Messages leave room for settlements, so that a full disk can be emptied.
    fn fits(&self, batch: &Batch, job: &Job) -> bool {
        let reserve = match job {
            Job::Store(_) => self.shared.config.settle_reserve(),
            Job::Settle(_) => 0,
        };
        let octets = batch.octets.saturating_add(job.octets());
        let room = self.current.as_ref().map_or(0, Segment::room);
        let small = batch.octets == 0 || octets <= BATCH_OCTETS_MAX;
        small && octets.saturating_add(reserve) <= room
    }

    /// After a commit: a new segment, if `job` does not fit the current one.
    fn make_room(&mut self, job: &Job) {
        if !self.fits(&Batch::default(), job) {
            let _ = self.rotate_unless_just_tried();
        }
    }

    /// There is no room, and [`Writer::trouble`] says why.
    fn refuse(&mut self, job: Job) {
        let trouble = self.trouble.as_ref().map(|(_, error)| error.clone());
        let error = trouble.unwrap_or(SpoolError::Closed);
        match job {
            Job::Store(store) => refuse(vec![*store], &error),
            Job::Settle(settle) => self.settle_later(settle, &error),
        }
    }

    fn settle_later(&mut self, settle: Settle, error: &SpoolError) {
        self.unwritten.push(settle.record.clone());
        self.settled(settle, Err(error.clone()));
    }

    fn commit(&mut self, mut batch: Batch) {
        self.sync_own_file_names(&mut batch);
        if batch.is_empty() {
            return;
        }
        let start = match self.write(&mut batch) {
            Ok(start) => start,
            Err(error) => return self.fail(batch, &error),
        };
        for settle in batch.settles {
            self.settled(settle, Ok(()));
        }
        if batch.stores.is_empty() {
            return;
        }
        match self.sync() {
            Ok(()) => self.accept(batch.stores, start),
            Err(error) => {
                self.abandon(&error);
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

    /// Messages first, then settlements, in one write.
    fn write(&mut self, batch: &mut Batch) -> Result<u64, SpoolError> {
        let segment = self.current.as_mut().ok_or(SpoolError::Closed)?;
        let stores = batch.stores.iter_mut().map(|store| &mut store.record);
        let settles = batch.settles.iter_mut().map(|settle| &mut settle.record);
        let start = segment.append(&*self.shared.disk, stores.chain(settles))?;
        let counters = &self.shared.counters;
        counters
            .written_octets
            .fetch_add(segment.end - start, Ordering::Relaxed);
        if !batch.settles.is_empty() {
            self.dirty_since.get_or_insert_with(Instant::now);
            let records = batch.settles.iter().map(|settle| settle.record.clone());
            self.unsynced.extend(records);
        }
        Ok(start)
    }

    fn sync(&mut self) -> Result<(), SpoolError> {
        let Some(segment) = &mut self.current else {
            return Err(SpoolError::Closed);
        };
        self.shared.counters.commits.fetch_add(1, Ordering::Relaxed);
        segment.sync(&*self.shared.disk)?;
        self.suspect = false;
        self.unsynced.clear();
        self.dirty_since = None;
        for id in self.to_remove.drain(..) {
            if let Err(error) = self.shared.disk.remove(&self.shared.own_file_path(&id)) {
                tracing::warn!(queue_id = %id, %error, "cannot remove the content of a settled message; the next start will");
            }
        }
        Ok(())
    }

    /// Settlements nobody waits for any more.
    fn sync_unsynced(&mut self) {
        if self.dirty_since.is_none() || self.current.is_none() {
            return;
        }
        if let Err(error) = self.sync() {
            self.abandon(&error);
        }
    }

    fn accept(&mut self, stores: Vec<Store>, mut offset: u64) {
        let Some(segment) = &self.current else {
            return;
        };
        let count = stores.len() as u64;
        {
            let mut index = self.shared.index();
            for store in &stores {
                index.insert(store.queued.id, entry(store, segment, offset));
                offset += store.record.octets();
            }
        }
        self.shared
            .counters
            .stored
            .fetch_add(count, Ordering::Relaxed);
        for store in stores {
            if let Some(file) = store.own_file {
                file.keep();
            }
            // A receipt that nobody takes withdraws the message when it is dropped here.
            let _ = store.reply.send(Ok(Receipt::new(store.queued)));
        }
    }

    fn settled(&mut self, settle: Settle, written: Result<(), SpoolError>) {
        let settled = self.shared.index().settle(&settle.id, &settle.recipients);
        // Without a record on disk the file must stay, or the next start would miss it.
        if let Settled::Completely(entry) = settled
            && entry.at.own_file
            && written.is_ok()
        {
            self.to_remove.push(settle.id);
        }
        if let Some(reply) = settle.reply {
            let _ = reply.send(written);
        }
    }

    /// Those who are refused find [`Spool::unhealthy_reason`](crate::Spool::unhealthy_reason) set.
    fn fail(&mut self, batch: Batch, error: &SpoolError) {
        for settle in batch.settles {
            self.settle_later(settle, error);
        }
        self.abandon(error);
        refuse(batch.stores, error);
    }

    /// Leaves a segment that failed. Twice without a good commit in between, and the disk gets time to recover.
    fn abandon(&mut self, error: &SpoolError) {
        let number = self.current.as_ref().map(|segment| segment.number);
        tracing::error!(%error, segment = number, "spool segment failed; it is left for a new one");
        self.leave_current();
        if std::mem::replace(&mut self.suspect, true) {
            self.shared.health.failed(error);
            self.trouble = Some((Instant::now(), error.clone()));
            return;
        }
        let _ = self.rotate();
    }

    fn rotate_unless_just_tried(&mut self) -> Result<(), SpoolError> {
        match &self.trouble {
            Some((at, error)) if at.elapsed() < RETRY => Err(error.clone()),
            _ => self.rotate(),
        }
    }

    /// Goes on in a new segment. When there can be none, the current one stays, for what fits.
    fn rotate(&mut self) -> Result<(), SpoolError> {
        match self.try_rotate() {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    tracing::info!("the spool can be written again");
                }
                self.shared.health.recovered();
                Ok(())
            }
            Err(error) => {
                if self.trouble.is_none() {
                    tracing::error!(%error, "cannot start a spool segment; messages are refused for now");
                }
                self.shared.health.failed(&error);
                self.trouble = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn try_rotate(&mut self) -> Result<(), SpoolError> {
        // Whatever the old segment holds is on disk before a newer one counts as its successor.
        self.sync_unsynced();
        let config = &self.shared.config;
        self.shared.check_space(config.segment_octets)?;
        let left = self
            .current
            .as_ref()
            .map_or(self.left, |segment| SegmentEnd {
                number: segment.number,
                end: segment.end,
            });
        let number = self.next_number;
        self.next_number += 1;
        let disk = &*self.shared.disk;
        let segment = Segment::create(disk, &self.shared.dir, number, config.segment_octets, left)?;
        // From here on nothing may be added to the old one: the new header says where it ends.
        self.left = left;
        if let Some(old) = self.current.replace(segment) {
            old.trim();
            self.sealed.push_back(old.number);
        }
        let written = self.write_unwritten();
        if written.is_err() {
            self.leave_current();
        }
        written
    }

    fn write_unwritten(&mut self) -> Result<(), SpoolError> {
        let Some(segment) = &mut self.current else {
            return Err(SpoolError::Closed);
        };
        if !self.unwritten.is_empty() {
            let disk = &*self.shared.disk;
            segment.append(disk, &mut self.unwritten)?;
            segment.sync(disk)?;
            self.unwritten.clear();
        }
        Ok(())
    }

    /// What was durable in the segment stays; settlements that were not are written again.
    fn leave_current(&mut self) {
        if let Some(segment) = self.current.take() {
            self.left = SegmentEnd {
                number: segment.number,
                end: segment.durable_to,
            };
            self.sealed.push_back(segment.number);
            self.dirty_since = None;
            self.unwritten.append(&mut self.unsynced);
        }
    }

    /// The last attempt to get a segment succeeded.
    pub(crate) fn trouble_free(&self) -> bool {
        self.trouble.is_none()
    }

    /// Writes records of the cleaner and makes them durable; gives where the first one is.
    pub(crate) fn write_copies(&mut self, records: &mut [Prepared]) -> Result<u64, SpoolError> {
        let octets: u64 = records.iter().map(Prepared::octets).sum();
        let reserve = self.shared.config.settle_reserve();
        let room = self.current.as_ref().map_or(0, Segment::room);
        if octets.saturating_add(reserve) > room {
            self.rotate_unless_just_tried()?;
        }
        let segment = self.current.as_mut().ok_or(SpoolError::Closed)?;
        let written = segment.append(&*self.shared.disk, records);
        match written.and_then(|start| self.sync().map(|()| start)) {
            Ok(start) => Ok(start),
            Err(error) => {
                self.abandon(&error);
                Err(error)
            }
        }
    }
}

// === impl Batch ===

impl Batch {
    fn is_empty(&self) -> bool {
        self.stores.is_empty() && self.settles.is_empty()
    }

    fn push(&mut self, job: Job) {
        self.octets += job.octets();
        match job {
            Job::Store(store) => self.stores.push(*store),
            Job::Settle(settle) => self.settles.push(settle),
        }
    }
}

fn refuse(stores: Vec<Store>, error: &SpoolError) {
    for store in stores {
        let _ = store.reply.send(Err(error.clone()));
    }
}

fn entry(store: &Store, segment: &Segment, offset: u64) -> Entry {
    let at = Location {
        segment: segment.number,
        record_seed: segment.record_seed,
        file: Arc::clone(&segment.file),
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
