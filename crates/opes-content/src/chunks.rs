//! A run of octets in memory, as the chunks in which it arrived. Slices of it are not copied.

use bytes::{Bytes, BytesMut};

/// Chunks below this size are joined with the one before, so that a client that sends octet by octet does not
/// cost a chunk, and a pinned receive buffer, for each.
const SMALL_OCTETS: usize = 1024;

/// Joining stops here.
const JOINED_OCTETS_MAX: usize = 4096;

/// Octets `start..end` of the message.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    list: Vec<Chunk>,
    start: u64,
    end: u64,
}

#[derive(Debug)]
struct Chunk {
    /// Offset in the message just after this chunk.
    end: u64,
    octets: Bytes,
}

impl Chunks {
    /// No octets, the next one at `start`.
    pub(crate) fn starting_at(start: u64) -> Self {
        Self {
            list: Vec::new(),
            start,
            end: start,
        }
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }

    pub(crate) fn push(&mut self, octets: Bytes) {
        self.end += octets.len() as u64;
        let end = self.end;
        match self.list.last_mut() {
            Some(last) if joins(&last.octets, &octets) => {
                let mut joined = BytesMut::with_capacity(JOINED_OCTETS_MAX);
                joined.extend_from_slice(&last.octets);
                joined.extend_from_slice(&octets);
                *last = Chunk {
                    end,
                    octets: joined.freeze(),
                };
            }
            _ => self.list.push(Chunk { end, octets }),
        }
    }

    /// At most `max` octets from `offset`, all from one chunk; empty when `offset` is not in this run.
    pub(crate) fn slice(&self, offset: u64, max: usize) -> Bytes {
        if offset < self.start {
            return Bytes::new();
        }
        let index = self.list.partition_point(|chunk| chunk.end <= offset);
        let Some(chunk) = self.list.get(index) else {
            return Bytes::new();
        };
        let len = chunk.octets.len();
        let from = len - usize::try_from(chunk.end - offset).unwrap_or(len).min(len);
        chunk.octets.slice(from..len.min(from.saturating_add(max)))
    }

    /// All chunks, not copied.
    pub(crate) fn to_vec(&self) -> Vec<Bytes> {
        self.list.iter().map(|chunk| chunk.octets.clone()).collect()
    }
}

fn joins(last: &Bytes, next: &Bytes) -> bool {
    next.len() < SMALL_OCTETS && last.len() + next.len() <= JOINED_OCTETS_MAX
}
