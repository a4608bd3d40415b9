//! Puts the adapted flow together: what the service sent (DUM), ranges of the original (DUY) and the rest of the original
//! from J on (AME 206) become a rope over the original. No octet of the original is copied.

use bytes::Bytes;
use opes_mime::{Piece, Rope};

/// Pieces of one adapted message. A service that alternates more often wants a rewrite, not an adaptation.
const PIECES_MAX: usize = opes_mime::rope::PIECES_MAX;

/// Why an adapted flow is refused. The text goes into the error of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it inserts more than {0} octets into the message (inserted_octets_max)")]
    InsertedTooMuch(u64),
    #[error("its adapted message has more than {PIECES_MAX} pieces")]
    TooManyPieces,
    #[error("it uses octet {0} of an original of {1} octets")]
    BeyondOriginal(u64, u64),
}

/// How the adapted flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// AME 200.
    Whole,
    /// AME 206: the original from this octet on follows.
    Rest(u64),
}

/// The adapted flow so far.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    pieces: Vec<Piece>,
    inserted: u64,
}

/// A finished adapted flow; the original may still be growing.
#[derive(Debug)]
pub(crate) struct Adapted {
    pieces: Vec<Piece>,
    end: End,
}

impl Reassembly {
    /// DUM.
    pub(crate) fn mine(&mut self, octets: Bytes, octets_max: u64) -> Result<(), Refused> {
        if octets.is_empty() {
            return Ok(());
        }
        self.inserted += octets.len() as u64;
        if self.inserted > octets_max {
            return Err(Refused::InsertedTooMuch(octets_max));
        }
        self.push(Piece::Inserted(octets))
    }

    /// DUY, or DUM with As-is.
    pub(crate) fn yours(&mut self, offset: u64, len: u64) -> Result<(), Refused> {
        match self.pieces.last_mut() {
            Some(Piece::Original { offset: o, len: l }) if *o + *l == offset => {
                *l += len;
                Ok(())
            }
            _ if len == 0 => Ok(()),
            _ => self.push(Piece::Original { offset, len }),
        }
    }

    fn push(&mut self, piece: Piece) -> Result<(), Refused> {
        if self.pieces.len() >= PIECES_MAX {
            return Err(Refused::TooManyPieces);
        }
        self.pieces.push(piece);
        Ok(())
    }

    pub(crate) fn finish(self, end: End) -> Adapted {
        Adapted {
            pieces: self.pieces,
            end,
        }
    }
}

impl Adapted {
    /// "Use your original", without a look at its length.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.pieces.is_empty() && self.end == End::Rest(0)
    }

    /// Over an original of `len` octets; `None` = unchanged.
    pub(crate) fn over(mut self, len: u64) -> Result<Option<Rope>, Refused> {
        if let End::Rest(from) = self.end {
            let rest = len
                .checked_sub(from)
                .ok_or(Refused::BeyondOriginal(from, len))?;
            self.pieces.push(Piece::Original {
                offset: from,
                len: rest,
            });
        }
        for piece in &self.pieces {
            check_within(piece, len)?;
        }
        let rope = Rope::from_pieces(self.pieces);
        Ok((!rope.is_identity(len)).then_some(rope))
    }

    /// As a command line; `None` = unchanged.
    pub(crate) fn into_line(self, original: Option<&Bytes>) -> Result<Option<Bytes>, Refused> {
        let original = original.map_or(&[][..], |line| line);
        let rope = self.over(original.len() as u64)?;
        Ok(rope.map(|rope| rope.flatten(original).into()))
    }
}

fn check_within(piece: &Piece, len: u64) -> Result<(), Refused> {
    match piece {
        Piece::Original { offset, len: size } => {
            let end = offset.saturating_add(*size);
            if end > len {
                Err(Refused::BeyondOriginal(end, len))
            } else {
                Ok(())
            }
        }
        Piece::Inserted(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &[u8] = b"0123456789";

    fn flat(build: Reassembly, end: End) -> Option<Vec<u8>> {
        build
            .finish(end)
            .over(10)
            .unwrap()
            .map(|rope| rope.flatten(ORIGINAL))
    }

    #[test]
    fn mine_yours_and_the_rest() {
        let mut r = Reassembly::default();
        r.yours(5, 2).unwrap();
        r.yours(7, 1).unwrap();
        r.mine(Bytes::from_static(b"ab"), 2).unwrap();
        assert_eq!(flat(r, End::Rest(9)).unwrap(), b"567ab9");
    }

    #[test]
    fn the_same_octets_are_no_change() {
        let mut r = Reassembly::default();
        r.yours(0, 4).unwrap();
        assert_eq!(flat(r, End::Rest(4)), None);
        assert!(Reassembly::default().finish(End::Rest(0)).is_unchanged());
        assert_eq!(
            flat(Reassembly::default(), End::Whole).unwrap(),
            b"",
            "emptied is changed"
        );
    }

    #[test]
    fn what_exceeds_the_original_or_the_limit_is_refused() {
        let mut r = Reassembly::default();
        r.yours(8, 3).unwrap();
        assert_eq!(
            r.finish(End::Whole).over(10).unwrap_err(),
            Refused::BeyondOriginal(11, 10)
        );
        let rest = Reassembly::default().finish(End::Rest(11)).over(10);
        assert_eq!(rest.unwrap_err(), Refused::BeyondOriginal(11, 10));
        let mut r = Reassembly::default();
        r.mine(Bytes::from_static(b"abc"), 3).unwrap();
        assert_eq!(
            r.mine(Bytes::from_static(b"d"), 3),
            Err(Refused::InsertedTooMuch(3))
        );
    }

    #[test]
    fn a_command_line_comes_whole() {
        let mut r = Reassembly::default();
        r.mine(Bytes::from_static(b"NOO"), 9).unwrap();
        r.mine(Bytes::from_static(b"P"), 9).unwrap();
        let original = Bytes::from_static(b"VRFY x");
        let line = |r: Reassembly, end| r.finish(end).into_line(Some(&original));
        assert_eq!(line(r, End::Whole).unwrap().unwrap(), "NOOP");
        assert_eq!(line(Reassembly::default(), End::Rest(0)).unwrap(), None);
        assert_eq!(
            line(Reassembly::default(), End::Rest(4)).unwrap().unwrap(),
            " x"
        );
        assert!(line(Reassembly::default(), End::Rest(7)).is_err());
    }
}
