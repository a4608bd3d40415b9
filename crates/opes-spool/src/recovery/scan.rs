//! Reading one segment: its records, and the octets that are none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::record::{ALIGNMENT, HEADER_OCTETS, Header, MAGIC};
use crate::segment::{HEADER_PLACES, SEGMENT_HEADER_OCTETS, SegmentHeader};

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
    /// Just after the last place that looked like a record.
    tried_to: u64,
}

/// What starts like a record.
enum Candidate {
    Record(Record),
    /// It is none; the next may be at `end`.
    Broken {
        end: u64,
    },
}

/// A segment file.
struct Reader<'a> {
    file: &'a File,
    len: u64,
    record_seed: u32,
}

/// Reads segment `number`, a file of `len` octets. Without a segment header there are no records.
pub(crate) fn scan(file: &File, number: u64, len: u64) -> io::Result<Scan> {
    let mut scan = Scan {
        end: SEGMENT_HEADER_OCTETS,
        durable_to: SEGMENT_HEADER_OCTETS,
        ..Scan::default()
    };
    let mut reader = Reader {
        file,
        len,
        record_seed: 0,
    };
    scan.header = reader.segment_header(number)?;
    if let Some(header) = scan.header {
        reader.record_seed = header.record_seed();
        reader.records(&mut scan)?;
    }
    Ok(scan)
}

impl Reader<'_> {
    fn records(&self, scan: &mut Scan) -> io::Result<()> {
        let mut offset = SEGMENT_HEADER_OCTETS;
        while let Some(candidate) = self.next_magic(offset)? {
            offset = match self.record_at(candidate)? {
                Candidate::Record(record) => {
                    scan.close_gap(candidate);
                    scan.push(record)
                }
                Candidate::Broken { end } => end,
            };
            scan.tried_to = offset;
        }
        Ok(())
    }

    fn segment_header(&self, number: u64) -> io::Result<Option<SegmentHeader>> {
        for place in HEADER_PLACES {
            if place + HEADER_OCTETS as u64 <= self.len
                && let Some(header) = SegmentHeader::parse(&self.header_octets(place)?, number)
            {
                return Ok(Some(header));
            }
        }
        Ok(None)
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

    fn record_at(&self, offset: u64) -> io::Result<Candidate> {
        let header = Header::parse(&self.header_octets(offset)?, self.record_seed);
        let payload = offset + HEADER_OCTETS as u64;
        let Some(header) =
            header.filter(|header| header.payload_len() <= self.len.saturating_sub(payload))
        else {
            let end = offset + ALIGNMENT;
            return Ok(Candidate::Broken { end });
        };
        let json = self.read(payload, u64::from(header.meta_len), usize::MAX)?;
        let content = payload + u64::from(header.meta_len);
        let crc = self.crc(crc32c::crc32c(&json), content, header.inline_content_len())?;
        if crc != header.payload_crc {
            // The length is right all the same.
            let end = offset + header.octets();
            return Ok(Candidate::Broken { end });
        }
        Ok(Candidate::Record(Record {
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

    /// Octets between the last record and one at `record_at`.
    fn close_gap(&mut self, record_at: u64) {
        if self.end < record_at {
            self.gaps.push(Gap {
                start: self.end,
                end: record_at,
            });
        }
    }

    /// Something was written behind the last record that is none.
    pub(crate) fn is_torn(&self) -> bool {
        self.tried_to > self.end
    }

    /// Of the records.
    pub(crate) fn record_seed(&self) -> u32 {
        self.header.map_or(0, |header| header.record_seed())
    }
}
