//! Transparency on the way out (RFC 5321 §4.5.2): a dot is put before every line that starts with one, and
//! the content is closed with `<CRLF>.<CRLF>`.
//!
//! Owns nothing but the position within a line, so that a message of any size passes through in chunks of any
//! size without being copied: the caller gets slices of its own chunk with single dots between them. Cannot fail.
//!
//! Only CRLF ends a line, and content that comes in has no other CR or LF. A service may bring some all the same, and next hops are out there that
//! take them for line ends: a dot behind one is doubled too, so that none of them finds an end of data, and commands behind it, in a message.

const DOT: &[u8] = b".";

/// Where in a line the octet that comes next stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    LineStart,
    AfterCr,
    /// After one without CR.
    AfterLf,
    Within,
}

/// Stuffs one message. A new message needs a new stuffer.
#[derive(Debug)]
pub struct DotStuffer {
    position: Position,
}

impl Default for DotStuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl DotStuffer {
    /// The start of a message, which is the start of a line.
    pub fn new() -> Self {
        Self {
            position: Position::LineStart,
        }
    }

    /// Takes the next chunk; the iterator yields what goes on the wire for it, in order. The chunk counts as
    /// sent whether or not the iterator is used up.
    pub fn stuff<'a>(&mut self, chunk: &'a [u8]) -> Stuffed<'a> {
        let (head, rest) = chunk.split_at(self.stuffed_at(chunk).unwrap_or(0));
        let dot_due = self.stuffed_at(chunk).is_some();
        self.position = position_after(self.position, chunk);
        Stuffed {
            head,
            dot_due,
            rest,
        }
    }

    /// The end of the content: closes an open last line and adds the dot line.
    pub fn finish(self) -> &'static [u8] {
        match self.position {
            Position::LineStart => b".\r\n",
            Position::AfterCr | Position::AfterLf | Position::Within => b"\r\n.\r\n",
        }
    }

    /// Index of a dot in the chunk that needs a dot before it because of what earlier chunks ended with.
    fn stuffed_at(&self, chunk: &[u8]) -> Option<usize> {
        match self.position {
            Position::LineStart | Position::AfterLf | Position::AfterCr
                if chunk.starts_with(DOT) =>
            {
                Some(0)
            }
            Position::AfterCr if chunk.starts_with(b"\n.") => Some(1),
            Position::LineStart | Position::AfterLf | Position::AfterCr | Position::Within => None,
        }
    }
}

fn position_after(before: Position, chunk: &[u8]) -> Position {
    match chunk {
        [] => before,
        [.., b'\r', b'\n'] => Position::LineStart,
        [b'\n'] if before == Position::AfterCr => Position::LineStart,
        [.., b'\r'] => Position::AfterCr,
        [.., b'\n'] => Position::AfterLf,
        _ => Position::Within,
    }
}

/// The wire form of one chunk: slices of the chunk and single dots. Never yields an empty slice.
#[derive(Debug)]
pub struct Stuffed<'a> {
    head: &'a [u8],
    dot_due: bool,
    rest: &'a [u8],
}

impl<'a> Iterator for Stuffed<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if !self.head.is_empty() {
            return Some(std::mem::take(&mut self.head));
        }
        if std::mem::take(&mut self.dot_due) {
            return Some(DOT);
        }
        if self.rest.is_empty() {
            return None;
        }
        let cut = dot_behind_line_end(self.rest);
        self.dot_due = cut.is_some();
        let (line, rest) = self.rest.split_at(cut.unwrap_or(self.rest.len()));
        self.rest = rest;
        Some(line)
    }
}

/// Index of the first dot that CR or LF stands before.
fn dot_behind_line_end(octets: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'.', octets).find(|at| {
        let before = at.checked_sub(1).and_then(|at| octets.get(at));
        matches!(before, Some(b'\r' | b'\n'))
    })
}

#[cfg(test)]
mod tests;
