//! Finds the trace fields in a header section, as octet ranges.
//!
//! Any line end counts, CRLF or LF: what a mail program would take for a field is one here.

use std::ops::Range;

use crate::bypass::{BypassRequest, BypassSyntax};
use crate::{BYPASS_FIELD, SYSTEM_FIELD, VIA_FIELD};

/// What a header section has of trace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderTrace {
    /// `OPES-System` and `OPES-Via` fields from the top.
    pub fields: Vec<TraceField>,
    /// Bodies of `OPES-Bypass` fields.
    pub bypass: Vec<Range<usize>>,
    /// `Received` fields.
    pub received: usize,
    /// The empty line was seen.
    pub complete: bool,
}

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceField {
    /// Which.
    pub kind: TraceKind,
    /// All its octets, the line end included.
    pub range: Range<usize>,
    /// What follows the colon, the line end included.
    pub value: Range<usize>,
}

/// The two trace fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceKind {
    /// `OPES-System`.
    System,
    /// `OPES-Via`.
    Via,
}

/// A field whose last line has not been seen.
struct Open {
    name: Name,
    start: usize,
    value: usize,
}

#[derive(Clone, Copy)]
enum Name {
    Trace(TraceKind),
    Bypass,
    Received,
}

// === impl HeaderTrace ===

impl HeaderTrace {
    /// Looks through `header`: a header section, the beginning of one, or a whole message.
    pub fn scan(header: &[u8]) -> Self {
        let mut found = Self::default();
        let mut open: Option<Open> = None;
        let mut start = 0;
        while start < header.len() {
            let rest = header.get(start..).unwrap_or_default();
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let line = rest.get(..length).unwrap_or_default();
            if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                if let Some(open) = open.take() {
                    found.close(&open, start);
                }
                if matches!(line, b"\r\n" | b"\n") {
                    found.complete = true;
                    return found;
                }
                open = field(line, start);
            }
            start += length;
        }
        if let Some(open) = open {
            found.close(&open, start);
        }
        found
    }

    fn close(&mut self, open: &Open, end: usize) {
        let &Open { name, start, value } = open;
        match name {
            Name::Trace(kind) => self.fields.push(TraceField {
                kind,
                range: start..end,
                value: value..end,
            }),
            Name::Bypass => self.bypass.push(value..end),
            Name::Received => self.received += 1,
        }
    }

    /// Passes through servers that the fields speak of: what counts against a loop (RFC 5321 §6.3).
    pub fn hops(&self) -> usize {
        let of = |kind| {
            self.fields
                .iter()
                .filter(|field| field.kind == kind)
                .count()
        };
        self.received
            .max(of(TraceKind::System))
            .max(of(TraceKind::Via))
    }

    /// What the `OPES-Bypass` fields ask for together; none if there is no such field. `header` is what was scanned.
    pub fn bypass_request(&self, header: &[u8]) -> Option<Result<BypassRequest, BypassSyntax>> {
        let values = self.bypass.iter();
        let requests = values
            .map(|value| BypassRequest::parse_field(header.get(value.clone()).unwrap_or_default()));
        requests.reduce(|one, other| Ok(one?.and(other?)))
    }
}

fn field(line: &[u8], start: usize) -> Option<Open> {
    // Most lines end here.
    if !matches!(line.first(), Some(b'O' | b'o' | b'R' | b'r')) {
        return None;
    }
    let colon = memchr::memchr(b':', line)?;
    // RFC 5322 §4.5 lets old mail have white space here.
    let written = line.get(..colon)?.trim_ascii_end();
    let is = |name: &str| written.eq_ignore_ascii_case(name.as_bytes());
    let name = if is(SYSTEM_FIELD) {
        Name::Trace(TraceKind::System)
    } else if is(VIA_FIELD) {
        Name::Trace(TraceKind::Via)
    } else if is(BYPASS_FIELD) {
        Name::Bypass
    } else if is("Received") {
        Name::Received
    } else {
        return None;
    };
    Some(Open {
        name,
        start,
        value: start + colon + 1,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &[u8] = b"Received: a\r\n\tb\r\nOPES-Via: urn:example:a,\r\n urn:example:b\r\nOriginator: c\r\nopes-system : urn:example:c\n\
        OPES-Bypass: *\r\nSubject: x\r\n OPES-System: no\r\nRECEIVED: d\r\n\r\nOPES-System: urn:example:body\r\n";

    #[test]
    fn fields_are_found_whatever_their_case_and_folding() {
        let trace = HeaderTrace::scan(HEADER);
        let texts: Vec<&[u8]> = trace
            .fields
            .iter()
            .map(|field| &HEADER[field.range.clone()])
            .collect();
        assert_eq!(
            texts,
            [
                &b"OPES-Via: urn:example:a,\r\n urn:example:b\r\n"[..],
                b"opes-system : urn:example:c\n"
            ]
        );
        assert_eq!((trace.received, trace.complete, trace.hops()), (2, true, 2));
        assert_eq!(trace.bypass_request(HEADER), Some(Ok(BypassRequest::All)));
    }

    proptest! {
        #[test]
        fn never_panics_and_ranges_are_inside(header in "[oO: \t\r\n]{0,9}(OPES-(System|Via|Bypass)?[: \r\n\ta]{0,9}){0,6}") {
            let trace = HeaderTrace::scan(header.as_bytes());
            for field in &trace.fields {
                prop_assert!(header.get(field.range.clone()).is_some());
                prop_assert!(field.range.end == header.len() || header[field.range.clone()].ends_with('\n'));
            }
            let _ = trace.bypass_request(header.as_bytes());
        }
    }
}
