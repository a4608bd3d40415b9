//! A segment file: a header, kept twice, then records. Only the newest is written; only the oldest is ever removed.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opes_host::Clock;

use crate::SpoolError;
use crate::disk::{Disk, write_all_at};
use crate::record::{Fields, HEADER_OCTETS, Prepared, header_crc};

/// Octets before the first record: the header in each of two blocks, since without its salt no record can be told from content.
pub(crate) const SEGMENT_HEADER_OCTETS: u64 = 2 * BLOCK_OCTETS as u64;

/// What a disk loses at once, if it loses something.
const BLOCK_OCTETS: usize = 4096;

/// Where the copies of the header are.
pub(crate) const HEADER_PLACES: [u64; 2] = [0, BLOCK_OCTETS as u64];

const SEGMENT_MAGIC: [u8; 8] = *b"OPESSPL1";
const SUFFIX: &str = ".seg";

/// Where a segment that has been left behind ends: messages recorded after that were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SegmentEnd {
    pub(crate) number: u64,
    pub(crate) end: u64,
}

/// The first octets of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) created_ms: u64,
    /// Random; part of every record's checksum, so that nobody can send mail that looks like records after damage.
    pub(crate) salt: u64,
    /// The segment that was written before this one.
    pub(crate) previous: SegmentEnd,
}

/// The segment that is being written.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
    /// Where the next record goes.
    pub(crate) end: u64,
    /// Up to here it is on disk.
    pub(crate) durable_to: u64,
    pub(crate) record_seed: u32,
    capacity: u64,
    purpose: Purpose,
}

/// What a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Everything.
    Messages,
    /// To empty the spool while the volume is full: no new messages. On disk the same, only smaller.
    Draining,
}

/// Where records went.
#[derive(Debug, Clone)]
pub(crate) struct Appended {
    pub(crate) segment: u64,
    pub(crate) record_seed: u32,
    pub(crate) file: Arc<File>,
    /// Offset of the first.
    pub(crate) start: u64,
    /// Of all together.
    pub(crate) octets: u64,
}

/// Name of segment `number` in `dir`.
pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}{SUFFIX}"))
}

/// The number in a file name, if it is one of a segment.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX)?.parse().ok()
}

// === impl SegmentHeader ===

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_OCTETS] {
        let mut octets = [0; HEADER_OCTETS];
        octets[..8].copy_from_slice(&SEGMENT_MAGIC);
        octets[8..16].copy_from_slice(&self.number.to_le_bytes());
        octets[16..24].copy_from_slice(&self.created_ms.to_le_bytes());
        octets[24..32].copy_from_slice(&self.previous.number.to_le_bytes());
        octets[32..40].copy_from_slice(&self.previous.end.to_le_bytes());
        octets[40..48].copy_from_slice(&self.salt.to_le_bytes());
        let crc = header_crc(&octets, seed(self.number, 0));
        octets[60..].copy_from_slice(&crc.to_le_bytes());
        octets
    }

    /// `None` when these octets are not the header of segment `number`.
    pub(crate) fn parse(octets: &[u8; HEADER_OCTETS], number: u64) -> Option<Self> {
        let field = Fields(octets);
        let crc = field.u32(60)?;
        if octets.get(..8)? != SEGMENT_MAGIC || crc != header_crc(octets, seed(number, 0)) {
            return None;
        }
        Some(Self {
            number,
            created_ms: field.u64(16)?,
            previous: SegmentEnd {
                number: field.u64(24)?,
                end: field.u64(32)?,
            },
            salt: field.u64(40)?,
        })
    }

    /// Where the checksums of this segment's records start from.
    pub(crate) fn record_seed(&self) -> u32 {
        seed(self.number, self.salt)
    }
}

fn seed(number: u64, salt: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &salt.to_le_bytes())
}

/// From the system's entropy, by way of the hash maps' keys.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

// === impl Segment ===

impl Segment {
    /// A new segment file of `capacity` octets whose header, size and name are durable.
    pub(crate) fn create(
        disk: &dyn Disk,
        dir: &Path,
        number: u64,
        (purpose, capacity): (Purpose, u64),
        previous: SegmentEnd,
    ) -> Result<Self, SpoolError> {
        let path = segment_path(dir, number);
        let created = Self::create_at(disk, dir, &path, number, (purpose, capacity), previous);
        if created.is_err() {
            // Left behind it would be harmless: recovery takes a segment without records for what it is.
            let _ = disk.remove(&path);
        }
        created
    }

    fn create_at(
        disk: &dyn Disk,
        dir: &Path,
        path: &Path,
        number: u64,
        (purpose, capacity): (Purpose, u64),
        previous: SegmentEnd,
    ) -> Result<Self, SpoolError> {
        let header = SegmentHeader {
            number,
            created_ms: Clock::System.epoch_ms(),
            salt: random(),
            previous,
        };
        let mut block = vec![0; BLOCK_OCTETS];
        block[..HEADER_OCTETS].copy_from_slice(&header.encode());
        let file = disk
            .create(path, capacity)
            .map_err(SpoolError::write(path))?;
        let mut blocks = [IoSlice::new(&block), IoSlice::new(&block)];
        write_all_at(disk, &file, &mut blocks, 0).map_err(SpoolError::write(path))?;
        disk.sync_all(&file).map_err(SpoolError::sync(path))?;
        disk.sync_dir(dir).map_err(SpoolError::sync(dir))?;
        Ok(Self {
            number,
            path: path.to_owned(),
            file: Arc::new(file),
            end: SEGMENT_HEADER_OCTETS,
            durable_to: SEGMENT_HEADER_OCTETS,
            record_seed: header.record_seed(),
            capacity,
            purpose,
        })
    }

    /// Octets left.
    pub(crate) fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.end)
    }

    /// Where the next one would say that this one ended.
    pub(crate) fn ends(&self) -> SegmentEnd {
        SegmentEnd {
            number: self.number,
            end: self.end,
        }
    }

    pub(crate) fn takes_messages(&self) -> bool {
        self.purpose == Purpose::Messages
    }

    /// Writes `records` in one go. Nothing is counted as written after an error.
    pub(crate) fn append<'a>(
        &mut self,
        disk: &dyn Disk,
        records: impl IntoIterator<Item = &'a mut Prepared>,
    ) -> Result<Appended, SpoolError> {
        let start = self.end;
        let mut octets = 0;
        let mut slices = Vec::new();
        for record in records {
            record.seal(self.record_seed, self.durable_to);
            octets += record.octets();
            slices.extend(record.slices().map(IoSlice::new));
        }
        write_all_at(disk, &self.file, &mut slices, start)
            .map_err(SpoolError::write(&self.path))?;
        self.end += octets;
        Ok(Appended {
            segment: self.number,
            record_seed: self.record_seed,
            file: Arc::clone(&self.file),
            start,
            octets,
        })
    }

    /// Gives reserved octets back that will not be used.
    pub(crate) fn trim(&self, disk: &dyn Disk) {
        if let Err(error) = disk.set_len(&self.file, self.end) {
            tracing::debug!(path = %self.path.display(), %error, "cannot cut spool segment to its size");
        }
    }
}
