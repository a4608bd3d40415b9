//! Where the octets of a message come from: the spool, or the session that still receives them.

use bytes::Bytes;
use opes_content::{ContentError, FILE_READ_OCTETS_MAX, Progress, View};
use opes_spool::{SpoolError, StoredContent};

/// A message to be sent, read from the start to the end, as often as wanted.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Stored(StoredContent),
    Live(View),
}

/// The octets are not to be had. The message must not be ended as if it were complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error(transparent)]
    Stored(#[from] SpoolError),
    #[error(transparent)]
    Live(#[from] ContentError),
}

impl Source {
    /// Octets, if known already.
    pub(crate) fn len(&self) -> Option<u64> {
        match self {
            Self::Stored(content) => Some(content.len()),
            Self::Live(view) => view.len(),
        }
    }

    /// Everything, if it is complete and in memory.
    pub(crate) fn in_memory(&self) -> Option<Vec<Bytes>> {
        match self {
            Self::Stored(content) => content.in_memory().map(<[Bytes]>::to_vec),
            Self::Live(view) => view.slices_in_memory(),
        }
    }

    /// The octets from `offset`, waiting for a client that is still sending; empty at the end.
    pub(crate) async fn read(&self, offset: u64) -> Result<Bytes, SourceError> {
        match self {
            Self::Stored(content) => Ok(content.read_at(offset, FILE_READ_OCTETS_MAX).await?),
            Self::Live(view) => read_live(view, offset).await,
        }
    }

    pub(crate) fn release_memory(&mut self) {
        if let Self::Stored(content) = self {
            content.release_memory();
        }
    }
}

async fn read_live(view: &View, offset: u64) -> Result<Bytes, SourceError> {
    loop {
        let octets = view.read_at(offset, FILE_READ_OCTETS_MAX).await?;
        if !octets.is_empty() {
            return Ok(octets);
        }
        match view.wait_beyond(offset).await {
            Progress::Ready => {}
            Progress::End => return Ok(Bytes::new()),
            Progress::Aborted => return Err(ContentError::Aborted.into()),
        }
    }
}
