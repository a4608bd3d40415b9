//! Puts the adapted flow together: what the service sent (DUM), ranges of the original (DUY) and the rest of the original
//! from J on (AME 206) become a rope over the original and the service's own octets behind it, which are kept elsewhere ([`crate::own`]).
//! No octet is copied.

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

/// One run of the adapted flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// Of the service's own octets, counted from the first one it sent.
    Mine { offset: u64, len: u64 },
    /// Of the original.
    Yours { offset: u64, len: u64 },
}

/// The adapted flow so far: where its octets are, not the octets.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    runs: Vec<Run>,
    own: u64,
}

/// A finished adapted flow; the original may still be growing.
#[derive(Debug)]
pub(crate) struct Adapted {
    runs: Vec<Run>,
    end: End,
}

impl Reassembly {
    /// DUM: so many octets of the service's own.
    pub(crate) fn mine(&mut self, octets: u64, octets_max: u64) -> Result<(), Refused> {
        let offset = self.own;
        self.own = self.own.saturating_add(octets);
        if self.own > octets_max {
            return Err(Refused::InsertedTooMuch(octets_max));
        }
        if let Some(Run::Mine { len, .. }) = self.runs.last_mut() {
            *len += octets;
            return Ok(());
        }
        let len = octets;
        self.push(Run::Mine { offset, len })
    }

    /// DUY, or DUM with As-is.
    pub(crate) fn yours(&mut self, offset: u64, len: u64) -> Result<(), Refused> {
        match self.runs.last_mut() {
            Some(Run::Yours { offset: o, len: l }) if o.checked_add(*l) == Some(offset) => {
                *l = l.saturating_add(len);
                Ok(())
            }
            _ => self.push(Run::Yours { offset, len }),
        }
    }

    fn push(&mut self, run: Run) -> Result<(), Refused> {
        let (Run::Mine { len, .. } | Run::Yours { len, .. }) = run;
        if len == 0 {
            return Ok(());
        }
        if self.runs.len() >= PIECES_MAX {
            return Err(Refused::TooManyPieces);
        }
        self.runs.push(run);
        Ok(())
    }

    pub(crate) fn finish(self, end: End) -> Adapted {
        Adapted {
            runs: self.runs,
            end,
        }
    }
}

impl Adapted {
    /// "Use your original", without a look at its length.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.runs.is_empty() && self.end == End::Rest(0)
    }

    /// Over an original of `len` octets and the service's own octets behind it; `None` = unchanged.
    pub(crate) fn over(mut self, len: u64) -> Result<Option<Rope>, Refused> {
        if let End::Rest(from) = self.end {
            let rest = len
                .checked_sub(from)
                .ok_or(Refused::BeyondOriginal(from, len))?;
            self.runs.push(Run::Yours {
                offset: from,
                len: rest,
            });
        }
        let pieces: Vec<Piece> = self
            .runs
            .iter()
            .map(|run| piece(*run, len))
            .collect::<Result<_, _>>()?;
        let rope = Rope::from_pieces(pieces);
        Ok((!rope.is_identity(len)).then_some(rope))
    }

    /// As a command line, made of `original` and of the service's `own` octets; `None` = unchanged.
    pub(crate) fn into_line(
        self,
        original: Option<&Bytes>,
        own: &Bytes,
    ) -> Result<Option<Bytes>, Refused> {
        let original = original.map_or(&[][..], |line| line);
        let rope = self.over(original.len() as u64)?;
        Ok(rope.map(|rope| rope.flatten(&[original, own].concat()).into()))
    }
}

fn piece(run: Run, original: u64) -> Result<Piece, Refused> {
    match run {
        Run::Mine { offset, len } => Ok(Piece::Original {
            offset: original.saturating_add(offset),
            len,
        }),
        Run::Yours { offset, len } => {
            let end = offset.saturating_add(len);
            if end > original {
                Err(Refused::BeyondOriginal(end, original))
            } else {
                Ok(Piece::Original { offset, len })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &[u8] = b"0123456789";
    /// Behind the original.
    const OWN: &[u8] = b"abcdef";

    fn flat(build: Reassembly, end: End) -> Option<Vec<u8>> {
        let octets = [ORIGINAL, OWN].concat();
        build
            .finish(end)
            .over(10)
            .unwrap()
            .map(|rope| rope.flatten(&octets))
    }

    #[test]
    fn mine_yours_and_the_rest() {
        let mut r = Reassembly::default();
        r.yours(5, 2).unwrap();
        r.yours(7, 1).unwrap();
        r.mine(1, 4).unwrap();
        r.mine(1, 4).unwrap();
        r.yours(0, 1).unwrap();
        r.mine(2, 4).unwrap();
        assert_eq!(flat(r, End::Rest(9)).unwrap(), b"567ab0cd9");
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
        r.mine(3, 3).unwrap();
        assert_eq!(r.mine(1, 3), Err(Refused::InsertedTooMuch(3)));
    }

    #[test]
    fn a_command_line_comes_whole() {
        let mut r = Reassembly::default();
        r.mine(3, 9).unwrap();
        r.mine(1, 9).unwrap();
        let original = Bytes::from_static(b"VRFY x");
        let own = Bytes::from_static(b"NOOP");
        let line = |r: Reassembly, end| r.finish(end).into_line(Some(&original), &own);
        assert_eq!(line(r, End::Whole).unwrap().unwrap(), "NOOP");
        assert_eq!(line(Reassembly::default(), End::Rest(0)).unwrap(), None);
        assert_eq!(
            line(Reassembly::default(), End::Rest(4)).unwrap().unwrap(),
            " x"
        );
        assert!(line(Reassembly::default(), End::Rest(7)).is_err());
    }
}
