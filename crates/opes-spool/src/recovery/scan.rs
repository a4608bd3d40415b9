//! Reading one segment: its records, and the octets that are none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::record::{ALIGNMENT, HEADER_OCTETS, Header, MAGIC, padded};
use crate::segment::{SEGMENT_HEADER_OCTETS, SegmentHeader};

/// Octets read at a time.
const STEP_OCTETS: usize = 256 * 1024;

/// A record whose checksums are right.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    pub(crate) header: Header,
    pub(crate) json: Vec<u8>,
}

/// Octets that are no record although something was written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// What is in a segment file.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// `None`: not written, or damaged.
    pub(crate) header: Option<SegmentHeader>,
    pub(crate) records: Vec<Record>,
    pub(crate) gaps: Vec<Gap>,
    /// Just after the last record.
    pub(crate) end: u64,
    /// Highest [`Header::durable_to`] seen: before this, a gap is damage and not a torn write.
    pub(crate) durable_to: u64,
}

/// A segment file and its size.
pub(crate) struct Reader<'a> {
    pub(crate) file: &'a File,
    pub(crate) number: u64,
    pub(crate) len: u64,
}

impl Reader<'_> {
    pub(crate) fn scan(&self) -> io::Result<Scan> {
        let mut scan = Scan {
            header: self.segment_header()?,
            end: SEGMENT_HEADER_OCTETS,
            durable_to: SEGMENT_HEADER_OCTETS,
            ..Scan::default()
        };
        let mut offset = SEGMENT_HEADER_OCTETS;
        let mut gap_start = None;
        while let Some(candidate) = self.next_magic(offset)? {
            offset = match self.record_at(candidate)? {
                Some(record) => {
                    scan.close_gap(gap_start.take(), candidate);
                    scan.push(record)
                }
                None => {
                    gap_start.get_or_insert(scan.end);
                    candidate + ALIGNMENT
                }
            };
        }
        scan.close_last_gap(gap_start, self.len);
        Ok(scan)
    }

    fn segment_header(&self) -> io::Result<Option<SegmentHeader>> {
        if self.len < SEGMENT_HEADER_OCTETS {
            return Ok(None);
        }
        let octets = self.header_octets(0)?;
        Ok(SegmentHeader::parse(&octets, self.number))
    }

    fn header_octets(&self, offset: u64) -> io::Result<[u8; HEADER_OCTETS]> {
        let mut octets = [0; HEADER_OCTETS];
        self.file.read_exact_at(&mut octets, offset)?;
        Ok(octets)
    }

    /// The next aligned place at or after `offset` that starts like a record.
    fn next_magic(&self, mut offset: u64) -> io::Result<Option<u64>> {
        let mut first = 4096;
        while offset + HEADER_OCTETS as u64 <= self.len {
            let octets = self.read(offset, self.len - offset, first)?;
            first = STEP_OCTETS;
            let mut places = octets.chunks(8).zip((offset..).step_by(8));
            if let Some((_, place)) = places.find(|(octets, _)| octets.starts_with(&MAGIC)) {
                return Ok((place + HEADER_OCTETS as u64 <= self.len).then_some(place));
            }
            offset += octets.len() as u64;
        }
        Ok(None)
    }

    fn record_at(&self, offset: u64) -> io::Result<Option<Record>> {
        let Some(header) = Header::parse(&self.header_octets(offset)?, self.number) else {
            return Ok(None);
        };
        let payload = offset + HEADER_OCTETS as u64;
        if header.payload_len() > self.len.saturating_sub(payload) {
            return Ok(None);
        }
        let json = self.read(payload, u64::from(header.meta_len), usize::MAX)?;
        let content = payload + u64::from(header.meta_len);
        let crc = self.crc(crc32c::crc32c(&json), content, header.inline_content_len())?;
        Ok((crc == header.payload_crc).then_some(Record {
            offset,
            header,
            json,
        }))
    }

    fn crc(&self, mut crc: u32, mut offset: u64, mut left: u64) -> io::Result<u32> {
        while left > 0 {
            let octets = self.read(offset, left, STEP_OCTETS)?;
            crc = crc32c::crc32c_append(crc, &octets);
            offset += octets.len() as u64;
            left -= octets.len() as u64;
        }
        Ok(crc)
    }

    /// `len` octets, but no more than `max`; the caller has made sure that they exist.
    fn read(&self, offset: u64, len: u64, max: usize) -> io::Result<Vec<u8>> {
        let mut octets = vec![0; usize::try_from(len).unwrap_or(max).min(max)];
        self.file.read_exact_at(&mut octets, offset)?;
        Ok(octets)
    }
}

impl Scan {
    /// Takes a record; gives the offset behind it.
    fn push(&mut self, record: Record) -> u64 {
        self.end = record.offset + record.header.octets();
        self.durable_to = self.durable_to.max(record.header.durable_to);
        self.records.push(record);
        self.end
    }

    /// Octets between records: jumped over because a header was broken, whether or not a candidate lay in between.
    fn close_gap(&mut self, tried: Option<u64>, record_at: u64) {
        let start = tried.unwrap_or(self.end);
        if start < record_at {
            self.gaps.push(Gap {
                start,
                end: record_at,
            });
        }
    }

    /// A broken record at the end; zeros behind the last record are no gap.
    fn close_last_gap(&mut self, tried: Option<u64>, len: u64) {
        if let Some(start) = tried {
            let end = padded(start).max(len);
            self.gaps.push(Gap { start, end });
        }
    }
}
