//! The header section of the message: fields that are missing, there twice, or not US-ASCII.

mod ascii;
mod names;

use opes_mime::rope::Splice;
use opes_mime::{Field, Structure};
use sha2::{Digest as _, Sha256};

use super::{Facts, insert, replace, slice};

/// RFC 5322 §3.6: at most once.
const SINGLETONS: [&str; 11] = [
    "date",
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "message-id",
    "in-reply-to",
    "references",
    "subject",
];

/// In front of the name of a field that is there already. The first one counts: it is what most readers show.
const DUPLICATE: &str = "X-Duplicate-";

fn name<'a>(octets: &'a [u8], field: &Field) -> &'a [u8] {
    slice(octets, field.name.start, field.name.end)
}

fn has(octets: &[u8], structure: &Structure, wanted: &str) -> bool {
    let mut fields = structure.fields.iter();
    fields.any(|field| name(octets, field).eq_ignore_ascii_case(wanted.as_bytes()))
}

pub(super) fn singletons(octets: &[u8], structure: &Structure) -> Vec<Splice> {
    let mut edits = Vec::new();
    for singleton in SINGLETONS {
        let of_this_name =
            |field: &&Field| name(octets, field).eq_ignore_ascii_case(singleton.as_bytes());
        let again = structure.fields.iter().filter(of_this_name).skip(1);
        edits.extend(again.map(|field| insert(field.name.start, DUPLICATE)));
    }
    edits.sort_by_key(|edit| edit.offset);
    edits
}

pub(super) fn date(octets: &[u8], structure: &Structure, facts: Facts<'_>) -> Vec<Splice> {
    if has(octets, structure, "date") || structure.truncated.is_some() {
        return Vec::new();
    }
    vec![insert(
        structure.fields_end,
        format!("Date: {}\r\n", facts.date),
    )]
}

/// From the octets: the same message gets the same id, however often it comes.
pub(super) fn message_id(octets: &[u8], structure: &Structure, domain: &str) -> Vec<Splice> {
    if has(octets, structure, "message-id") || structure.truncated.is_some() {
        return Vec::new();
    }
    // The date that was just added says when, not what.
    let body = slice(octets, structure.header_end, structure.len);
    let mut hash = Sha256::new();
    for field in &structure.fields {
        if !name(octets, field).eq_ignore_ascii_case(b"date") {
            hash.update(slice(octets, field.whole.start, field.whole.end));
        }
    }
    hash.update(body);
    let mut id = String::new();
    for octet in hash.finalize().iter().take(16) {
        id.push_str(&format!("{octet:02x}"));
    }
    vec![insert(
        structure.fields_end,
        format!("Message-ID: <{id}@{domain}>\r\n"),
    )]
}

/// Names of sections that no file should have.
pub(super) fn section_names(octets: &[u8], structure: &Structure) -> Vec<Splice> {
    let mut edits = Vec::new();
    let named = |section: &[u8], fields: &[Field], start: u64, edits: &mut Vec<Splice>| {
        for field in fields {
            let name = name(section, field);
            let may_have = name.eq_ignore_ascii_case(b"content-disposition")
                || name.eq_ignore_ascii_case(b"content-type");
            let value = slice(section, field.value.start, field.value.end);
            if let Some(new) = may_have.then(|| names::value(value)).flatten() {
                edits.push(replace(
                    start + field.value.start,
                    start + field.value.end,
                    new,
                ));
            }
        }
    };
    named(octets, &structure.fields, 0, &mut edits);
    for part in structure.parts.iter().filter(|part| !part.path.is_empty()) {
        let section = slice(octets, part.header_start, part.body_start);
        let fields = opes_mime::scan(section).fields;
        named(section, &fields, part.header_start, &mut edits);
    }
    edits.sort_by_key(|edit| edit.offset);
    edits
}

/// Octets beyond US-ASCII become encoded words (RFC 2047), in parameters extended values (RFC 2231).
pub(super) fn raw(octets: &[u8], structure: &Structure, facts: Facts<'_>) -> Vec<Splice> {
    let mut edits = Vec::new();
    if !facts.smtputf8 {
        for field in &structure.fields {
            edits.extend(ascii_value(octets, field));
        }
    }
    // The header sections of the parts begin behind that of the message.
    for part in structure.parts.iter().filter(|part| !part.path.is_empty()) {
        let section = slice(octets, part.header_start, part.body_start);
        for field in &opes_mime::scan(section).fields {
            let moved = ascii_value(section, field);
            edits.extend(moved.map(|edit| Splice {
                offset: edit.offset + part.header_start,
                ..edit
            }));
        }
    }
    edits.sort_by_key(|edit| edit.offset);
    edits
}

fn ascii_value(octets: &[u8], field: &Field) -> Option<Splice> {
    let value = slice(octets, field.value.start, field.value.end);
    if value.is_ascii() {
        return None;
    }
    let new = ascii::value(name(octets, field), value);
    (new != value).then(|| replace(field.value.start, field.value.end, new))
}
