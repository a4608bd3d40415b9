//! Operations on the header section of the message itself.
//!
//! Owns the check that a value cannot end its field. Fields are found by their spans; what is not named is not touched.

use std::ops::Range;

use super::{EditError, LINE_OCTETS_MAX, Target};
use crate::structure::{Field, slice};
use crate::words;

/// Longest field name; with its colon it fits a line of 78 octets (RFC 5322 §2.1.1).
const NAME_OCTETS_MAX: usize = 76;

impl Target<'_> {
    pub(super) fn add_field(
        &mut self,
        name: &str,
        value: &[u8],
        append: bool,
    ) -> Result<(), EditError> {
        let field = render(name, value)?;
        if append {
            return self.append(&field);
        }
        self.insert(0, field);
        Ok(())
    }

    pub(super) fn insert_field(
        &mut self,
        name: &str,
        index: u32,
        value: &[u8],
    ) -> Result<(), EditError> {
        let field = render(name, value)?;
        let there = self.structure.fields.get(index as usize);
        match there.map(|field| field.whole.start) {
            Some(start) => {
                self.insert(start, field);
                Ok(())
            }
            None => self.append(&field),
        }
    }

    /// `field`, complete with its CRLF, below the last one.
    pub(super) fn append(&mut self, field: &[u8]) -> Result<(), EditError> {
        self.check_end_known()?;
        self.appended.extend_from_slice(field);
        Ok(())
    }

    /// What the scanner did not look at may be more of the header section.
    pub(super) fn check_end_known(&self) -> Result<(), EditError> {
        match self.structure.truncated {
            Some(limit) if !self.has_empty_line() => Err(EditError::HeaderBeyondLimit(limit)),
            _ => Ok(()),
        }
    }

    /// Does an empty line end the header section?
    pub(super) fn has_empty_line(&self) -> bool {
        self.structure.fields_end < self.structure.header_end
    }

    pub(super) fn replace_field(
        &mut self,
        name: &str,
        index: u32,
        value: &[u8],
    ) -> Result<(), EditError> {
        let rendered = render(name, value)?;
        let found = self
            .fields_named(name)
            .nth(index as usize)
            .map(|field| field.value.clone());
        match found {
            Some(span) => {
                let value = rendered
                    .get(name.len() + 1..rendered.len() - 2)
                    .unwrap_or_default()
                    .to_vec();
                self.splice(span.start, span.end - span.start, value);
                Ok(())
            }
            None if index == 0 => self.append(&rendered),
            None => Err(EditError::NoSuchField {
                name: name.to_owned(),
                index,
            }),
        }
    }

    pub(super) fn delete_fields(
        &mut self,
        name: &str,
        index: Option<u32>,
    ) -> Result<(), EditError> {
        check_name(name)?;
        let doomed: Vec<Range<u64>> = match index {
            Some(index) => self
                .fields_named(name)
                .nth(index as usize)
                .map(|field| field.whole.clone())
                .into_iter()
                .collect(),
            None => self
                .fields_named(name)
                .map(|field| field.whole.clone())
                .collect(),
        };
        for span in doomed {
            self.delete(&span);
        }
        Ok(())
    }

    /// Removes `span`, unless an equal removal is there already.
    pub(super) fn delete(&mut self, span: &Range<u64>) {
        let size = span.end - span.start;
        let known = |splice: &crate::Splice| {
            splice.offset == span.start && splice.size == size && splice.replacement.is_empty()
        };
        if !self.splices.iter().any(known) {
            self.splice(span.start, size, Vec::new());
        }
    }

    pub(super) fn fields_named<'s>(
        &'s self,
        name: &'s str,
    ) -> impl Iterator<Item = &'s Field> + 's {
        let is_named = move |field: &&Field| {
            slice(self.octets, &field.name).eq_ignore_ascii_case(name.as_bytes())
        };
        self.structure.fields.iter().filter(is_named)
    }

    pub(super) fn mark_subject(&mut self, text: &str) -> Result<(), EditError> {
        let mark = text.trim();
        if mark.is_empty() || mark.chars().any(char::is_control) {
            return Err(EditError::InvalidText("subject mark"));
        }
        let Some(span) = self
            .fields_named("subject")
            .next()
            .map(|field| field.value.clone())
        else {
            let value = encoded_mark(mark, false);
            return self.append(&render("Subject", value.as_bytes())?);
        };
        let subject = slice(self.octets, &span);
        if words::decode_words(subject).contains(mark) {
            return Ok(());
        }
        let blanks = subject
            .iter()
            .take_while(|octet| octet.is_ascii_whitespace())
            .count();
        let rest = subject.get(blanks..).unwrap_or_default();
        let lead = if blanks == 0 { " " } else { "" };
        let mark = encoded_mark(mark, rest.starts_with(b"=?"));
        let gap = if rest.is_empty() {
            ""
        } else {
            gap(subject, rest, &mark)
        };
        self.insert(span.start + blanks as u64, [lead, &mark, gap].concat());
        Ok(())
    }
}

/// What separates the mark from the subject: a space, or a folded line if the line would become too long.
fn gap(subject: &[u8], rest: &[u8], mark: &str) -> &'static str {
    let line_before = subject.len() - rest.len();
    let line_after = rest
        .iter()
        .position(|octet| *octet == b'\r')
        .unwrap_or(rest.len());
    let name_octets = "Subject:".len() + 1;
    if name_octets + line_before + mark.len() + 1 + line_after > LINE_OCTETS_MAX {
        "\r\n "
    } else {
        " "
    }
}

/// The mark as it may stand in a header field. Space between two encoded words is not shown, so before one the mark brings its own.
fn encoded_mark(mark: &str, before_word: bool) -> String {
    let plain = mark.is_ascii() && !mark.contains("=?") && mark.len() <= 256;
    match (plain, before_word) {
        (true, _) => mark.to_owned(),
        (false, true) => words::encode_words(&format!("{mark} ")).replace("?= =?", "?=\r\n =?"),
        (false, false) => words::encode_words(mark).replace("?= =?", "?=\r\n =?"),
    }
}

fn check_name(name: &str) -> Result<(), EditError> {
    let is_name = name
        .bytes()
        .all(|octet| octet.is_ascii_graphic() && octet != b':');
    if is_name && !name.is_empty() && name.len() <= NAME_OCTETS_MAX {
        return Ok(());
    }
    Err(EditError::InvalidName(
        name.chars().take(NAME_OCTETS_MAX).collect(),
    ))
}

/// A field with its CRLF.
fn render(name: &str, value: &[u8]) -> Result<Vec<u8>, EditError> {
    check_name(name)?;
    check_value(name, value)?;
    let space: &[u8] = if matches!(value.first(), None | Some(b' ' | b'\t' | b'\r')) {
        b""
    } else {
        b" "
    };
    let field = [name.as_bytes(), b":", space, value, b"\r\n"].concat();
    if field
        .split(|octet| *octet == b'\n')
        .any(|line| line.len() > LINE_OCTETS_MAX + 1)
    {
        return Err(EditError::LineTooLong {
            name: name.to_owned(),
        });
    }
    Ok(field)
}

/// RFC 5322 §2.2: no NUL; CR and LF only together, and only before white space that something follows on its line.
fn check_value(name: &str, value: &[u8]) -> Result<(), EditError> {
    let mut rest = value;
    while let Some(found) = rest
        .iter()
        .position(|octet| matches!(octet, b'\r' | b'\n' | 0))
    {
        let tail = rest.get(found..).unwrap_or_default();
        let is_fold = matches!(tail, [b'\r', b'\n', b' ' | b'\t', line @ ..]
            if line.iter().find(|octet| !matches!(octet, b' ' | b'\t')).is_some_and(|octet| !matches!(octet, b'\r' | b'\n')));
        if !is_fold {
            return Err(EditError::InvalidValue {
                name: name.to_owned(),
                at: value.len() - tail.len(),
            });
        }
        rest = tail.get(3..).unwrap_or_default();
    }
    Ok(())
}
