//! Line ends: CR and LF stand together or not at all (RFC 5322 §2.3).

use opes_mime::rope::Splice;

use super::{insert, replace};

pub(super) fn ends(octets: &[u8]) -> Vec<Splice> {
    let mut edits = Vec::new();
    let mut before = None;
    for (at, octet) in (0_u64..).zip(octets) {
        match (before, octet) {
            (Some(b'\r'), b'\n') => {}
            (_, b'\n') => edits.push(insert(at, "\r")),
            (Some(b'\r'), _) => edits.push(insert(at, "\n")),
            _ => {}
        }
        before = Some(*octet);
    }
    let end = octets.len() as u64;
    match before {
        None | Some(b'\n') => {}
        Some(b'\r') => edits.push(insert(end, "\n")),
        Some(_) => edits.push(insert(end, "\r\n")),
    }
    if edits.len() > MANY {
        return whole(octets);
    }
    edits
}

/// A message written on another system has the wrong end on every line: one edit then.
const MANY: usize = 1000;

fn whole(octets: &[u8]) -> Vec<Splice> {
    let mut text = Vec::with_capacity(octets.len() + octets.len() / 32);
    let mut rest = octets.iter().copied().peekable();
    while let Some(octet) = rest.next() {
        match octet {
            b'\r' => {
                rest.next_if_eq(&b'\n');
                text.extend_from_slice(b"\r\n");
            }
            b'\n' => text.extend_from_slice(b"\r\n"),
            other => text.push(other),
        }
    }
    if !text.ends_with(b"\r\n") {
        text.extend_from_slice(b"\r\n");
    }
    vec![replace(0, octets.len() as u64, text)]
}
