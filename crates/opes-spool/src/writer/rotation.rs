//! Segments begin and end here: when one is full, when one has failed, when the volume has no space.
//!
//! A segment whose write or sync failed is left for good; the next segment's header says where it ends. On a full volume settlements
//! still get small segments of their own, from the reserve; if there is not even space for that, they are kept in memory and written later.

use tokio::time::Instant;

use super::{RETRY, Writer};
use crate::SpoolError;
use crate::segment::{Appended, Purpose, SEGMENT_HEADER_OCTETS, Segment};
use crate::tail::fitting;

/// Least room of a segment that is made to empty a full volume; some 2500 settlements.
const DRAINING_OCTETS: u64 = 256 * 1024;

impl Writer {
    /// Leaves a segment that failed. Twice without a good commit in between, and the disk gets time to recover.
    pub(crate) fn abandon(&mut self, error: &SpoolError) -> Result<(), SpoolError> {
        self.leave_current(error);
        if std::mem::replace(&mut self.suspect, true) {
            self.trouble = Some((Instant::now(), error.clone()));
            self.report_trouble();
            return Err(error.clone());
        }
        self.rotate()
    }

    pub(super) fn rotate_unless_just_tried(&mut self) -> Result<(), SpoolError> {
        match &self.trouble {
            Some((at, error)) if at.elapsed() < RETRY => Err(error.clone()),
            _ => self.rotate(),
        }
    }

    /// Goes on in a new segment. When there can be none, the current one stays, for what fits.
    pub(super) fn rotate(&mut self) -> Result<(), SpoolError> {
        let error = match self.open_for_messages() {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    tracing::info!("the spool can be written again");
                }
                self.crammed_at = None;
                self.shared.health.recovered();
                return Ok(());
            }
            Err(error) => error,
        };
        if self.trouble.is_none() {
            tracing::error!(%error, "cannot start a spool segment; messages are refused for now");
        }
        self.trouble = Some((Instant::now(), error.clone()));
        if error.is_full() && !self.is_recording() {
            // Its failure is part of the report.
            let _ = self.open_for_draining(0);
        }
        self.report_trouble();
        Err(error)
    }

    /// A new segment, or on a full volume one that has room for `octets` that help to empty it.
    pub(crate) fn make_room(&mut self, octets: u64) -> Result<(), SpoolError> {
        match self.rotate_unless_just_tried() {
            Err(error) if !error.is_full() => Err(error),
            Err(error) if self.shared.tail().room() < octets => {
                if self.just_found_crammed() {
                    return Err(error);
                }
                self.open_for_draining(octets)
            }
            _ => Ok(()),
        }
    }

    fn open_for_messages(&mut self) -> Result<(), SpoolError> {
        let octets = self.shared.config.segment_octets;
        self.shared.check_space(octets)?;
        self.open(Purpose::Messages, octets)
    }

    /// The reserve is for this, so it is not looked at.
    fn open_for_draining(&mut self, octets: u64) -> Result<(), SpoolError> {
        let unwritten = self.unwritten.iter().map(|note| note.record.octets());
        let least = DRAINING_OCTETS.min(self.shared.config.segment_octets);
        let room = unwritten.fold(octets.max(least), u64::max);
        let opened = self.open(Purpose::Draining, SEGMENT_HEADER_OCTETS + room);
        if let Err(error) = &opened
            && self.crammed_at.is_none()
        {
            tracing::error!(%error, "the volume is so full that settlements cannot be recorded; after a crash now, messages would be delivered again");
        }
        self.crammed_at = opened.is_err().then(Instant::now);
        self.report_trouble();
        opened
    }

    fn open(&mut self, purpose: Purpose, octets: u64) -> Result<(), SpoolError> {
        // The new header says where the old segment ends, and all of it has to be on disk by then: no more settlements.
        self.shared.tail().closing = true;
        let mut opened = self.follow(purpose, octets);
        while opened.is_ok() && !self.unwritten.is_empty() {
            opened = self.follow(purpose, octets);
        }
        self.shared.tail().closing = false;
        opened
    }

    fn follow(&mut self, purpose: Purpose, octets: u64) -> Result<(), SpoolError> {
        if let Err(error) = self.sync_if_dirty() {
            self.leave_current(&error);
            self.suspect = true;
        }
        let current = self.shared.tail().segment.as_ref().map(Segment::ends);
        let left = current.unwrap_or(self.left);
        let number = self.next_number;
        self.next_number += 1;
        let (disk, dir) = (&*self.shared.disk, &self.shared.dir);
        let segment = Segment::create(disk, dir, number, (purpose, octets), left)?;
        // From here on nothing may be added to the old one.
        self.left = left;
        if let Some(old) = self.shared.tail().segment.replace(segment) {
            old.trim(disk);
            self.sealed.push_back(left);
        }
        self.write_unwritten()
    }

    /// As many as fit; a segment that is made for them has room for one at least.
    fn write_unwritten(&mut self) -> Result<(), SpoolError> {
        let room = self.shared.tail().room();
        let count = fitting(self.unwritten.iter().map(|note| &note.record), room);
        if count == 0 {
            return Ok(());
        }
        if let Err(error) = self.append_unwritten(count) {
            // Nothing counts in it yet. A volume that fills up again and again must not collect such files.
            if let Some(segment) = self.shared.tail().segment.take() {
                let _ = self.shared.disk.remove(&segment.path);
            }
            return Err(error);
        }
        let Some(syncing) = self.shared.tail().begin_sync() else {
            return Err(SpoolError::Closed);
        };
        if let Err(error) = self.shared.sync_data(&syncing) {
            self.leave_current(&error);
            return Err(error);
        }
        self.shared.tail().end_sync(&syncing);
        let notes: Vec<_> = self.unwritten.drain(..count).collect();
        self.remove_own_files(notes.iter().filter_map(|note| note.own_file));
        Ok(())
    }

    fn append_unwritten(&mut self, count: usize) -> Result<Appended, SpoolError> {
        let mut tail = self.shared.tail();
        let segment = tail.segment.as_mut().ok_or(SpoolError::Closed)?;
        let records = self.unwritten.iter_mut().take(count);
        let records = records.map(|note| &mut note.record);
        let appended = segment.append(&*self.shared.disk, records)?;
        self.shared.count_written(appended.octets);
        Ok(appended)
    }

    /// What was durable in the segment stays; settlements that were not are written again.
    fn leave_current(&mut self, error: &SpoolError) {
        let Some((end, notes)) = self.shared.tail().leave() else {
            return;
        };
        tracing::error!(%error, segment = end.number, "spool segment failed; it is left for a new one");
        self.left = end;
        self.sealed.push_back(end);
        self.unwritten.extend(notes);
    }

    /// Is there a segment, and is every settlement in one?
    fn is_recording(&self) -> bool {
        self.unwritten.is_empty() && self.shared.tail().segment.is_some()
    }

    pub(super) fn report_trouble(&self) {
        if let Some((_, error)) = &self.trouble {
            self.shared.health.failed(error, self.is_recording());
        }
    }

    /// May the cleaner write `octets`? Copying frees space, so on a full volume it may use the reserve, as long as that is ample.
    pub(crate) fn may_copy(&self, octets: u64) -> bool {
        let Some((_, error)) = &self.trouble else {
            return true;
        };
        let free = self.shared.disk.free_octets(&self.shared.dir);
        error.is_full()
            && !self.just_found_crammed()
            && free.is_ok_and(|free| octets.saturating_mul(2) < free)
    }

    fn just_found_crammed(&self) -> bool {
        self.crammed_at.is_some_and(|at| at.elapsed() < RETRY)
    }

    /// The program ends: a last attempt for settlements that are only in memory.
    pub(super) fn finish(&mut self) {
        self.sync_settlements();
        if !self.unwritten.is_empty() {
            let _ = self.rotate();
        }
        let lost = self.unwritten.len();
        if lost > 0 {
            tracing::error!(
                settlements = lost,
                "the program ends, and settlements could not be recorded; the next start delivers these messages again"
            );
        }
        if let Some(segment) = &self.shared.tail().segment {
            segment.trim(&*self.shared.disk);
        }
    }
}
