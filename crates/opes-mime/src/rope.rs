//! An adapted message: a list of pieces over ONE original, plus inserted octets.
//!
//! Owns no message octets except what was inserted. Cloning is one reference count. Offsets and lengths are octets.
//! Fails with [`RopeError`] when a range or a splice does not fit; arithmetic saturates and never wraps.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Most pieces a rope may have after [`Rope::splice_all`] or [`Rope::compose`]; beyond it the edit is refused.
pub const PIECES_MAX: usize = 65_536;

/// A run of inserted pieces that are smaller than this on average is copied into one.
const INSERTED_MERGE_OCTETS: usize = 4096;

/// A part of an adapted message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// `len` octets of the original, from `offset`.
    Original {
        /// Octets from the start of the original.
        offset: u64,
        /// Octets.
        len: u64,
    },
    /// New octets.
    Inserted(Bytes),
}

/// One change: `size` octets from `offset` give way to `replacement`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    /// Where, in octets of the message that is edited.
    pub offset: u64,
    /// How many octets go; 0 = insert only.
    pub size: u64,
    /// What takes their place; may be empty.
    pub replacement: Bytes,
}

/// An adapted message as pieces over one original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rope(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    pieces: Vec<Piece>,
    /// End position of each piece in the adapted message: increasing, as long as `pieces`.
    ends: Vec<u64>,
    inserted: u64,
}

/// Why a rope could not be cut, spliced or composed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RopeError {
    /// The range ends beyond the message, or before it starts.
    #[error(
        "octets {start}..{end} are not inside the message of {len} octets; use offsets of the message as it was sent"
    )]
    OutOfRange {
        /// First octet asked for.
        start: u64,
        /// End asked for, exclusive.
        end: u64,
        /// Octets there are.
        len: u64,
    },
    /// Splices are not sorted by offset, or overlap.
    #[error(
        "splice at octet {offset} starts before the previous one ends at {previous_end}; sort splices and keep them apart"
    )]
    Overlap {
        /// Start of the splice at fault.
        offset: u64,
        /// Where the one before it ends.
        previous_end: u64,
    },
    /// More than [`PIECES_MAX`] pieces.
    #[error("the adapted message has more than {PIECES_MAX} pieces; send larger replacements")]
    TooManyPieces,
}

impl Piece {
    /// Octets.
    pub fn len(&self) -> u64 {
        match self {
            Self::Original { len, .. } => *len,
            Self::Inserted(octets) => octets.len() as u64,
        }
    }

    /// No octets.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `from..to` of this piece; the caller keeps the range inside the piece.
    fn cut(&self, from: u64, to: u64) -> Self {
        match self {
            Self::Original { offset, .. } => Self::Original {
                offset: offset.saturating_add(from),
                len: to.saturating_sub(from),
            },
            Self::Inserted(octets) => {
                let clamp =
                    |at: u64| usize::try_from(at).map_or(octets.len(), |at| at.min(octets.len()));
                let (from, to) = (clamp(from), clamp(to));
                Self::Inserted(octets.slice(from.min(to)..to))
            }
        }
    }
}

impl Rope {
    /// The original, unchanged; `len` octets.
    pub fn identity(len: u64) -> Self {
        Self::from_pieces(vec![Piece::Original { offset: 0, len }])
    }

    /// Pieces in order. Drops empty ones, merges neighbours: adjacent ranges of the original always, small inserted ones by copying.
    pub fn from_pieces(pieces: Vec<Piece>) -> Self {
        let mut builder = Builder::default();
        for piece in pieces {
            builder.push(piece);
        }
        builder.finish()
    }

    /// Octets of the adapted message.
    pub fn len(&self) -> u64 {
        self.0.ends.last().copied().unwrap_or(0)
    }

    /// No octets at all.
    pub fn is_empty(&self) -> bool {
        self.0.pieces.is_empty()
    }

    /// The pieces, none empty.
    pub fn pieces(&self) -> &[Piece] {
        &self.0.pieces
    }

    /// Octets that are not from the original.
    pub fn inserted_len(&self) -> u64 {
        self.0.inserted
    }

    /// Is it the whole original of `original_len` octets, unchanged?
    pub fn is_identity(&self, original_len: u64) -> bool {
        match self.pieces() {
            [] => original_len == 0,
            [Piece::Original { offset: 0, len }] => *len == original_len,
            _ => false,
        }
    }

    /// End of the furthest octet of the original that is used. Must not exceed the original's length: check ropes built from a peer's data.
    pub fn original_end(&self) -> u64 {
        let ends = self.pieces().iter().map(|piece| match piece {
            Piece::Original { offset, len } => offset.saturating_add(*len),
            Piece::Inserted(_) => 0,
        });
        ends.max().unwrap_or(0)
    }

    /// The octets of `range` as a rope over the same original.
    pub fn slice(&self, range: Range<u64>) -> Result<Self, RopeError> {
        let mut builder = Builder::default();
        self.copy_range(range, &mut builder)?;
        Ok(builder.finish())
    }

    /// The pieces from position `offset` on, the first one cut to start there: what a reader at `offset` gets.
    pub fn pieces_from(&self, offset: u64) -> impl Iterator<Item = Piece> + '_ {
        let first = self.0.ends.partition_point(|end| *end <= offset);
        let pieces = self.0.pieces.iter().zip(&self.0.ends).skip(first);
        pieces.map(move |(piece, end)| {
            let start = end.saturating_sub(piece.len());
            piece.cut(offset.saturating_sub(start), piece.len())
        })
    }

    /// All `edits` at once. Offsets refer to `self`; edits are sorted and do not overlap (several inserts at one place keep their order).
    pub fn splice_all(&self, edits: Vec<Splice>) -> Result<Self, RopeError> {
        let mut builder = Builder::default();
        let mut done = 0;
        for edit in edits {
            if edit.offset < done {
                return Err(RopeError::Overlap {
                    offset: edit.offset,
                    previous_end: done,
                });
            }
            let end = edit.offset.saturating_add(edit.size);
            self.check(&(edit.offset..end))?;
            self.copy_range(done..edit.offset, &mut builder)?;
            builder.push(Piece::Inserted(edit.replacement));
            done = end;
        }
        self.copy_range(done..self.len(), &mut builder)?;
        builder.finish_bounded()
    }

    /// `outer` describes a message over the octets of `self`; the result describes the same message over the true original.
    pub fn compose(&self, outer: &Self) -> Result<Self, RopeError> {
        let mut builder = Builder::default();
        for piece in outer.pieces() {
            match piece {
                Piece::Original { offset, len } => {
                    self.copy_range(*offset..offset.saturating_add(*len), &mut builder)?;
                }
                Piece::Inserted(octets) => builder.push(Piece::Inserted(octets.clone())),
            }
            builder.check_bound()?;
        }
        builder.finish_bounded()
    }

    /// The adapted message as octets. Ranges that `original` does not have are left out; for tests and small messages.
    pub fn flatten(&self, original: &[u8]) -> Vec<u8> {
        let mut octets = Vec::with_capacity(
            usize::try_from(self.len())
                .unwrap_or(0)
                .min(original.len() * 2),
        );
        for piece in self.pieces() {
            match piece {
                Piece::Original { offset, len } => {
                    let end = offset.saturating_add(*len);
                    let range = usize::try_from(*offset).ok().zip(usize::try_from(end).ok());
                    octets.extend(
                        range
                            .and_then(|(from, to)| original.get(from..to))
                            .unwrap_or(&[]),
                    );
                }
                Piece::Inserted(inserted) => octets.extend_from_slice(inserted),
            }
        }
        octets
    }

    fn check(&self, range: &Range<u64>) -> Result<(), RopeError> {
        if range.start <= range.end && range.end <= self.len() {
            return Ok(());
        }
        Err(RopeError::OutOfRange {
            start: range.start,
            end: range.end,
            len: self.len(),
        })
    }

    fn copy_range(&self, range: Range<u64>, into: &mut Builder) -> Result<(), RopeError> {
        self.check(&range)?;
        let first = self.0.ends.partition_point(|end| *end <= range.start);
        for (piece, end) in self.0.pieces.iter().zip(&self.0.ends).skip(first) {
            let start = end.saturating_sub(piece.len());
            if start >= range.end {
                break;
            }
            into.push(piece.cut(
                range.start.saturating_sub(start),
                range.end.min(*end) - start,
            ));
        }
        Ok(())
    }
}

/// Collects pieces, merging as it goes.
#[derive(Default)]
struct Builder {
    pieces: Vec<Piece>,
    /// Inserted pieces not yet in `pieces`.
    run: Vec<Bytes>,
    run_octets: usize,
}

impl Builder {
    fn push(&mut self, piece: Piece) {
        match piece {
            piece if piece.is_empty() => {}
            Piece::Inserted(octets) => {
                self.run_octets += octets.len();
                self.run.push(octets);
            }
            Piece::Original { offset, len } => self.push_original(offset, len),
        }
    }

    fn push_original(&mut self, offset: u64, len: u64) {
        self.flush_run();
        if let Some(Piece::Original {
            offset: last,
            len: last_len,
        }) = self.pieces.last_mut()
            && last.checked_add(*last_len) == Some(offset)
        {
            *last_len = last_len.saturating_add(len);
            return;
        }
        self.pieces.push(Piece::Original { offset, len });
    }

    fn flush_run(&mut self) {
        if self.run.len() > 1 && self.run_octets / self.run.len() < INSERTED_MERGE_OCTETS {
            let mut merged = BytesMut::with_capacity(self.run_octets);
            self.run
                .drain(..)
                .for_each(|octets| merged.extend_from_slice(&octets));
            self.pieces.push(Piece::Inserted(merged.freeze()));
        } else {
            self.pieces.extend(self.run.drain(..).map(Piece::Inserted));
        }
        self.run_octets = 0;
    }

    fn check_bound(&self) -> Result<(), RopeError> {
        if self.pieces.len() > PIECES_MAX {
            Err(RopeError::TooManyPieces)
        } else {
            Ok(())
        }
    }

    fn finish_bounded(mut self) -> Result<Rope, RopeError> {
        self.flush_run();
        self.check_bound()?;
        Ok(self.finish())
    }

    fn finish(mut self) -> Rope {
        self.flush_run();
        let mut at = 0u64;
        let mut inserted = 0u64;
        let ends = self.pieces.iter().map(|piece| {
            at = at.saturating_add(piece.len());
            if matches!(piece, Piece::Inserted(_)) {
                inserted = inserted.saturating_add(piece.len());
            }
            at
        });
        let ends = ends.collect();
        Rope(Arc::new(Inner {
            pieces: self.pieces,
            ends,
            inserted,
        }))
    }
}

#[cfg(test)]
mod tests;
