//! The end of the log: the segment that is written, and the settlements in it that are not known to be on disk.
//!
//! Two threads append, under one lock: the writer messages, the settler settlements. Only the writer syncs, and not under the lock, so
//! that a settlement never waits for the disk. Only the writer changes the segment.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::index::Index;
use crate::queue::{Job, Settle};
use crate::record::Prepared;
use crate::segment::{Segment, SegmentEnd};
use crate::spool::Shared;
use crate::{QueueId, SpoolError};

#[derive(Default)]
pub(crate) struct Tail {
    /// `None` after it failed and no new one could be made.
    pub(crate) segment: Option<Segment>,
    /// The writer is about to leave the segment: its end must not move any more.
    pub(crate) closing: bool,
    /// Written but not known to be on disk.
    unsynced: Vec<Note>,
    /// Since when `unsynced` waits.
    dirty_since: Option<Instant>,
}

/// A settlement between memory and disk.
pub(crate) struct Note {
    pub(crate) record: Prepared,
    /// The message has no more recipients; the file of its content goes when the note is on disk.
    pub(crate) own_file: Option<QueueId>,
}

/// What a sync that succeeds will have made durable.
pub(crate) struct Syncing {
    file: Arc<File>,
    path: PathBuf,
    end: u64,
    notes: usize,
}

/// Settlements that found no place.
#[derive(Default)]
pub(crate) struct Blocked {
    pub(crate) settles: Vec<Settle>,
    /// The write failed; otherwise there was no room.
    pub(crate) error: Option<SpoolError>,
}

type Reply = oneshot::Sender<Result<(), SpoolError>>;

/// The settler thread: writes settlements as they come; what finds no place goes to the writer.
pub(crate) fn run_settler(shared: &Shared) {
    while let Some(settles) = shared.settles.take(None) {
        settle(shared, settles);
    }
}

/// As [`run_settler`], in a task.
pub(crate) async fn run_settler_in_task(shared: Arc<Shared>) {
    while let Some(settles) = shared.settles.take_in_task(None).await {
        settle(&shared, settles);
    }
}

/// What the settler would do now.
pub(crate) fn settle_waiting(shared: &Shared) {
    settle(shared, shared.settles.take_waiting());
}

fn settle(shared: &Shared, settles: Vec<Settle>) {
    let blocked = shared.write_settles(settles);
    let blocked = blocked.settles.into_iter().map(Job::Settle);
    shared.queue.put_back(blocked);
}

// === impl Shared ===

impl Shared {
    /// Writes `settles` behind whatever is there. They survive the process when this returns.
    pub(crate) fn write_settles(&self, settles: Vec<Settle>) -> Blocked {
        let mut tail = self.tail();
        if tail.closing {
            let error = None;
            return Blocked { settles, error };
        }
        let was_clean = tail.dirty_since.is_none();
        let (replies, blocked) = tail.write_settles(self, settles);
        let dirtied = was_clean && tail.dirty_since.is_some();
        drop(tail);
        if dirtied {
            // It has to come back in time to sync them.
            self.queue.nudge();
        }
        for reply in replies.into_iter().flatten() {
            let _ = reply.send(Ok(()));
        }
        blocked
    }

    /// `fdatasync` of `syncing`; the tail is not locked meanwhile.
    pub(crate) fn sync_data(&self, syncing: &Syncing) -> Result<(), SpoolError> {
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        let synced = self.disk.sync_data(&syncing.file);
        if self.disk.in_tasks().is_some() {
            // The other thread would not have waited.
            settle_waiting(self);
        }
        synced.map_err(SpoolError::sync(&syncing.path))
    }
}

// === impl Tail ===

impl Tail {
    /// Octets left in the segment.
    pub(crate) fn room(&self) -> u64 {
        self.segment.as_ref().map_or(0, Segment::room)
    }

    /// Octets left for messages when `reserve` is kept for settlements.
    pub(crate) fn room_for_messages(&self, reserve: u64) -> u64 {
        match &self.segment {
            Some(segment) if segment.takes_messages() => segment.room().saturating_sub(reserve),
            _ => 0,
        }
    }

    /// Since when settlements wait to be synced.
    pub(crate) fn dirty_since(&self) -> Option<Instant> {
        self.dirty_since
    }

    /// As many as there is room for.
    fn write_settles(
        &mut self,
        shared: &Shared,
        mut settles: Vec<Settle>,
    ) -> (Vec<Option<Reply>>, Blocked) {
        let fitting = fitting(settles.iter().map(|settle| &settle.record), self.room());
        let blocked = settles.split_off(fitting);
        let mut blocked = Blocked {
            settles: blocked,
            error: None,
        };
        let Some(segment) = self.segment.as_mut().filter(|_| fitting > 0) else {
            return (Vec::new(), blocked);
        };
        let records = settles.iter_mut().map(|settle| &mut settle.record);
        match segment.append(&*shared.disk, records) {
            Ok(appended) => shared.count_written(appended.octets),
            Err(error) => {
                settles.append(&mut blocked.settles);
                let error = Some(error);
                return (Vec::new(), Blocked { settles, error });
            }
        }
        // Still under the lock, so that the cleaner's copies hold every settlement that was written before them.
        let mut index = shared.index();
        let mut replies = Vec::with_capacity(settles.len());
        for settle in settles {
            let (note, reply) = settle.note(&mut index);
            self.unsynced.push(note);
            replies.push(reply);
        }
        self.dirty_since.get_or_insert_with(Instant::now);
        (replies, blocked)
    }

    /// What a sync that starts now covers; `None` without a segment.
    pub(crate) fn begin_sync(&self) -> Option<Syncing> {
        let segment = self.segment.as_ref()?;
        Some(Syncing {
            file: Arc::clone(&segment.file),
            path: segment.path.clone(),
            end: segment.end,
            notes: self.unsynced.len(),
        })
    }

    /// `syncing` has succeeded; gives what is on disk now.
    pub(crate) fn end_sync(&mut self, syncing: &Syncing) -> Vec<Note> {
        if let Some(segment) = &mut self.segment {
            segment.durable_to = syncing.end;
        }
        let synced = self
            .unsynced
            .drain(..syncing.notes.min(self.unsynced.len()));
        let synced = synced.collect();
        self.dirty_since = (!self.unsynced.is_empty()).then(Instant::now);
        synced
    }

    /// Gives up the segment after a failure: where it was durable, and the settlements that have to be written again.
    pub(crate) fn leave(&mut self) -> Option<(SegmentEnd, Vec<Note>)> {
        let segment = self.segment.take()?;
        self.dirty_since = None;
        let end = SegmentEnd {
            number: segment.number,
            end: segment.durable_to,
        };
        Some((end, std::mem::take(&mut self.unsynced)))
    }
}

/// How many of `records` fit into `room` octets.
pub(crate) fn fitting<'a>(records: impl Iterator<Item = &'a Prepared>, room: u64) -> usize {
    let ends = records.scan(0u64, |end, record| {
        *end = end.saturating_add(record.octets());
        Some(*end)
    });
    ends.take_while(|end| *end <= room).count()
}

// === impl Settle ===

impl Settle {
    /// Settles in the index.
    pub(crate) fn note(self, index: &mut Index) -> (Note, Option<Reply>) {
        let own_file = index.settle(&self.id, &self.recipients).own_file(self.id);
        let record = self.record;
        (Note { record, own_file }, self.reply)
    }
}
