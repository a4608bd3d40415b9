//! Readers for what is not read from one piece: members of a gzip file, headers of a tar file that must not grow.

use std::cell::Cell;
use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// RFC 1952 §2.3.1, with the one compression method there is.
const GZIP_START: [u8; 3] = [0x1f, 0x8b, 8];
/// One header of a tar file (POSIX.1-1988), and where its checksum stands.
const TAR_HEADER_OCTETS: usize = 512;
const TAR_CHECKSUM: std::ops::Range<usize> = 148..156;

/// Is this the start of a gzip file?
pub(crate) fn is_gzip(content: &[u8]) -> bool {
    content.starts_with(&GZIP_START)
}

/// Is this the start of a tar file? Its checksum says so, as old ones have no other mark.
pub(crate) fn is_tar(content: &[u8]) -> bool {
    let Some(header) = content.get(..TAR_HEADER_OCTETS) else {
        return false;
    };
    let stated = header.get(TAR_CHECKSUM).unwrap_or_default();
    let digits = stated
        .iter()
        .skip_while(|octet| **octet == b' ')
        .take_while(|octet| (b'0'..=b'7').contains(octet));
    let stated = digits.fold(0_u64, |sum, digit| sum * 8 + u64::from(digit - b'0'));
    // The field counts as blanks.
    let sum = header.iter().enumerate().map(|(at, octet)| {
        u64::from(if TAR_CHECKSUM.contains(&at) {
            b' '
        } else {
            *octet
        })
    });
    // An empty header has the sum of eight blanks.
    stated > 8 * u64::from(b' ') && stated == sum.sum::<u64>()
}

/// All members of a gzip file as one content, as gunzip gives it (RFC 1952 §2.2), and what follows them.
pub(crate) struct Members<R: BufRead> {
    state: State<R>,
}

#[allow(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum State<R: BufRead> {
    Member(GzDecoder<R>),
    Behind(R),
    /// While one becomes the other.
    Between,
}

impl<R: BufRead> Members<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            state: State::Member(GzDecoder::new(source)),
        }
    }

    /// Of the first member, if its header has one.
    pub(crate) fn name(&self) -> Option<String> {
        let State::Member(decoder) = &self.state else {
            return None;
        };
        let name = decoder.header()?.filename()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// What follows the last member; `None` before its end.
    pub(crate) fn behind(self) -> Option<R> {
        match self.state {
            State::Behind(rest) => Some(rest),
            State::Member(_) | State::Between => None,
        }
    }

    fn next_member(&mut self) -> io::Result<()> {
        let state = std::mem::replace(&mut self.state, State::Between);
        if let State::Member(decoder) = state {
            let mut rest = decoder.into_inner();
            let goes_on = rest.fill_buf()?.first() == GZIP_START.first();
            self.state = if goes_on {
                State::Member(GzDecoder::new(rest))
            } else {
                State::Behind(rest)
            };
        } else {
            self.state = state;
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while let State::Member(decoder) = &mut self.state {
            let octets = decoder.read(into)?;
            if octets > 0 {
                return Ok(octets);
            }
            self.next_member()?;
        }
        Ok(0)
    }
}

/// Lets only so many octets pass while somebody else decides how much to read.
pub(crate) struct Rationed<'a, R> {
    inner: R,
    /// None: as many as there are.
    ration: &'a Cell<Option<u64>>,
}

impl<'a, R> Rationed<'a, R> {
    pub(crate) fn new(inner: R, ration: &'a Cell<Option<u64>>) -> Self {
        Self { inner, ration }
    }
}

impl<R: Read> Read for Rationed<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let octets = self.inner.read(into)?;
        let Some(left) = self.ration.get() else {
            return Ok(octets);
        };
        let left = left.checked_sub(octets as u64);
        self.ration.set(left.or(Some(0)));
        left.map(|_| octets)
            .ok_or_else(|| io::Error::other("a header without end"))
    }
}
