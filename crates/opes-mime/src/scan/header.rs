//! One header section: where its fields are, and what they say about the entity.
//!
//! Owns the values of the three fields that describe an entity, unfolded; of all others only the span of the current one.

use crate::params::Parameterized;
use crate::structure::{
    Defect, Defects, Encoding, Field, HEADER_FIELDS_MAX, NAME_OCTETS_MAX, NAMES_MAX,
    TYPE_OCTETS_MAX,
};

/// Reads a header section line by line.
#[derive(Debug, Default)]
pub(super) struct HeaderReader {
    /// Octets of complete lines so far.
    pub(super) octets: usize,
    fields: usize,
    current: Option<Field>,
    describing: Option<Describing>,
    content_type: Vec<Vec<u8>>,
    disposition: Vec<Vec<u8>>,
    encoding: Vec<Vec<u8>>,
    defects: Defects,
}

/// The fields that describe an entity.
#[derive(Debug, Clone, Copy)]
enum Describing {
    Type,
    Disposition,
    Encoding,
}

/// What a header section says about its entity.
#[derive(Debug, Default)]
pub(super) struct Description {
    pub(super) content_type: String,
    pub(super) charset: String,
    pub(super) boundary: Vec<u8>,
    pub(super) names: Vec<String>,
    pub(super) disposition: String,
    pub(super) encoding: Encoding,
}

impl HeaderReader {
    /// A line that is not empty, without its end; octets `start..end` with it. Returns the field that this line shows to be complete.
    pub(super) fn on_line(&mut self, text: &[u8], start: u64, end: u64) -> Option<Field> {
        if text.first().is_some_and(|c| matches!(c, b' ' | b'\t')) && self.current.is_some() {
            self.continue_field(text, start, end);
            return None;
        }
        let done = self.end_field();
        match field_name_len(text) {
            Some((name_len, colon)) => self.start_field(text, name_len, colon, start, end),
            None => self.defects.insert(Defect::NotAField),
        }
        done
    }

    fn start_field(&mut self, text: &[u8], name_len: usize, colon: usize, start: u64, end: u64) {
        self.current = Some(Field {
            name: start..start + name_len as u64,
            value: start + colon as u64 + 1..start + text.len() as u64,
            whole: start..end,
        });
        let name = text.get(..name_len).unwrap_or_default();
        let value = text.get(colon + 1..).unwrap_or_default();
        self.describing = match name {
            _ if name.eq_ignore_ascii_case(b"content-type") => Some(Describing::Type),
            _ if name.eq_ignore_ascii_case(b"content-disposition") => Some(Describing::Disposition),
            _ if name.eq_ignore_ascii_case(b"content-transfer-encoding") => {
                Some(Describing::Encoding)
            }
            _ => None,
        };
        if let Some(values) = self.described() {
            values.push(value.to_vec());
            if values.len() > 1 {
                self.defects.insert(Defect::RepeatedField);
            }
        }
    }

    fn continue_field(&mut self, text: &[u8], start: u64, end: u64) {
        if text.iter().all(u8::is_ascii_whitespace) {
            self.defects.insert(Defect::BlankFold);
        }
        if let Some(field) = &mut self.current {
            field.value.end = start + text.len() as u64;
            field.whole.end = end;
        }
        if let Some(value) = self.described().and_then(|values| values.last_mut()) {
            value.extend_from_slice(text);
        }
    }

    fn described(&mut self) -> Option<&mut Vec<Vec<u8>>> {
        self.describing.map(|field| match field {
            Describing::Type => &mut self.content_type,
            Describing::Disposition => &mut self.disposition,
            Describing::Encoding => &mut self.encoding,
        })
    }

    /// The field being read is complete.
    pub(super) fn end_field(&mut self) -> Option<Field> {
        self.describing = None;
        self.current.take()
    }

    /// Counts one more; false: beyond [`HEADER_FIELDS_MAX`].
    pub(super) fn count_field(&mut self) -> bool {
        self.fields += 1;
        self.fields <= HEADER_FIELDS_MAX
    }

    /// What the section says, all of it read. In a digest, an untyped entity is a message (RFC 2046 §5.1.5).
    pub(super) fn describe(self, in_digest: bool) -> (Description, Defects) {
        let mut defects = self.defects;
        let parse = |values: &[Vec<u8>]| {
            values
                .iter()
                .map(|value| Parameterized::parse(value))
                .collect::<Vec<_>>()
        };
        let (types, dispositions) = (parse(&self.content_type), parse(&self.disposition));
        if types.iter().chain(&dispositions).any(|value| value.odd) {
            defects.insert(Defect::Parameters);
        }
        let encoding = self
            .encoding
            .first()
            .map_or(Encoding::SevenBit, |value| Encoding::parse(value));
        if encoding == Encoding::Other {
            defects.insert(Defect::UnknownEncoding);
        }
        let first = types.first();
        let parameter = |name: &str| {
            first
                .and_then(|value| value.octets(name))
                .unwrap_or_default()
        };
        let description = Description {
            content_type: media_type(first, in_digest),
            charset: String::from_utf8_lossy(&parameter("charset")).to_ascii_lowercase(),
            boundary: parameter("boundary").trim_ascii_end().to_vec(),
            names: names(&types, &dispositions),
            disposition: dispositions
                .first()
                .map(|value| value.value.clone())
                .unwrap_or_default(),
            encoding,
        };
        (description, defects)
    }
}

/// Length of the field name and position of the colon; `None` if the line is no field (RFC 5322 §2.2, with the blank before the
/// colon of §4.5).
fn field_name_len(text: &[u8]) -> Option<(usize, usize)> {
    let colon = memchr::memchr(b':', text)?;
    let name = text.get(..colon)?.trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then_some((name.len(), colon))
}

/// The media type, or the default where there is none or it cannot be read (RFC 2045 §5.2).
fn media_type(stated: Option<&Parameterized>, in_digest: bool) -> String {
    match stated.map(|value| value.value.as_str()) {
        Some(value) if is_media_type(value) => value
            .get(..value.floor_char_boundary(TYPE_OCTETS_MAX))
            .unwrap_or(value)
            .to_owned(),
        None if in_digest => "message/rfc822".to_owned(),
        _ => "text/plain".to_owned(),
    }
}

fn is_media_type(value: &str) -> bool {
    value
        .split_once('/')
        .is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.is_empty())
}

/// Every reading of the entity's name, without repetition, the preferred one first.
fn names(types: &[Parameterized], dispositions: &[Parameterized]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let filenames = dispositions
        .iter()
        .flat_map(|value| value.texts("filename"));
    for name in filenames.chain(types.iter().flat_map(|value| value.texts("name"))) {
        if name.is_empty() || names.len() >= NAMES_MAX {
            continue;
        }
        let name = name.get(name.ceil_char_boundary(name.len().saturating_sub(NAME_OCTETS_MAX))..);
        let name = name.unwrap_or_default().to_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
