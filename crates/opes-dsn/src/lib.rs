//! Mail that the mail system itself writes: delivery reports (RFC 3464, RFC 6533) and notifications (RFC 3834).
//!
//! Owns the text and the MIME form of both, and what the DSN parameters of an envelope ask for (RFC 3461). Addresses, replies, headers and
//! texts come from strangers: whatever is in them, the result is one message with CRLF lines of at most 998 octets, and no field
//! that is not ours. Never fails: what may not be shown is replaced by `?`, what is too long is cut.
//!
//! Must not know: who is told and who is not, clocks, the spool. Time, ids and octets come as values.

mod date;
mod field;
mod mime;
mod notice;
mod parameters;
mod report;

pub use notice::{Notice, SUBJECT_OCTETS_MAX, TEXT_OCTETS_MAX};
pub use parameters::{Notify, notify, wants_content};
pub use report::{Action, RETURNED_OCTETS_MAX, Report, Returned, Told};

/// Local part that our own mail comes from (RFC 5321 §6.1 leaves the name to us; this one is what people know and filters expect).
pub const DAEMON: &str = "MAILER-DAEMON";

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// Our host name.
    pub hostname: &'a str,
    /// Absolute URI of the OPES system (RFC 4902 §4); empty = none configured.
    pub system: &'a str,
    /// What leads our people to the log: the trace id, or the session.
    pub trace: &'a str,
}

/// A message ready to be stored. Its reverse-path is null (RFC 5321 §4.5.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// Header section and body.
    pub octets: Vec<u8>,
    /// A header field has UTF-8: the message needs SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// The body has octets above 127 (RFC 6152).
    pub body_8bit: bool,
}

// === impl Author ===

impl Author<'_> {
    /// The sentence for people (RFC 4902 §4); empty if there is nothing to refer to.
    fn sentence(&self) -> String {
        let trace = field::shown(self.trace);
        let by = match field::shown(self.system) {
            system if system.is_empty() => {
                format!("the mail system {}", field::host(self.hostname))
            }
            system => format!("the OPES mail system {system}"),
        };
        if trace.is_empty() {
            return format!("This was written by {by}.");
        }
        format!("This was written by {by}. If you ask its operators, quote the reference {trace}.")
    }
}
