//! Getting space back. Only the oldest segment is ever removed, and one removal is durable before the next: so a settlement can
//! never vanish while an older record of its message is still there. When most of the log is dead, live messages of the oldest
//! segment are copied to its end, so that one message that waits does not hold everything behind it.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::index::{Entry, Location};
use crate::record::{HEADER_OCTETS, Header, Prepared};
use crate::segment::segment_path;
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
    /// Recipients that were settled in segments that may go.
    settled: Option<Prepared>,
    entry: Entry,
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
            self.cleaning.plan = self.shared.index().in_segment(oldest);
        }
        if self.cleaning.has_more()
            && let Err(error) = self.copy_step()
        {
            tracing::error!(%error, segment = oldest, "cannot clean a spool segment; it keeps its space");
            self.cleaning.plan.clear();
            if matches!(error, SpoolError::Damaged { .. } | SpoolError::Read { .. }) {
                self.cleaning.stuck = Some(oldest);
            }
        }
        self.remove_dead();
    }

    fn remove_dead(&mut self) {
        while let Some(oldest) = self.sealed.front().copied() {
            if self.shared.index().live(oldest).messages > 0 || self.current.is_none() {
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
    fn worth_copying(&self, oldest: u64) -> bool {
        let segments = self.sealed.len() as u64;
        if segments <= SLACK_SEGMENTS || self.cleaning.stuck == Some(oldest) {
            return false;
        }
        let log = segments * self.shared.config.segment_octets;
        self.trouble_free() && self.shared.index().live_octets() * 2 < log
    }

    fn copy_step(&mut self) -> Result<(), SpoolError> {
        let mut copies = Vec::new();
        let mut octets = 0;
        while octets < STEP_OCTETS
            && let Some(id) = self.cleaning.plan.pop()
        {
            // It may have been settled in the meantime.
            let entry = self.shared.index().get(&id).cloned();
            if let Some(entry) = entry {
                octets += entry.at.octets;
                copies.push(self.read_back(id, entry)?);
            }
        }
        let mut records: Vec<_> = copies
            .iter()
            .flat_map(|copy| [Some(copy.message.clone()), copy.settled.clone()])
            .flatten()
            .collect();
        if records.is_empty() {
            return Ok(());
        }
        let start = self.write_copies(&mut records)?;
        self.point_to_copies(copies, start);
        Ok(())
    }

    fn point_to_copies(&self, copies: Vec<Copy>, mut offset: u64) {
        let Some(segment) = &self.current else {
            return;
        };
        let mut index = self.shared.index();
        for copy in copies {
            let at = Location {
                segment: segment.number,
                record_seed: segment.record_seed,
                file: Arc::clone(&segment.file),
                offset,
                ..copy.entry.at
            };
            index.moved(&copy.id, at);
            offset += copy.message.octets();
            offset += copy.settled.as_ref().map_or(0, Prepared::octets);
        }
    }

    fn read_back(&self, id: QueueId, entry: Entry) -> Result<Copy, SpoolError> {
        let path = self.shared.segment_path(entry.at.segment);
        let (head, content) = read_record(&entry.at).map_err(SpoolError::read(&path))?;
        if !intact(&head, &content, &id, entry.at.record_seed) {
            let id = id.to_string();
            return Err(SpoolError::Damaged { id, path });
        }
        let settled = (!entry.settled.is_empty()).then(|| {
            let earlier = entry
                .settled
                .iter()
                .map(|recipient| (*recipient, Settlement::Earlier));
            settle_job(id, &earlier.collect::<Vec<_>>(), None).record
        });
        Ok(Copy {
            id,
            message: Prepared::copied(head, vec![content]),
            settled,
            entry,
        })
    }
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
