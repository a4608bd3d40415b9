//! The stack of open entities and what a delimiter line means to it.
//!
//! Owns the boundaries of open multiparts, at most [`DEPTH_MAX`] of them. Writes the ends of entities into the structure.

use super::header::Description;
use crate::structure::{
    DELIMITER_OCTETS_MAX, DEPTH_MAX, Defect, Encoding, Limit, PARTS_MAX, Part, Structure,
};

/// `--`, `--`, CRLF: what a delimiter line has beside the boundary.
const DELIMITER_FRAME_OCTETS: usize = 6;

/// Entities from the message itself to the innermost open one.
#[derive(Debug)]
pub(super) struct Tree {
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    /// Index in [`Structure::parts`].
    part: usize,
    kind: Kind,
    /// Children so far.
    children: u32,
}

#[derive(Debug)]
enum Kind {
    /// Its header section is not read yet, or it is a leaf or an enclosed message.
    Plain,
    Multipart {
        boundary: Vec<u8>,
        /// Its closing delimiter has come.
        closed: bool,
    },
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Content,
    /// Delimiter of the multipart at `level` of the stack.
    Delimiter {
        level: usize,
        close: bool,
    },
}

impl Tree {
    /// The message itself is open.
    pub(super) fn new(structure: &mut Structure) -> Self {
        structure.parts.push(Part::default());
        Self {
            open: vec![Open {
                part: 0,
                kind: Kind::Plain,
                children: 0,
            }],
        }
    }

    /// Is the innermost open entity the message itself?
    pub(super) fn at_root(&self) -> bool {
        self.open.len() == 1
    }

    /// Is the innermost open entity directly inside a multipart/digest?
    pub(super) fn in_digest(&self, structure: &Structure) -> bool {
        let parent = self
            .open
            .len()
            .checked_sub(2)
            .and_then(|level| self.open.get(level));
        let parent = parent.and_then(|open| structure.parts.get(open.part));
        parent.is_some_and(|part| part.content_type == "multipart/digest")
    }

    /// Can any further line matter?
    pub(super) fn expects_delimiter(&self) -> bool {
        self.open
            .iter()
            .any(|open| matches!(open.kind, Kind::Multipart { .. }))
    }

    /// What is this line, given without its end?
    pub(super) fn delimiter(&self, text: &[u8], structure: &mut Structure) -> Line {
        let Some(candidate) = text.strip_prefix(b"--") else {
            return Line::Content;
        };
        if text.len() > DELIMITER_OCTETS_MAX {
            return Line::Content;
        }
        let candidate = candidate.trim_ascii_end();
        for (level, open) in self.open.iter().enumerate().rev() {
            let Kind::Multipart { boundary, closed } = &open.kind else {
                continue;
            };
            match candidate.strip_prefix(boundary.as_slice()) {
                Some(b"" | b"--") if *closed => {
                    structure.defects.insert(Defect::DelimiterAfterClose);
                }
                Some(b"") => {
                    return Line::Delimiter {
                        level,
                        close: false,
                    };
                }
                Some(b"--") => return Line::Delimiter { level, close: true },
                _ => {}
            }
        }
        self.note_near_miss(text, structure);
        Line::Content
    }

    /// Notes a line, or the start of one, that is no delimiter but begins like one.
    pub(super) fn note_near_miss(&self, text: &[u8], structure: &mut Structure) {
        let candidate = text.strip_prefix(b"--");
        let begins_like = |open: &Open| match &open.kind {
            Kind::Multipart { boundary, .. } => {
                candidate.is_some_and(|text| text.starts_with(boundary))
            }
            Kind::Plain => false,
        };
        if self.open.iter().any(begins_like) {
            structure.defects.insert(Defect::DelimiterPrefix);
        }
    }

    /// All entities inside the one at `level` end before the delimiter line at octet `start`, without the line end before it.
    pub(super) fn close_above(
        &mut self,
        level: usize,
        start: u64,
        line_end: u64,
        structure: &mut Structure,
    ) {
        for open in self
            .open
            .drain(level.saturating_add(1).min(self.open.len())..)
        {
            open.end(start.saturating_sub(line_end), start, structure);
        }
    }

    /// The message ends, and with it everything that is open.
    pub(super) fn finish(mut self, structure: &mut Structure) {
        for open in self.open.drain(..) {
            open.end(structure.len, structure.len, structure);
        }
    }

    /// The closing delimiter of the multipart at `level` has come.
    pub(super) fn close_multipart(&mut self, level: usize) {
        if let Some(Open {
            kind: Kind::Multipart { closed, .. },
            ..
        }) = self.open.get_mut(level)
        {
            *closed = true;
        }
    }

    /// Opens an entity inside the one at `level`, which is the innermost one. False: beyond [`PARTS_MAX`].
    pub(super) fn open_child(
        &mut self,
        level: usize,
        header_start: u64,
        structure: &mut Structure,
    ) -> bool {
        let index = structure.parts.len();
        let Some(parent) = self.open.get_mut(level).filter(|_| index < PARTS_MAX) else {
            return false;
        };
        parent.children += 1;
        let parent_path = structure
            .parts
            .get(parent.part)
            .map_or("", |part| part.path.as_str());
        let path = match parent_path {
            "" => parent.children.to_string(),
            _ => format!("{parent_path}.{}", parent.children),
        };
        let part = Part {
            path,
            parent: Some(parent.part),
            header_start,
            body_start: header_start,
            ..Part::default()
        };
        structure.parts.push(part);
        self.open.push(Open {
            part: index,
            kind: Kind::Plain,
            children: 0,
        });
        true
    }

    /// The header section of the innermost entity is read. True: it is a message, whose own header section comes next.
    pub(super) fn describe(
        &mut self,
        description: Description,
        body_start: u64,
        structure: &mut Structure,
    ) -> bool {
        let Description {
            content_type,
            charset,
            boundary,
            names,
            disposition,
            encoding,
        } = description;
        let Some(part) = self
            .open
            .last()
            .and_then(|open| structure.parts.get_mut(open.part))
        else {
            return false;
        };
        let mut names = names.into_iter();
        part.name = names.next().unwrap_or_default();
        part.other_names = names.collect();
        (part.content_type, part.charset) = (content_type, charset);
        (part.disposition, part.encoding) = (disposition, encoding);
        part.body_start = body_start;
        let (is_multipart, is_message) = (part.is_multipart(), part.is_message());
        let encoded = matches!(encoding, Encoding::QuotedPrintable | Encoding::Base64);
        if (is_multipart || is_message) && encoded {
            structure.defects.insert(Defect::EncodedContainer);
        }
        if is_multipart {
            self.open_multipart(boundary, structure);
            return false;
        }
        is_message
            && !encoded
            && self.may_nest(structure)
            && self.open_message(body_start, structure)
    }

    fn open_multipart(&mut self, boundary: Vec<u8>, structure: &mut Structure) {
        if boundary.is_empty() {
            structure.defects.insert(Defect::MissingBoundary);
        } else if boundary.len() > DELIMITER_OCTETS_MAX - DELIMITER_FRAME_OCTETS {
            structure.truncated.get_or_insert(Limit::Boundary);
        } else if self.may_nest(structure) {
            if self.has_boundary(&boundary) {
                structure.defects.insert(Defect::RepeatedBoundary);
            }
            if let Some(open) = self.open.last_mut() {
                open.kind = Kind::Multipart {
                    boundary,
                    closed: false,
                };
            }
        }
    }

    fn open_message(&mut self, header_start: u64, structure: &mut Structure) -> bool {
        let opened = self.open_child(self.open.len().saturating_sub(1), header_start, structure);
        if !opened {
            structure.truncated.get_or_insert(Limit::Parts);
        }
        opened
    }

    fn may_nest(&self, structure: &mut Structure) -> bool {
        let fits = self.open.len() <= DEPTH_MAX;
        if !fits {
            structure.truncated.get_or_insert(Limit::Depth);
        }
        fits
    }

    fn has_boundary(&self, wanted: &[u8]) -> bool {
        let same = |open: &Open| matches!(&open.kind, Kind::Multipart { boundary, .. } if boundary == wanted);
        self.open.iter().any(same)
    }
}

impl Open {
    fn end(self, body_end: u64, entity_end: u64, structure: &mut Structure) {
        if matches!(self.kind, Kind::Multipart { closed: false, .. }) {
            structure.defects.insert(Defect::MissingClose);
        }
        if let Some(part) = structure.parts.get_mut(self.part) {
            part.body_end = body_end.max(part.body_start);
            part.entity_end = entity_end;
        }
    }
}
