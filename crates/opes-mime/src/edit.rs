//! Header and part operations turned into splices over the original.
//!
//! Owns the rendering of what is inserted and nothing else: every octet outside the returned splices stays as it was. Positions
//! and paths refer to the message as scanned, whatever other edits there are. Fails with [`EditError`] before anything is
//! changed: all edits apply or none.

mod body;
mod header;
mod part;

use bytes::Bytes;

pub use part::quoted_printable;

use crate::rope::Splice;
use crate::structure::{Limit, Structure};

/// Most edits of one message.
pub const EDITS_MAX: usize = 10_000;
/// Longest line without its CRLF that an edit may make, RFC 5322 §2.1.1.
pub const LINE_OCTETS_MAX: usize = 998;

/// One change of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A new header field. Several at one place appear in the order of the edits, those below the last field after every other
    /// insertion at that place.
    HeaderAdd {
        /// Field name.
        name: String,
        /// What follows the colon and a space; folded by the caller if long; no final CRLF.
        value: Bytes,
        /// false: above every field; true: below the last one.
        append: bool,
    },
    /// A new header field between others.
    HeaderInsert {
        /// As in `HeaderAdd`.
        name: String,
        /// Above the field with this number, counted over all names, 0 = topmost. If there are not so many, as `HeaderAdd` with `append`.
        index: u32,
        /// As in `HeaderAdd`.
        value: Bytes,
    },
    /// Another value for a field; its name stays as it is written. A topmost field that is not there is appended.
    HeaderReplace {
        /// Field name, any case.
        name: String,
        /// Which field of that name, 0 = topmost.
        index: u32,
        /// As in `HeaderAdd`.
        value: Bytes,
    },
    /// Removes a field; one that is not there is no error.
    HeaderDelete {
        /// Field name, any case.
        name: String,
        /// Which field of that name, 0 = topmost; `None` = all.
        index: Option<u32>,
    },
    /// A text in front of the subject, unless the subject has it already. Without a Subject field, one is appended.
    SubjectMark {
        /// The mark; a space between it and the subject is put there.
        text: String,
    },
    /// An entity, its header section included, gives way to a text/plain part. The delimiter lines around it stay. Of the message
    /// itself (path empty) the content and its describing fields are replaced; a message inside a part loses its fields.
    PartReplace {
        /// As in [`crate::Part::path`].
        path: String,
        /// The new content; any line ends.
        text: String,
        /// File name of the new part; empty = shown inline.
        name: String,
    },
    /// Octets of the caller's own.
    Splice(Splice),
    /// A text in front of the first text that a reader sees, in each alternative of it.
    BodyMark {
        /// Any line ends.
        text: String,
    },
}

/// Why edits cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Not a field name (RFC 5322 §2.2: printable US-ASCII without colon), or too long.
    #[error("header field name {0:?} is not printable US-ASCII without a colon")]
    InvalidName(String),
    /// A value that would end the field early.
    #[error(
        "value of header field {name}: octet {at} is a NUL or a line end that no white space follows; fold with CRLF and a space"
    )]
    InvalidValue {
        /// Field name.
        name: String,
        /// Octets from the start of the value.
        at: usize,
    },
    /// A line over [`LINE_OCTETS_MAX`].
    #[error(
        "value of header field {name} has a line of more than {LINE_OCTETS_MAX} octets; fold it with CRLF and a space"
    )]
    LineTooLong {
        /// Field name.
        name: String,
    },
    /// A mark or name that is empty or has control characters.
    #[error("{0} is empty or has control characters; use one line of text")]
    InvalidText(&'static str),
    /// There are not that many fields of this name.
    #[error("there is no header field {name} number {index}, counted from 0; add it instead")]
    NoSuchField {
        /// Field name.
        name: String,
        /// The number asked for.
        index: u32,
    },
    /// No entity at this path.
    #[error("there is no part at path {0:?}; use a path of the scanned structure")]
    NoSuchPart(String),
    /// A splice outside the message.
    #[error("splice of octets {start}..{end} is not inside the message of {len} octets")]
    OutOfRange {
        /// First octet.
        start: u64,
        /// End, exclusive.
        end: u64,
        /// Length of the message.
        len: u64,
    },
    /// Two edits want the same octets.
    #[error("two edits change octet {offset}; make one of them")]
    Conflict {
        /// Where the second one starts.
        offset: u64,
    },
    /// The message does not allow it.
    #[error("{0}; mark the subject or add a header field instead")]
    Unsupported(&'static str),
    /// The header section is longer than what the scanner looks at.
    #[error("the header section goes beyond a limit ({0:?}); only fields at the top can be added")]
    HeaderBeyondLimit(Limit),
    /// `header_octets` is not the header section of this structure.
    #[error("{have} octets of the header section were given, {want} are needed")]
    HeaderMissing {
        /// Octets given.
        have: usize,
        /// Octets of the section.
        want: u64,
    },
    /// More than [`EDITS_MAX`].
    #[error("more than {EDITS_MAX} edits for one message; combine them")]
    TooMany,
}

/// What edits are applied to.
struct Target<'m> {
    structure: &'m Structure,
    /// The header section, or more of the message.
    octets: &'m [u8],
    splices: Vec<Splice>,
    /// Fields to stand below the last one.
    appended: Vec<u8>,
    /// Changes of the body: at the same place they come after fields.
    body: Vec<Splice>,
}

/// The splices that make `edits`, sorted and without overlap, ready for [`crate::Rope::splice_all`]. `header_octets` starts at
/// the first octet of the message and has at least its header section.
pub fn apply(
    structure: &Structure,
    header_octets: &[u8],
    edits: &[Edit],
) -> Result<Vec<Splice>, EditError> {
    if edits.len() > EDITS_MAX {
        return Err(EditError::TooMany);
    }
    if (header_octets.len() as u64) < structure.header_end {
        return Err(EditError::HeaderMissing {
            have: header_octets.len(),
            want: structure.header_end,
        });
    }
    let mut target = Target {
        structure,
        octets: header_octets,
        splices: Vec::with_capacity(edits.len()),
        appended: Vec::new(),
        body: Vec::new(),
    };
    for edit in edits {
        target.edit(edit, edits)?;
    }
    target.finish()
}

impl Target<'_> {
    fn edit(&mut self, edit: &Edit, all: &[Edit]) -> Result<(), EditError> {
        match edit {
            Edit::HeaderAdd {
                name,
                value,
                append,
            } => self.add_field(name, value, *append),
            Edit::HeaderInsert { name, index, value } => self.insert_field(name, *index, value),
            Edit::HeaderReplace { name, index, value } => self.replace_field(name, *index, value),
            Edit::HeaderDelete { name, index } => self.delete_fields(name, *index),
            Edit::SubjectMark { text } => self.mark_subject(text),
            Edit::PartReplace { path, text, name } => self.replace_part(path, text, name),
            Edit::BodyMark { text } => self.mark_body(text, all),
            Edit::Splice(splice) => self.own_splice(splice),
        }
    }

    /// Everything in its order. What completes the last line of a header section, or ends the section, is put here: it depends on all edits.
    fn finish(mut self) -> Result<Vec<Splice>, EditError> {
        let fields_end = self.structure.fields_end;
        self.splices = sorted(self.splices)?;
        let mut line_ended = self.line_ended();
        if !self.appended.is_empty() {
            let line_end: &[u8] = if line_ended { b"" } else { b"\r\n" };
            let fields = [line_end, &self.appended].concat();
            self.insert(fields_end, fields);
            line_ended = true;
        }
        let section_ends = |splice: &Splice| splice.offset == self.structure.header_end;
        if !self.has_empty_line() && self.body.iter().any(section_ends) {
            let ends: &'static [u8] = if line_ended { b"\r\n" } else { b"\r\n\r\n" };
            self.insert(fields_end, ends);
        }
        self.splices.append(&mut self.body);
        sorted(self.splices)
    }

    fn own_splice(&mut self, splice: &Splice) -> Result<(), EditError> {
        let end = splice.offset.saturating_add(splice.size);
        if end > self.structure.len {
            return Err(EditError::OutOfRange {
                start: splice.offset,
                end,
                len: self.structure.len,
            });
        }
        self.splices.push(splice.clone());
        Ok(())
    }

    fn splice(&mut self, offset: u64, size: u64, replacement: impl Into<Bytes>) {
        self.splices.push(Splice {
            offset,
            size,
            replacement: replacement.into(),
        });
    }

    fn insert(&mut self, offset: u64, octets: impl Into<Bytes>) {
        self.splice(offset, 0, octets);
    }

    /// Does a line end, or nothing at all, stand before the place for new fields, once the sorted splices are made?
    fn line_ended(&self) -> bool {
        let mut at = self.structure.fields_end;
        for splice in self.splices.iter().rev() {
            let end = splice.offset.saturating_add(splice.size);
            match splice.replacement.last() {
                _ if end > at => {}
                _ if end < at => break,
                Some(octet) => return *octet == b'\n',
                None => at = splice.offset,
            }
        }
        self.starts_line(at)
    }

    /// Does octet `offset` start a line? True at the start of the message.
    fn starts_line(&self, offset: u64) -> bool {
        let before = usize::try_from(offset)
            .ok()
            .and_then(|at| at.checked_sub(1));
        before
            .and_then(|at| self.octets.get(at))
            .is_none_or(|octet| *octet == b'\n')
    }
}

/// In the order of offsets, insertions before a change of the octets they precede; overlap is an error.
fn sorted(mut splices: Vec<Splice>) -> Result<Vec<Splice>, EditError> {
    splices.sort_by_key(|splice| (splice.offset, splice.size > 0));
    let mut done = 0;
    for splice in &splices {
        if splice.offset < done {
            return Err(EditError::Conflict {
                offset: splice.offset,
            });
        }
        done = splice.offset.saturating_add(splice.size);
    }
    Ok(splices)
}

#[cfg(test)]
mod tests;
