//! The streaming scanner: chunks in, [`Structure`] out, whatever the chunks and whatever the octets.
//!
//! Owns at most one unfinished line, the header values that describe the entity being read, and a stack of open entities:
//! memory is bounded by the limits in [`crate::structure`], not by the message. A line ends at LF; an edge that admits only
//! CRLF loses nothing by that. Never fails: beyond a limit it goes on counting octets and says so in the result.
//!
//! Delimiters (RFC 2046 §5.1.1): a whole line of `--`, boundary, optional `--`, optional white space; the innermost open
//! multipart is asked first. That is what the common mail readers do; where a looser reader would see something else, the result
//! has a [`crate::Defect`].

mod header;
mod tree;

use memchr::memchr;

use crate::structure::{DELIMITER_OCTETS_MAX, Field, HEADER_OCTETS_MAX, Limit, Structure};
use header::HeaderReader;
use tree::{Line, Tree};

/// Offset just after the empty line that ends the header section of `buf`; `None` if it is not there yet.
pub fn header_end(buf: &[u8]) -> Option<u64> {
    let empty_line = |at: usize| match buf.get(at..)? {
        [b'\r', b'\n', ..] => Some(at as u64 + 2),
        [b'\n', ..] => Some(at as u64 + 1),
        _ => None,
    };
    empty_line(0).or_else(|| memchr::memchr_iter(b'\n', buf).find_map(|lf| empty_line(lf + 1)))
}

/// The structure of a whole message in memory.
pub fn scan(message: &[u8]) -> Structure {
    let mut scanner = Scanner::new();
    scanner.push(message);
    scanner.finish()
}

/// Finds the structure of a message that arrives in chunks.
#[derive(Debug)]
pub struct Scanner {
    structure: Structure,
    tree: Tree,
    /// Present while the header section of the innermost entity is read.
    header: Option<HeaderReader>,
    mode: Mode,
    /// Start of a line whose rest is still to come.
    carry: Vec<u8>,
    /// The octet before the next one, to tell CRLF from LF across chunks.
    previous: u8,
    /// Length of the line end before the current line: 0, 1 or 2.
    last_line_end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// At the start of a line, or in the middle of one that is carried.
    Line,
    /// In a line that cannot matter any more.
    RestOfLine,
    /// Nothing that follows can matter.
    Count,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// At the first octet of a message.
    pub fn new() -> Self {
        let mut structure = Structure::default();
        let tree = Tree::new(&mut structure);
        Self {
            structure,
            tree,
            header: Some(HeaderReader::default()),
            mode: Mode::Line,
            carry: Vec::new(),
            previous: b'\n',
            last_line_end: 0,
        }
    }

    /// The next octets of the message.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let used = match self.mode {
                Mode::Line => self.take_line(rest),
                Mode::RestOfLine => self.skip_line(rest),
                Mode::Count => rest.len(),
            };
            self.structure.len += used as u64;
            let (done, tail) = rest.split_at_checked(used).unwrap_or((rest, &[]));
            self.previous = done.last().copied().unwrap_or(self.previous);
            rest = tail;
        }
    }

    /// Is the header section of the message complete? If so, its fields and `header_end` in [`Self::so_far`] are final.
    pub fn header_complete(&self) -> bool {
        self.structure.header_end > 0
    }

    /// What is known by now; entities still open have no end.
    pub fn so_far(&self) -> &Structure {
        &self.structure
    }

    /// The message is complete.
    pub fn finish(mut self) -> Structure {
        if !self.carry.is_empty() {
            let line = std::mem::take(&mut self.carry);
            self.on_line(&line, self.structure.len - line.len() as u64);
        }
        self.end_headers(self.structure.len);
        self.tree.finish(&mut self.structure);
        self.structure
    }

    /// Octets of a line that are worth keeping together.
    fn line_octets_max(&self) -> usize {
        match &self.header {
            Some(header) => HEADER_OCTETS_MAX.saturating_sub(header.octets),
            None => DELIMITER_OCTETS_MAX,
        }
    }

    /// Takes as much of the current line as there is and as may matter. Returns the octets used.
    fn take_line(&mut self, rest: &[u8]) -> usize {
        if self.header.is_none() && self.carry.is_empty() && rest.first() != Some(&b'-') {
            self.mode = Mode::RestOfLine;
            return 0;
        }
        let found = memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
        let used = found.min(self.line_octets_max().saturating_sub(self.carry.len()));
        let piece = rest.get(..used).unwrap_or_default();
        let start = self.structure.len - self.carry.len() as u64;
        if piece.last() == Some(&b'\n') {
            self.complete_line(piece, start);
        } else {
            self.carry.extend_from_slice(piece);
            if self.carry.len() >= self.line_octets_max() {
                self.overlong_line(start);
            }
        }
        used
    }

    fn complete_line(&mut self, piece: &[u8], start: u64) {
        if self.carry.is_empty() {
            return self.on_line(piece, start);
        }
        self.carry.extend_from_slice(piece);
        let mut line = std::mem::take(&mut self.carry);
        self.on_line(&line, start);
        line.clear();
        self.carry = line;
    }

    /// The line that starts at octet `start` goes beyond its limit: the end of a header section's allowance, or no delimiter.
    fn overlong_line(&mut self, start: u64) {
        if self.header.is_some() {
            // Nobody needs to hold more octets of the section than were looked at.
            self.end_headers(start);
            self.stop(Limit::HeaderOctets);
        } else {
            self.tree.note_near_miss(&self.carry, &mut self.structure);
            self.mode = Mode::RestOfLine;
        }
        self.carry.clear();
    }

    fn skip_line(&mut self, rest: &[u8]) -> usize {
        let Some(lf) = memchr(b'\n', rest) else {
            return rest.len();
        };
        let before = lf
            .checked_sub(1)
            .and_then(|at| rest.get(at))
            .unwrap_or(&self.previous);
        self.last_line_end = if *before == b'\r' { 2 } else { 1 };
        self.mode = Mode::Line;
        lf + 1
    }

    /// `line` with its line end, if it has one; it starts at octet `start`.
    fn on_line(&mut self, line: &[u8], start: u64) {
        let line_end = match line {
            [.., b'\r', b'\n'] => 2,
            [.., b'\n'] => 1,
            _ => 0,
        };
        let text = line.get(..line.len() - line_end).unwrap_or_default();
        let end = start + line.len() as u64;
        match self.tree.delimiter(text, &mut self.structure) {
            Line::Content => {
                if let Some(header) = self.header.take() {
                    self.on_header_line(header, text, start, end);
                }
            }
            Line::Delimiter { level, close } => {
                self.on_delimiter(level, start);
                if close {
                    self.tree.close_multipart(level);
                } else if line_end > 0 {
                    self.open_child(level, end);
                }
            }
        }
        self.last_line_end = line_end as u64;
    }

    /// Everything inside the multipart at `level` ends before the line that starts at octet `start`.
    fn on_delimiter(&mut self, level: usize, start: u64) {
        self.end_headers(start);
        self.tree
            .close_above(level, start, self.last_line_end, &mut self.structure);
    }

    fn open_child(&mut self, level: usize, header_start: u64) {
        if self
            .tree
            .open_child(level, header_start, &mut self.structure)
        {
            self.header = Some(HeaderReader::default());
        } else {
            self.stop(Limit::Parts);
        }
    }

    fn on_header_line(&mut self, mut header: HeaderReader, text: &[u8], start: u64, end: u64) {
        if text.is_empty() {
            return self.end_header(header, start, end);
        }
        header.octets += usize::try_from(end - start).unwrap_or(usize::MAX);
        if let Some(field) = header.on_line(text, start, end) {
            self.on_field(&mut header, field);
        }
        self.header = Some(header);
    }

    /// A complete field. Spans are kept for the message itself only.
    fn on_field(&mut self, header: &mut HeaderReader, field: Field) {
        if !header.count_field() {
            self.structure.truncated.get_or_insert(Limit::HeaderFields);
        } else if self.tree.at_root() {
            self.structure.fields.push(field);
        }
    }

    /// The header section being read ends at octet `at` without an empty line; likewise that of a message it announces.
    fn end_headers(&mut self, at: u64) {
        while let Some(header) = self.header.take() {
            self.end_header(header, at, at);
        }
    }

    /// The header section ends: its fields end at `fields_end`, the body starts at `body_start`.
    fn end_header(&mut self, mut header: HeaderReader, fields_end: u64, body_start: u64) {
        if let Some(field) = header.end_field() {
            self.on_field(&mut header, field);
        }
        if self.tree.at_root() {
            self.structure.fields_end = fields_end;
            self.structure.header_end = body_start;
        }
        let (description, defects) = header.describe(self.tree.in_digest(&self.structure));
        self.structure.defects.extend(defects);
        if self
            .tree
            .describe(description, body_start, &mut self.structure)
        {
            self.header = Some(HeaderReader::default());
        } else if !self.tree.expects_delimiter() {
            self.mode = Mode::Count;
        }
    }

    fn stop(&mut self, limit: Limit) {
        self.structure.truncated.get_or_insert(limit);
        self.mode = Mode::Count;
    }
}

#[cfg(test)]
mod tests;
