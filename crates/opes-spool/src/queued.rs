//! A message in the spool as the relay holds it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use opes_content::{FILE_READ_OCTETS_MAX, Reservation};
use serde::{Deserialize, Serialize};

use crate::disk::run_blocking;
use crate::spool::Shared;
use crate::{Envelope, QueueId, SpoolError};

/// What became of a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Settlement {
    /// The next hop, or the mailbox, has taken responsibility.
    Delivered,
    /// It will never be delivered.
    Failed {
        /// The reply that said so, in SMTP form.
        reply: String,
    },
    /// The client was not told 250 after all; nobody waits for the message.
    Withdrawn,
    /// Settled earlier; the outcome was recorded in a segment that has been cleaned away.
    Earlier,
}

/// A durable message with recipients that are not settled. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queued {
    /// Its name.
    pub id: QueueId,
    /// Everything but the content.
    pub envelope: Arc<Envelope>,
    /// The octets to deliver.
    pub content: StoredContent,
    /// Indices into [`Envelope::recipients`] that are not settled, ascending.
    pub pending: Vec<u32>,
}

/// The content of a durable message: kept in memory for immediate delivery while that is cheap, else read from the spool.
#[derive(Clone)]
pub struct StoredContent {
    id: QueueId,
    len: u64,
    kept: Option<Arc<Kept>>,
    shared: Arc<Shared>,
}

/// Content in memory, counted.
#[derive(Debug)]
pub(crate) struct Kept {
    slices: Vec<Bytes>,
    _counted: Reservation,
}

/// A [`Queued`] on its way to the one who stored it. If that one has gone, the client was not told 250, and the message is withdrawn.
/// A report is not: no client waits for it, and the recipients that it settles would be left without word. The next start delivers it.
pub(crate) struct Receipt(Option<Queued>);

/// Where to read.
enum Source {
    Segment { file: Arc<File>, offset: u64 },
    OwnFile(PathBuf),
}

// === impl Kept ===

impl Kept {
    pub(crate) fn new(slices: Vec<Bytes>, counted: Reservation) -> Self {
        Self {
            slices,
            _counted: counted,
        }
    }

    fn slice(&self, mut offset: u64, max: usize) -> Bytes {
        for slice in &self.slices {
            let len = slice.len() as u64;
            if offset < len {
                let from = usize::try_from(offset).unwrap_or(slice.len());
                return slice.slice(from..slice.len().min(from.saturating_add(max)));
            }
            offset -= len;
        }
        Bytes::new()
    }
}

// === impl StoredContent ===

impl StoredContent {
    pub(crate) fn new(id: QueueId, len: u64, kept: Option<Arc<Kept>>, shared: Arc<Shared>) -> Self {
        Self {
            id,
            len,
            kept,
            shared,
        }
    }

    /// Octets.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// No octets.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The whole content, if it is still in memory.
    pub fn in_memory(&self) -> Option<&[Bytes]> {
        self.kept.as_ref().map(|kept| &kept.slices[..])
    }

    /// Lets go of the content in memory; later reads go to the disk. For a message that has to wait.
    pub fn release_memory(&mut self) {
        self.kept = None;
    }

    /// At least one octet and at most `max` from `offset`, empty at the end. From disk in steps of at most
    /// [`FILE_READ_OCTETS_MAX`].
    pub async fn read_at(&self, offset: u64, max: usize) -> Result<Bytes, SpoolError> {
        let left = self.len.saturating_sub(offset);
        if left == 0 || max == 0 {
            return Ok(Bytes::new());
        }
        if let Some(kept) = &self.kept {
            return Ok(kept.slice(offset, max));
        }
        let max = max.min(FILE_READ_OCTETS_MAX);
        let len = usize::try_from(left).unwrap_or(max).min(max);
        let (source, path) = self.source(offset)?;
        let disk = &*self.shared.disk;
        let read = run_blocking(disk, move || source.read(offset, len)).await;
        read.flatten().map_err(SpoolError::read(&path))
    }

    fn source(&self, offset: u64) -> Result<(Source, PathBuf), SpoolError> {
        let index = self.shared.index();
        let entry = index.get(&self.id).ok_or_else(|| SpoolError::Unknown {
            id: self.id.to_string(),
        })?;
        if entry.at.own_file {
            let path = self.shared.own_file_path(&self.id);
            return Ok((Source::OwnFile(path.clone()), path));
        }
        let source = Source::Segment {
            file: Arc::clone(&entry.at.file),
            offset: entry.at.content_offset() + offset,
        };
        Ok((source, self.shared.segment_path(entry.at.segment)))
    }
}

impl std::fmt::Debug for StoredContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredContent")
            .field("id", &self.id)
            .field("len", &self.len)
            .field("in_memory", &self.kept.is_some())
            .finish_non_exhaustive()
    }
}

// === impl Source ===

impl Source {
    fn read(self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut octets = vec![0; len];
        match self {
            Self::Segment { file, offset } => file.read_exact_at(&mut octets, offset)?,
            Self::OwnFile(path) => File::open(path)?.read_exact_at(&mut octets, offset)?,
        }
        Ok(octets.into())
    }
}

// === impl Receipt ===

impl Receipt {
    pub(crate) fn new(queued: Queued) -> Self {
        Self(Some(queued))
    }

    pub(crate) fn claim(mut self) -> Option<Queued> {
        self.0.take()
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(queued) = self.0.take()
            && queued.envelope.reports_on.is_none()
        {
            let shared = Arc::clone(&queued.content.shared);
            shared.withdraw(&queued);
        }
    }
}
