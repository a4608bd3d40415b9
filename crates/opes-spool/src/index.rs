//! What is live, and where: about 120 octets of memory a message. Rebuilt by recovery; never written.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use crate::QueueId;
use crate::record::HEADER_OCTETS;

/// Where the record of a message is.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) segment: u64,
    /// Start of the checksums of that segment's records.
    pub(crate) record_seed: u32,
    pub(crate) file: Arc<File>,
    /// Of the record header, in the segment.
    pub(crate) offset: u64,
    pub(crate) meta_len: u32,
    pub(crate) content_len: u64,
    pub(crate) own_file: bool,
    /// Of the whole record.
    pub(crate) octets: u64,
}

/// A message that is not settled.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) at: Location,
    pub(crate) recipients: u32,
    /// Indices, each once.
    pub(crate) settled: Vec<u32>,
}

/// Live records of one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) messages: u64,
    pub(crate) octets: u64,
}

/// All live messages.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: HashMap<QueueId, Entry>,
    live: HashMap<u64, Live>,
}

/// What a settlement did to a message.
#[derive(Debug)]
pub(crate) enum Settled {
    /// Not in the index: all recipients were settled before.
    Unknown,
    /// Other recipients are pending.
    Partly,
    /// It was the last one; this was the message.
    Completely(Entry),
}

// === impl Location ===

impl Location {
    /// Where the content starts in the segment.
    pub(crate) fn content_offset(&self) -> u64 {
        self.offset + HEADER_OCTETS as u64 + u64::from(self.meta_len)
    }
}

// === impl Settled ===

impl Settled {
    /// `id`, if that was the last of a message whose content is in a file of its own, which may go now.
    pub(crate) fn own_file(&self, id: QueueId) -> Option<QueueId> {
        match self {
            Self::Completely(entry) if entry.at.own_file => Some(id),
            Self::Completely(_) | Self::Partly | Self::Unknown => None,
        }
    }
}

// === impl Index ===

impl Index {
    pub(crate) fn insert(&mut self, id: QueueId, entry: Entry) {
        self.count(&entry.at);
        if let Some(old) = self.entries.insert(id, entry) {
            self.discount(&old.at);
        }
    }

    pub(crate) fn get(&self, id: &QueueId) -> Option<&Entry> {
        self.entries.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn settle(&mut self, id: &QueueId, recipients: &[u32]) -> Settled {
        let Some(entry) = self.entries.get_mut(id) else {
            return Settled::Unknown;
        };
        for recipient in recipients {
            if *recipient < entry.recipients && !entry.settled.contains(recipient) {
                entry.settled.push(*recipient);
            }
        }
        if entry.settled.len() < entry.recipients as usize {
            return Settled::Partly;
        }
        match self.entries.remove(id) {
            Some(entry) => {
                self.discount(&entry.at);
                Settled::Completely(entry)
            }
            None => Settled::Unknown,
        }
    }

    /// The record of `id` has been copied to `at`.
    pub(crate) fn moved(&mut self, id: &QueueId, at: Location) {
        if let Some(mut entry) = self.entries.get(id).cloned() {
            entry.at = at;
            self.insert(*id, entry);
        }
    }

    /// Live records of a segment.
    pub(crate) fn live(&self, segment: u64) -> Live {
        self.live.get(&segment).copied().unwrap_or_default()
    }

    /// Octets of all live records.
    pub(crate) fn live_octets(&self) -> u64 {
        self.live.values().map(|live| live.octets).sum()
    }

    /// Messages whose record is in `segment`.
    pub(crate) fn in_segment(&self, segment: u64) -> Vec<QueueId> {
        let here = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.at.segment == segment);
        let mut ids: Vec<_> = here.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    fn count(&mut self, at: &Location) {
        let live = self.live.entry(at.segment).or_default();
        live.messages += 1;
        live.octets += at.octets;
    }

    fn discount(&mut self, at: &Location) {
        if let Some(live) = self.live.get_mut(&at.segment) {
            live.messages = live.messages.saturating_sub(1);
            live.octets = live.octets.saturating_sub(at.octets);
            if live.messages == 0 {
                self.live.remove(&at.segment);
            }
        }
    }
}
