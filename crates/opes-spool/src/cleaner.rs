//! Getting space back. Only the oldest segment is ever removed, and one removal is durable before the next: so a settlement can
//! never vanish while an older record of its message is still there. When most of the log is dead, live messages of the oldest
//! segment are copied to its end, so that one message that waits does not hold everything behind it.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::index::{Entry, Location};
use crate::record::{HEADER_OCTETS, Header, Prepared};
use crate::segment::{SegmentEnd, segment_path};
use crate::spool::settle_job;
use crate::writer::Writer;
use crate::{QueueId, Settlement, SpoolError};

/// Segments that may be dead before anything is copied.
const SLACK_SEGMENTS: u64 = 3;

/// Octets copied in one step, between commits.
const STEP_OCTETS: u64 = 1024 * 1024;

/// The copying of one segment, step by step.
#[derive(Debug, Default)]
pub(crate) struct Cleaning {
    /// Live messages of the oldest segment, still to be copied.
    plan: Vec<QueueId>,
    /// A segment that could not be cleaned; left alone until the next start.
    stuck: Option<u64>,
}

/// A live message read back to be copied.
struct Copy {
    id: QueueId,
    message: Prepared,
    at: Location,
}

impl Cleaning {
    /// Is there another step to do at once?
    pub(crate) fn has_more(&self) -> bool {
        !self.plan.is_empty()
    }
}

impl Writer {
    /// Removes what is dead, and copies a step when that is worth it.
    pub(crate) fn clean(&mut self) {
        self.remove_dead();
        let Some(oldest) = self.sealed.front().copied() else {
            return;
        };
        if self.cleaning.plan.is_empty() && self.worth_copying(oldest) {
            self.cleaning.plan = self.shared.index().in_segment(oldest.number);
        }
        if self.cleaning.has_more()
            && let Err(error) = self.copy_step()
        {
            tracing::error!(%error, segment = oldest.number, "cannot clean a spool segment; it keeps its space");
            self.cleaning.plan.clear();
            if matches!(error, SpoolError::Damaged { .. } | SpoolError::Read { .. }) {
                self.cleaning.stuck = Some(oldest.number);
            }
        }
        self.remove_dead();
    }

    fn remove_dead(&mut self) {
        while let Some(oldest) = self.sealed.front().map(|end| end.number) {
            // One stays, so that numbers go on where they were.
            let is_last = self.sealed.len() == 1 && self.shared.tail().segment.is_none();
            if is_last || self.shared.index().live(oldest).messages > 0 {
                return;
            }
            let dir = &self.shared.dir;
            let path = segment_path(dir, oldest);
            let disk = &self.shared.disk;
            // Not to be forgotten before the removal is durable: a segment that comes back must find its settlements.
            if let Err(error) = disk.remove(&path).and_then(|()| disk.sync_dir(dir)) {
                if self.cleaning.stuck != Some(oldest) {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a spool segment");
                    self.cleaning.stuck = Some(oldest);
                }
                return;
            }
            self.sealed.pop_front();
        }
    }

    /// At most half of the log is alive, and there is enough of it.
    fn worth_copying(&self, oldest: SegmentEnd) -> bool {
        let segments = self.sealed.len() as u64;
        if segments <= SLACK_SEGMENTS || self.cleaning.stuck == Some(oldest.number) {
            return false;
        }
        let log: u64 = self.sealed.iter().map(|segment| segment.end).sum();
        let (live, copies) = {
            let index = self.shared.index();
            (index.live_octets(), index.live(oldest.number).octets)
        };
        live * 2 < log && self.may_copy(copies)
    }

    fn copy_step(&mut self) -> Result<(), SpoolError> {
        let mut copies = Vec::new();
        let mut octets = 0;
        while octets < STEP_OCTETS
            && let Some(id) = self.cleaning.plan.pop()
        {
            // It may have been settled in the meantime.
            let at = self.shared.index().get(&id).map(|entry| entry.at.clone());
            if let Some(at) = at {
                octets += at.octets;
                copies.push(self.read_back(id, at)?);
            }
        }
        if copies.is_empty() {
            return Ok(());
        }
        self.write_copies(copies, octets)
    }

    /// Writes copies, makes them durable, and points the index to them.
    fn write_copies(&mut self, copies: Vec<Copy>, octets: u64) -> Result<(), SpoolError> {
        let octets = octets.saturating_add(self.shared.config.settle_reserve());
        if octets > self.shared.tail().room() {
            self.make_room(octets)?;
        }
        let written = self.append_copies(copies);
        match written.and_then(|places| self.sync().map(|()| places)) {
            Ok(places) => {
                let mut index = self.shared.index();
                for (id, at) in places {
                    index.moved(&id, at);
                }
                Ok(())
            }
            Err(error) => {
                let _ = self.abandon(&error);
                Err(error)
            }
        }
    }

    /// Each message with a settlement for recipients that are settled: theirs may be in a segment that is about to go. What is settled is
    /// looked up under the lock that settlements are written under, so that none falls between.
    fn append_copies(&self, copies: Vec<Copy>) -> Result<Vec<(QueueId, Location)>, SpoolError> {
        let mut tail = self.shared.tail();
        let segment = tail.segment.as_mut().ok_or(SpoolError::Closed)?;
        let mut records = Vec::new();
        let mut places = Vec::new();
        let mut offset = segment.end;
        {
            let index = self.shared.index();
            for copy in copies {
                let Some(entry) = index.get(&copy.id) else {
                    continue;
                };
                let settled = settled_earlier(copy.id, entry);
                let octets = settled.as_ref().map_or(0, Prepared::octets);
                places.push((copy.id, Location { offset, ..copy.at }));
                offset += copy.message.octets() + octets;
                records.push(copy.message);
                records.extend(settled);
            }
        }
        let appended = segment.append(&*self.shared.disk, &mut records)?;
        self.shared.count_written(appended.octets);
        for (_, at) in &mut places {
            at.segment = appended.segment;
            at.record_seed = appended.record_seed;
            at.file = Arc::clone(&appended.file);
        }
        Ok(places)
    }

    fn read_back(&self, id: QueueId, at: Location) -> Result<Copy, SpoolError> {
        let path = self.shared.segment_path(at.segment);
        let (head, content) = read_record(&at).map_err(SpoolError::read(&path))?;
        if !intact(&head, &content, &id, at.record_seed) {
            let id = id.to_string();
            return Err(SpoolError::Damaged { id, path });
        }
        let message = Prepared::copied(head, vec![content]);
        Ok(Copy { id, message, at })
    }
}

/// The record that says which recipients are settled, if any are.
fn settled_earlier(id: QueueId, entry: &Entry) -> Option<Prepared> {
    let settled = entry.settled.iter();
    let outcomes: Vec<_> = settled
        .map(|recipient| (*recipient, Settlement::Earlier))
        .collect();
    (!outcomes.is_empty()).then(|| settle_job(id, &outcomes, None).record)
}

fn read_record(at: &Location) -> std::io::Result<(BytesMut, Bytes)> {
    let inline = if at.own_file { 0 } else { at.content_len };
    let mut head = BytesMut::zeroed(HEADER_OCTETS + at.meta_len as usize);
    let mut content = BytesMut::zeroed(usize::try_from(inline).unwrap_or(0));
    at.file.read_exact_at(&mut head, at.offset)?;
    at.file.read_exact_at(&mut content, at.content_offset())?;
    Ok((head, content.freeze()))
}

fn intact(head: &[u8], content: &[u8], id: &QueueId, seed: u32) -> bool {
    let Some((header, json)) = head.split_first_chunk::<HEADER_OCTETS>() else {
        return false;
    };
    let payload_crc = crc32c::crc32c_append(crc32c::crc32c(json), content);
    Header::parse(header, seed)
        .is_some_and(|header| header.id == *id && header.payload_crc == payload_crc)
}
