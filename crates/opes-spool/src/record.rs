//! One record of a segment: a header of 64 octets, JSON, content, padding to 8. Laid out octet by octet in `docs/spool.md`.

use bytes::{Bytes, BytesMut};

use crate::QueueId;

/// Octets of a record header.
pub(crate) const HEADER_OCTETS: usize = 64;

/// Records start at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;

/// Where recovery looks for records after damage.
pub(crate) const MAGIC: [u8; 4] = *b"OPR1";

/// Version of the layout and JSON of each kind.
pub(crate) const RECORD_VERSION: u8 = 1;

const FLAG_OWN_FILE: u8 = 1;
const PADDING: [u8; 8] = [0; 8];

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message was taken.
    Message,
    /// Some recipients of a message need no more work.
    Settled,
}

/// A record header as found in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// `Err` holds the octet of a kind this version does not know.
    pub(crate) kind: Result<Kind, u8>,
    pub(crate) version: u8,
    /// The content is in a file of its own.
    pub(crate) own_file: bool,
    /// Octets of JSON.
    pub(crate) meta_len: u32,
    /// CRC32C of JSON and of the content in the record.
    pub(crate) payload_crc: u32,
    /// Octets of content, wherever it is.
    pub(crate) content_len: u64,
    pub(crate) id: QueueId,
    /// Up to here the segment was known to be on disk when this record was written. Tells damage from a torn write.
    pub(crate) durable_to: u64,
}

/// A record ready to be written, once the segment is known.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    /// Header and JSON.
    head: BytesMut,
    content: Vec<Bytes>,
    octets: u64,
    padding: usize,
}

// === impl Kind ===

impl Kind {
    fn octet(self) -> u8 {
        match self {
            Self::Message => 1,
            Self::Settled => 2,
        }
    }

    fn from_octet(octet: u8) -> Result<Self, u8> {
        match octet {
            1 => Ok(Self::Message),
            2 => Ok(Self::Settled),
            other => Err(other),
        }
    }
}

// === impl Header ===

impl Header {
    /// Octets of JSON and content that follow the header.
    pub(crate) fn payload_len(&self) -> u64 {
        u64::from(self.meta_len).saturating_add(self.inline_content_len())
    }

    /// Octets of content that are in the record itself.
    pub(crate) fn inline_content_len(&self) -> u64 {
        if self.own_file { 0 } else { self.content_len }
    }

    /// Octets of the whole record with padding.
    pub(crate) fn octets(&self) -> u64 {
        padded(self.payload_len().saturating_add(HEADER_OCTETS as u64))
    }

    /// `None` when these octets are no record header of the segment with this `seed`.
    pub(crate) fn parse(octets: &[u8; HEADER_OCTETS], seed: u32) -> Option<Self> {
        let field = Fields(octets);
        if octets.get(..4)? != MAGIC || field.u32(60)? != header_crc(octets, seed) {
            return None;
        }
        Some(Self {
            kind: Kind::from_octet(*octets.get(4)?),
            own_file: octets.get(5)? & FLAG_OWN_FILE != 0,
            version: *octets.get(6)?,
            meta_len: field.u32(8)?,
            payload_crc: field.u32(12)?,
            content_len: field.u64(16)?,
            id: QueueId {
                time_ms: field.u64(24)?,
                run: field.u32(32)?,
                counter: field.u32(36)?,
            },
            durable_to: field.u64(40)?,
        })
    }
}

// === impl Prepared ===

impl Prepared {
    /// A message whose content is in the record.
    pub(crate) fn message(id: QueueId, json: &[u8], content: Vec<Bytes>) -> Self {
        Self::new(Kind::Message, id, json, content, None)
    }

    /// A message whose `content_len` octets are in a file of their own.
    pub(crate) fn message_with_own_file(id: QueueId, json: &[u8], content_len: u64) -> Self {
        Self::new(Kind::Message, id, json, Vec::new(), Some(content_len))
    }

    /// Outcomes of recipients.
    pub(crate) fn settled(id: QueueId, json: &[u8]) -> Self {
        Self::new(Kind::Settled, id, json, Vec::new(), None)
    }

    fn new(
        kind: Kind,
        id: QueueId,
        json: &[u8],
        content: Vec<Bytes>,
        own_file: Option<u64>,
    ) -> Self {
        let inline: u64 = content.iter().map(|slice| slice.len() as u64).sum();
        let payload_crc = content.iter().fold(crc32c::crc32c(json), |crc, slice| {
            crc32c::crc32c_append(crc, slice)
        });
        let mut head = BytesMut::with_capacity(HEADER_OCTETS + json.len());
        head.extend_from_slice(&MAGIC);
        let flags = if own_file.is_some() { FLAG_OWN_FILE } else { 0 };
        head.extend_from_slice(&[kind.octet(), flags, RECORD_VERSION, 0]);
        // A JSON of 4 GiB is refused before it comes here: it fits no segment.
        let meta_len = u32::try_from(json.len()).unwrap_or(u32::MAX);
        head.extend_from_slice(&meta_len.to_le_bytes());
        head.extend_from_slice(&payload_crc.to_le_bytes());
        head.extend_from_slice(&own_file.unwrap_or(inline).to_le_bytes());
        head.extend_from_slice(&id.time_ms.to_le_bytes());
        head.extend_from_slice(&id.run.to_le_bytes());
        head.extend_from_slice(&id.counter.to_le_bytes());
        head.resize(HEADER_OCTETS, 0);
        head.extend_from_slice(json);
        Self::from_parts(head, content, inline)
    }

    /// A record that was read from another segment, to be copied as it is.
    pub(crate) fn copied(head: BytesMut, content: Vec<Bytes>) -> Self {
        let inline = content.iter().map(|slice| slice.len() as u64).sum();
        Self::from_parts(head, content, inline)
    }

    fn from_parts(head: BytesMut, content: Vec<Bytes>, inline: u64) -> Self {
        let exact = head.len() as u64 + inline;
        let octets = padded(exact);
        let padding = usize::try_from(octets - exact).unwrap_or(0);
        Self {
            head,
            content,
            octets,
            padding,
        }
    }

    /// Octets in the segment, with padding.
    pub(crate) fn octets(&self) -> u64 {
        self.octets
    }

    /// Octets of JSON.
    pub(crate) fn meta_len(&self) -> u32 {
        Fields(&self.head).u32(8).unwrap_or(0)
    }

    /// Binds the record to a segment: the header's last fields.
    pub(crate) fn seal(&mut self, seed: u32, durable_to: u64) {
        if let Some(field) = self.head.get_mut(40..48) {
            field.copy_from_slice(&durable_to.to_le_bytes());
        }
        let crc = header_crc(&self.head, seed);
        if let Some(field) = self.head.get_mut(60..64) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// Everything to write, in order.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let padding = PADDING.get(..self.padding).unwrap_or(&[]);
        let head = std::iter::once(&self.head[..]);
        let content = self.content.iter().map(|slice| &slice[..]);
        head.chain(content)
            .chain(std::iter::once(padding))
            .filter(|slice| !slice.is_empty())
    }
}

/// Little-endian fields of a header.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn u32(&self, at: usize) -> Option<u32> {
        let octets = self.0.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(octets.try_into().ok()?))
    }

    pub(crate) fn u64(&self, at: usize) -> Option<u64> {
        let octets = self.0.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(octets.try_into().ok()?))
    }
}

pub(crate) fn padded(octets: u64) -> u64 {
    octets
        .checked_next_multiple_of(ALIGNMENT)
        .unwrap_or(u64::MAX)
}

/// Seeded with the segment's number and salt, so that no record is taken for one of another segment.
pub(crate) fn header_crc(octets: &[u8], seed: u32) -> u32 {
    crc32c::crc32c_append(seed, octets.get(..60).unwrap_or(octets))
}
