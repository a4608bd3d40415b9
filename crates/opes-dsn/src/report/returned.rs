//! The part that says which message it is about: its header section, or all of it (RFC 3461 §4.3, RFC 6522 §3).

use crate::mime::{Part, is_plain};
use crate::parameters::wants_content;

/// Most octets of a message that are returned; of a larger one, its header section. Reports must stay small: they go to people who
/// may never have sent anything.
pub const RETURNED_OCTETS_MAX: usize = 64 * 1024;

/// The beginning of a message.
#[derive(Debug, Clone, Copy)]
pub struct Returned<'a> {
    /// As stored; what is beyond [`RETURNED_OCTETS_MAX`] is not looked at.
    pub octets: &'a [u8],
    /// That is all of it.
    pub complete: bool,
}

// === impl Returned ===

impl Returned<'_> {
    pub(super) fn part(&self, params: &[String], smtputf8: bool) -> Part {
        let octets = self.octets.get(..RETURNED_OCTETS_MAX);
        let complete = self.complete && self.octets.len() <= RETURNED_OCTETS_MAX;
        let octets = octets.unwrap_or(self.octets);
        let header = header(octets);
        // A message must not be encoded a second time (RFC 2046 §5.2.1), so only one that needs it not is returned whole.
        if complete && wants_content(params) && header.is_ascii() && is_plain(octets) {
            return Part::unchanged("message/rfc822", octets);
        }
        let global = smtputf8 && !header.is_ascii();
        let content_type = if global {
            "message/global-headers"
        } else {
            "text/rfc822-headers"
        };
        Part::encoded(content_type, header)
    }
}

/// The header section; of one that is not complete, its whole lines.
fn header(octets: &[u8]) -> &[u8] {
    if octets.starts_with(b"\r\n") {
        return &[];
    }
    let end = match memchr::memmem::find(octets, b"\r\n\r\n") {
        Some(end) => end + 2,
        None => memchr::memmem::rfind(octets, b"\r\n").map_or(0, |end| end + 2),
    };
    octets.get(..end).unwrap_or_default()
}
