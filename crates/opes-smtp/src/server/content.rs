//! Octets of mail data: where they end, which dots go, and that every line ends with CRLF.
//!
//! `<CRLF>.<CRLF>` is the only end of data. A CR or LF on its own never ends a line, never starts the look-out for a dot, and
//! marks the content as one to be refused (RFC 5321 §2.3.8, §4.1.1.4): other servers on the way might see a second message in it.

#[cfg(test)]
mod tests;

use bytes::{Buf, Bytes, BytesMut};

/// Takes the content of DATA out of the input (RFC 5321 §4.5.2).
#[derive(Debug)]
pub(super) struct DataReader {
    at: At,
    bare: bool,
}

/// Where in a line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// After CRLF, or at the very start.
    LineStart,
    Inside,
    /// After a CR.
    Cr,
    /// After a dot at the start of a line, which has been taken out.
    Dot,
    /// After such a dot and CR.
    DotCr,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    NeedInput,
    Content(Bytes),
    /// `<CRLF>.<CRLF>` has been read.
    End,
}

impl DataReader {
    pub(super) fn new() -> Self {
        Self {
            at: At::LineStart,
            bare: false,
        }
    }

    /// True once the content has had a bare CR or LF.
    pub(super) fn has_bare_line_end(&self) -> bool {
        self.bare
    }

    /// The longest run of octets that can be handed on as one slice.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Piece {
        while let Some(&octet) = input.first() {
            match (self.at, octet) {
                (At::LineStart, b'.') => self.skip(input, At::Dot),
                (At::Dot, b'\r') => self.skip(input, At::DotCr),
                (At::DotCr, b'\n') => {
                    input.advance(1);
                    return Piece::End;
                }
                (At::DotCr, _) => {
                    self.bare = true;
                    self.at = At::Inside;
                }
                (At::Dot, _) => self.at = At::Inside,
                (At::LineStart | At::Inside | At::Cr, _) => {
                    let octets = self.run(input);
                    return Piece::Content(input.split_to(octets).freeze());
                }
            }
        }
        Piece::NeedInput
    }

    fn skip(&mut self, input: &mut BytesMut, at: At) {
        input.advance(1);
        self.at = at;
    }

    /// Octets up to a dot at the start of a line, or all; at least one.
    fn run(&mut self, input: &[u8]) -> usize {
        let mut octets = 0;
        while let Some(rest) = input.get(octets..).filter(|rest| !rest.is_empty()) {
            if self.at == At::LineStart && octets > 0 && rest.first() == Some(&b'.') {
                return octets;
            }
            octets += self.line(rest);
        }
        octets
    }

    /// Octets up to the next line end, good or bare, or all.
    fn line(&mut self, rest: &[u8]) -> usize {
        if self.at == At::Cr {
            return self.after_cr(rest);
        }
        match memchr::memchr2(b'\r', b'\n', rest) {
            None => {
                self.at = At::Inside;
                rest.len()
            }
            Some(end) if rest.get(end..end + 2) == Some(b"\r\n") => {
                self.at = At::LineStart;
                end + 2
            }
            Some(end) if rest.get(end) == Some(&b'\r') => {
                self.at = At::Cr;
                end + 1
            }
            Some(end) => {
                self.bare = true;
                self.at = At::Inside;
                end + 1
            }
        }
    }

    fn after_cr(&mut self, rest: &[u8]) -> usize {
        let line_feed = rest.first() == Some(&b'\n');
        self.bare |= !line_feed;
        self.at = if line_feed { At::LineStart } else { At::Inside };
        usize::from(line_feed)
    }
}

/// True if a chunk of BDAT content has a bare CR or LF. `cr` is carried from chunk to chunk: the octet before was a CR.
pub(super) fn has_bare_line_end(chunk: &[u8], cr: &mut bool) -> bool {
    let Some(first) = chunk.first() else {
        return false;
    };
    let mut offset = usize::from(*cr);
    if *cr && *first != b'\n' {
        return true;
    }
    *cr = false;
    while let Some(rest) = chunk.get(offset..) {
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
            return false;
        };
        match rest.get(end..end + 2) {
            Some(b"\r\n") => offset += end + 2,
            None if rest.get(end) == Some(&b'\r') => {
                *cr = true;
                return false;
            }
            _ => return true,
        }
    }
    false
}
