//! A message as somebody sees it: the original, or the original as services have changed it.
//!
//! The rope's ranges count over the original and then the octets that services brought, in the order in which they came: one row of
//! octets, of which the first run is the client's.

use std::io;

use bytes::Bytes;
use opes_mime::{Piece, Rope, RopeError};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::{Adaptation, Content, ContentError, FILE_READ_OCTETS_MAX, Progress};

/// A content and, when a service adapted it, the rope over it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    content: Content,
    /// What services brought; only where the original is complete.
    own: Vec<Content>,
    rope: Option<Rope>,
}

impl View {
    /// The message as it came, possibly still growing.
    pub fn original(content: Content) -> Self {
        Self {
            content,
            own: Vec::new(),
            rope: None,
        }
    }

    /// The message as `rope` describes it.
    pub fn adapted(content: Content, rope: Rope) -> Self {
        Self {
            content,
            own: Vec::new(),
            rope: Some(rope),
        }
    }

    /// What `outer`, an adaptation of this view, makes of it; `None` = no change.
    pub fn compose(&self, outer: Option<Rope>) -> Result<Self, RopeError> {
        let rope = match (&self.rope, outer) {
            (inner, None) => inner.clone(),
            (None, Some(outer)) => Some(outer),
            (Some(inner), Some(outer)) => Some(inner.compose(&outer)?),
        };
        Ok(Self {
            content: self.content.clone(),
            own: self.own.clone(),
            rope,
        })
    }

    /// What a service made of this view, which is complete.
    pub fn adapt(&self, adaptation: &Adaptation) -> Result<Self, RopeError> {
        let Some(own) = &adaptation.own else {
            return self.compose(Some(adaptation.rope.clone()));
        };
        let mut row = match &self.rope {
            Some(rope) => rope.pieces().to_vec(),
            None => Rope::identity(self.len_now()).pieces().to_vec(),
        };
        row.push(Piece::Original {
            offset: self.sources_len(),
            len: own.len_now(),
        });
        let rope = Rope::from_pieces(row).compose(&adaptation.rope)?;
        Ok(self.over_sources(rope, own.clone()))
    }

    /// `rope` over what there is and `own` behind it.
    pub(crate) fn over_sources(&self, rope: Rope, own: Content) -> Self {
        let mut view = self.clone();
        view.own.push(own);
        view.rope = Some(rope);
        view
    }

    /// Octets of the original and of all that services brought.
    pub(crate) fn sources_len(&self) -> u64 {
        let sources = [&self.content].into_iter().chain(&self.own);
        sources.map(Content::len_now).sum()
    }

    /// The content with octet `offset` of the row, where it is there, and how many octets from there on are in the same one.
    fn source(&self, offset: u64) -> (&Content, u64, u64) {
        let mut start = 0;
        for source in [&self.content].into_iter().chain(&self.own) {
            let end = start + source.len_now();
            if offset < end {
                return (source, offset - start, end - offset);
            }
            start = end;
        }
        // Beyond all: the original may still grow, or it is for the original to say so.
        (&self.content, offset, u64::MAX)
    }

    /// The original.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The adaptation; `None` = the original as it is.
    pub fn rope(&self) -> Option<&Rope> {
        self.rope.as_ref()
    }

    /// Octets; `None` while an original without adaptation grows.
    pub fn len(&self) -> Option<u64> {
        match &self.rope {
            Some(rope) => Some(rope.len()),
            None => self.content.len(),
        }
    }

    /// Known to have no octets.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Octets that can be read from the start on without waiting; for an adapted view, all of them.
    pub fn len_now(&self) -> u64 {
        self.len().unwrap_or_else(|| self.content.len_now())
    }

    /// As [`Content::wait_beyond`], in offsets of this view.
    pub async fn wait_beyond(&self, offset: u64) -> Progress {
        let Some(rope) = &self.rope else {
            return self.content.wait_beyond(offset).await;
        };
        match rope.pieces_from(offset).next() {
            None => Progress::End,
            Some(Piece::Inserted(_)) => Progress::Ready,
            Some(Piece::Original { offset, .. }) => {
                let (source, offset, _) = self.source(offset);
                source.wait_beyond(offset).await
            }
        }
    }

    /// As [`Content::read_at`], in offsets of this view. A rope that names octets the complete original does not have fails with
    /// [`ContentError::OutOfRange`].
    pub async fn read_at(&self, offset: u64, max: usize) -> Result<Bytes, ContentError> {
        let Some(rope) = &self.rope else {
            return self.content.read_at(offset, max).await;
        };
        let piece = rope.pieces_from(offset).next();
        match piece {
            None => Ok(Bytes::new()),
            Some(Piece::Inserted(octets)) => Ok(octets.slice(..octets.len().min(max))),
            Some(Piece::Original { offset, len }) => {
                let (source, offset, there) = self.source(offset);
                let max = usize::try_from(len.min(there)).unwrap_or(max).min(max);
                let octets = source.read_at(offset, max).await?;
                self.check_there(offset, &octets)?;
                Ok(octets)
            }
        }
    }

    fn check_there(&self, offset: u64, octets: &Bytes) -> Result<(), ContentError> {
        match self.content.len() {
            Some(len) if octets.is_empty() && offset >= len => {
                Err(ContentError::OutOfRange { offset, len })
            }
            _ => Ok(()),
        }
    }

    /// The whole message as slices in order, nothing copied; `None` while it grows, when a part is in a file, or when the rope
    /// does not fit the original.
    pub fn slices_in_memory(&self) -> Option<Vec<Bytes>> {
        let chunks = self.content.in_memory()?;
        let Some(rope) = &self.rope else {
            return Some(chunks);
        };
        let mut slices = Vec::with_capacity(chunks.len() + rope.pieces().len());
        for piece in rope.pieces() {
            match piece {
                Piece::Inserted(octets) => slices.push(octets.clone()),
                Piece::Original { offset, len } => self.slice_range(*offset, *len, &mut slices)?,
            }
        }
        Some(slices)
    }

    fn slice_range(&self, mut offset: u64, len: u64, slices: &mut Vec<Bytes>) -> Option<()> {
        let end = offset.checked_add(len)?;
        while offset < end {
            let (source, at, there) = self.source(offset);
            let max = usize::try_from(there.min(end - offset)).unwrap_or(usize::MAX);
            let slice = source.slice_in_memory(at, max);
            if slice.is_empty() {
                return None;
            }
            offset += slice.len() as u64;
            slices.push(slice);
        }
        Some(())
    }

    /// Writes the whole message, waiting for octets that are still to come. Gives the octets written; does not flush.
    pub async fn write_to<W: AsyncWrite + Unpin>(&self, writer: &mut W) -> io::Result<u64> {
        let mut offset = 0;
        loop {
            let octets = self.read_at(offset, FILE_READ_OCTETS_MAX).await?;
            if !octets.is_empty() {
                writer.write_all(&octets).await?;
                offset += octets.len() as u64;
                continue;
            }
            match self.wait_beyond(offset).await {
                Progress::Ready => {}
                Progress::End => return Ok(offset),
                Progress::Aborted => return Err(ContentError::Aborted.into()),
            }
        }
    }
}
