//! The header section as rules ask for it.

use std::borrow::Cow;
use std::ops::Range;

use opes_mime::{Field, Structure};
use opes_rules::Headers;

/// Looks fields up in a header section that was scanned.
#[derive(Debug, Clone, Copy)]
pub struct HeaderFields<'a> {
    structure: &'a Structure,
    header: &'a [u8],
}

impl<'a> HeaderFields<'a> {
    /// `header` is the header section, or a whole message, that `structure` describes.
    pub fn new(structure: &'a Structure, header: &'a [u8]) -> Self {
        Self { structure, header }
    }

    /// Bodies of the fields of this name (any case) in their order, as received.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |field: &&Field| {
            self.octets(&field.name)
                .is_some_and(|octets| octets.eq_ignore_ascii_case(name.as_bytes()))
        };
        self.structure
            .fields
            .iter()
            .filter(named)
            .filter_map(|field| self.octets(&field.value))
    }

    fn octets(&self, range: &Range<u64>) -> Option<&'a [u8]> {
        self.header
            .get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
    }
}

impl Headers for HeaderFields<'_> {
    fn first(&self, name: &str) -> Option<Cow<'_, str>> {
        let value = self.values(name).next()?;
        let unfolded = String::from_utf8_lossy(value).replace("\r\n", "");
        Some(Cow::Owned(unfolded.trim_start().to_owned()))
    }
}
