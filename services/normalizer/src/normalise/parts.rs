//! The parts of a message: multiparts without an end, base64 that is none, lines that are too long.
//!
//! Nothing below a multipart that is signed or encrypted is touched: repaired, it would not verify any more.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opes_mime::decode::Decoder;
use opes_mime::rope::Splice;
use opes_mime::{Encoding, Part, Structure};

use super::{insert, replace, slice};

/// RFC 2045 §6.8.
const BASE64_LINE_MAX: usize = 76;
/// RFC 5322 §2.1.1, without the line end.
const LINE_MAX: usize = 998;
/// One octet in so many may be wrong; more, and the text is not base64 at all.
const WRONG_OF: usize = 10;

fn is_protected(structure: &Structure, part: &Part) -> bool {
    let mut above = part.parent;
    while let Some(parent) = above.and_then(|index| structure.parts.get(index)) {
        if matches!(
            parent.content_type.as_str(),
            "multipart/signed" | "multipart/encrypted"
        ) {
            return true;
        }
        above = parent.parent;
    }
    false
}

fn open_leaves<'a>(
    structure: &'a Structure,
    encodings: &'a [Encoding],
) -> impl Iterator<Item = &'a Part> {
    let leaves = structure.parts.iter().filter(|part| !part.is_container());
    leaves.filter(move |part| encodings.contains(&part.encoding) && !is_protected(structure, part))
}

/// A multipart that ends with the message gets its closing delimiter; one that ends with its parent's delimiter ends there.
pub(super) fn closed(octets: &[u8], structure: &Structure) -> Vec<Splice> {
    let Some(top) = structure.parts.first().filter(|part| part.is_multipart()) else {
        return Vec::new();
    };
    let header = slice(octets, top.header_start, top.body_start);
    let Some(boundary) = boundary(header) else {
        return Vec::new();
    };
    let body = slice(octets, top.body_start, top.body_end);
    let delimiter = format!("--{boundary}");
    let lines = || {
        body.split(|octet| *octet == b'\n')
            .map(<[u8]>::trim_ascii_end)
    };
    let is_opened = lines().any(|line| line == delimiter.as_bytes());
    let is_closed = lines().any(|line| line.strip_suffix(b"--") == Some(delimiter.as_bytes()));
    if !is_opened || is_closed {
        return Vec::new();
    }
    vec![insert(octets.len() as u64, format!("{delimiter}--\r\n"))]
}

/// The boundary parameter of the first Content-Type, if it is written plainly.
fn boundary(header: &[u8]) -> Option<String> {
    let structure = opes_mime::scan(header);
    let mut fields = structure.fields.iter();
    let field = fields.find(|field| {
        slice(header, field.name.start, field.name.end).eq_ignore_ascii_case(b"content-type")
    })?;
    let value = String::from_utf8_lossy(slice(header, field.value.start, field.value.end));
    let at = value.to_ascii_lowercase().find("boundary=")? + "boundary=".len();
    let rest = value.get(at..)?;
    let boundary = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split([';', ' ', '\t', '\r']).next()?,
    };
    (!boundary.is_empty() && !boundary.contains('\\')).then(|| boundary.to_owned())
}

pub(super) fn base64(octets: &[u8], structure: &Structure) -> Vec<Splice> {
    let mut edits = Vec::new();
    for part in open_leaves(structure, &[Encoding::Base64]) {
        let body = slice(octets, part.body_start, part.body_end);
        if is_broken(body) {
            let encoded = encoded(&decoded(part.encoding, body), body.ends_with(b"\r\n"));
            edits.push(replace(part.body_start, part.body_end, encoded));
        }
    }
    edits
}

fn is_broken(body: &[u8]) -> bool {
    let is_code = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/');
    let significant: Vec<u8> = body
        .iter()
        .copied()
        .filter(|octet| !matches!(octet, b'\r' | b'\n'))
        .collect();
    let wrong = significant
        .iter()
        .filter(|octet| !is_code(octet) && **octet != b'=')
        .count();
    if wrong * WRONG_OF > significant.len() {
        return false;
    }
    let code = significant
        .iter()
        .rposition(is_code)
        .map_or(0, |last| last + 1);
    let padded = significant.len().is_multiple_of(4) && significant.len() - code < 3;
    let in_the_middle = significant.iter().take(code).any(|octet| *octet == b'=');
    let too_long = body
        .split(|octet| *octet == b'\n')
        .any(|line| line.trim_ascii_end().len() > BASE64_LINE_MAX);
    wrong > 0 || !padded || in_the_middle || too_long
}

fn decoded(encoding: Encoding, body: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(body.len());
    let mut decoder = Decoder::new(encoding);
    decoder.push(body, &mut octets);
    decoder.finish(&mut octets);
    octets
}

/// In lines; the last one ends with CRLF if the body did, else with what belongs to the delimiter.
fn encoded(octets: &[u8], ends: bool) -> Vec<u8> {
    let text = STANDARD.encode(octets);
    let lines: Vec<_> = text.as_bytes().chunks(BASE64_LINE_MAX).collect();
    let mut body = lines.join(&b"\r\n"[..]);
    if ends {
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// A text with a line that no server need take is encoded as base64: no octet of it changes for its reader.
pub(super) fn long_lines(octets: &[u8], structure: &Structure) -> Vec<Splice> {
    let plain = [Encoding::SevenBit, Encoding::EightBit, Encoding::Binary];
    let mut edits = Vec::new();
    for part in open_leaves(structure, &plain) {
        let body = slice(octets, part.body_start, part.body_end);
        let mut lines = body.split(|octet| *octet == b'\n');
        if !part.content_type.starts_with("text/")
            || !lines.any(|line| line.trim_ascii_end().len() > LINE_MAX)
        {
            continue;
        }
        if let Some(marked) = base64_header(octets, part) {
            edits.extend(marked);
            edits.push(replace(
                part.body_start,
                part.body_end,
                encoded(body, body.ends_with(b"\r\n")),
            ));
        }
    }
    edits
}

/// What says that the part is base64; `None`: its header section has no place for it.
fn base64_header(octets: &[u8], part: &Part) -> Option<Vec<Splice>> {
    let section = slice(octets, part.header_start, part.body_start);
    let structure = opes_mime::scan(section);
    let find = |wanted: &[u8]| {
        let mut fields = structure.fields.iter();
        fields.find(|field| {
            slice(section, field.name.start, field.name.end).eq_ignore_ascii_case(wanted)
        })
    };
    if structure.fields_end == structure.header_end {
        return None;
    }
    let at = part.header_start;
    let mut edits = Vec::new();
    let mut missing = String::new();
    match find(b"content-transfer-encoding") {
        Some(field) => edits.push(replace(
            at + field.value.start,
            at + field.value.end,
            " base64",
        )),
        None => missing.push_str("Content-Transfer-Encoding: base64\r\n"),
    }
    // Without it, a message is not MIME, and its encoding means nothing (RFC 2045 §4).
    if part.path.is_empty() && find(b"mime-version").is_none() {
        missing.push_str("MIME-Version: 1.0\r\n");
    }
    if !missing.is_empty() {
        edits.push(insert(at + structure.fields_end, missing));
    }
    Some(edits)
}
