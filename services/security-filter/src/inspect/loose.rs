//! The second look: every line that starts with `--` may be a delimiter to somebody.
//!
//! Owns the cutting into sections. Each is read as an entity, in the encoding it states and in those it does not. What it finds
//! has no part of its own that could be replaced, so it stands for the whole message.

use std::ops::Range;

use memchr::memmem;
use opes_mime::structure::PARTS_MAX;
use opes_mime::{Encoding, Limit, Structure, scan};

use super::{Cause, Inspector, Place, decoded, inside};

/// Encodings that a reader may take a section to have.
const ENCODINGS: [Encoding; 3] = [
    Encoding::SevenBit,
    Encoding::Base64,
    Encoding::QuotedPrintable,
];

impl Inspector<'_> {
    /// `seen`: spans with findings of their own already.
    pub(super) fn look_loosely(
        &mut self,
        message: &[u8],
        structure: &Structure,
        seen: &[Range<u64>],
        place: &Place,
    ) {
        self.sections(message, structure.header_end, seen, place);
        for part in structure
            .parts
            .iter()
            .filter(|part| part.is_multipart() && !part.encoding.is_identity())
        {
            self.sections(&decoded(part.body(message), part.encoding), 0, &[], place);
        }
    }

    /// The sections of `octets` that start from octet `from` on, and the octets there themselves.
    fn sections(&mut self, octets: &[u8], from: u64, seen: &[Range<u64>], place: &Place) {
        let mut starts = vec![
            usize::try_from(from)
                .unwrap_or(octets.len())
                .min(octets.len()),
        ];
        starts.extend(
            memmem::find_iter(octets, b"\n--")
                .map(|at| at + 1)
                .filter(|at| *at as u64 >= from),
        );
        let ends: Vec<usize> = starts
            .iter()
            .skip(1)
            .copied()
            .chain([octets.len()])
            .collect();
        if starts.len() > PARTS_MAX {
            self.doubt(Cause::Beyond(Limit::Parts), place);
        }
        for (start, end) in starts.into_iter().zip(ends).take(PARTS_MAX) {
            let section = octets.get(start..end).unwrap_or_default();
            let after_line = memchr::memchr(b'\n', section).map_or(section.len(), |lf| lf + 1);
            let is_delimited = section.starts_with(b"--");
            let entity = if is_delimited {
                section.get(after_line..).unwrap_or_default()
            } else {
                section
            };
            if !inside(
                seen,
                (start + if is_delimited { after_line } else { 0 }) as u64,
            ) {
                self.section(entity, is_delimited, place);
            }
        }
    }

    fn section(&mut self, entity: &[u8], has_header: bool, place: &Place) {
        let structure = scan(if has_header { entity } else { b"" });
        let part = structure.parts.into_iter().next().unwrap_or_default();
        let body = entity
            .get(usize::try_from(structure.header_end).unwrap_or(entity.len())..)
            .unwrap_or_default();
        if let Some(cause) = self.forbidden_header(&part) {
            return self.find("", &part.name, cause, place);
        }
        ENCODINGS
            .iter()
            .any(|encoding| self.body(&part, "", body, *encoding, place));
    }
}
