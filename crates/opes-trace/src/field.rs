//! The fields that the edge writes: `OPES-System` before the first callout, `OPES-Via` when all have returned.
//!
//! Each pass writes fields of its own above those of earlier passes, as it does with `Received` (RFC 5321 §4.4), in place of one list
//! that grows: what earlier servers wrote and signed keeps its octets.

use crate::bypass::Bypass;
use crate::entry::Entry;
use crate::uri::AgentUri;
use crate::{SYSTEM_FIELD, VIA_FIELD};

/// Most services that one `OPES-Via` names; the processor's entry says how many more there were.
pub const VIA_SERVICES_MAX: usize = 64;
/// Preferred length of a line without its CRLF (RFC 5322 §2.1.1). A word that is longer has a line of its own.
const LINE_OCTETS_PREFERRED: usize = 78;

/// The system's entry of one pass.
#[derive(Debug, Clone, Copy)]
pub struct SystemTrace<'a> {
    /// The OPES system.
    pub system: &'a AgentUri,
    /// Opaque to all but the system's people: leads them to the log.
    pub id: &'a str,
    /// Revision of the rules that were in force.
    pub rules: &'a str,
}

/// Processor and services of one pass, as they concern one copy of a message.
#[derive(Debug, Clone)]
pub struct Via<'a> {
    /// The processor.
    pub processor: &'a AgentUri,
    /// As in [`SystemTrace`].
    pub id: &'a str,
    /// A bypass was asked for and cannot be had for a reason that is not a service's.
    pub refused: Option<&'a str>,
    /// Services in the order in which they ran, or would have.
    pub services: Vec<Ran<'a>>,
}

/// A service in an `OPES-Via`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran<'a> {
    /// The service.
    pub service: &'a AgentUri,
    /// None: nobody asked to bypass it.
    pub bypass: Option<BypassMark>,
}

/// What became of a request to bypass a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BypassMark {
    /// It did not run.
    Granted,
    /// It ran all the same (R4902-17, R3897-16).
    Refused,
}

/// Reason in the trace for a service that is not to be bypassed.
pub const REASON_REQUIRED: &str = "required";

// === impl SystemTrace ===

impl SystemTrace<'_> {
    /// The whole field, folded, with its CRLF.
    pub fn field(&self) -> String {
        let entry = Entry::new(self.system.clone())
            .with("id", self.id)
            .with("rules", self.rules);
        folded(SYSTEM_FIELD, &[entry])
    }
}

// === impl Via ===

impl Via<'_> {
    /// The whole field, folded, with its CRLF.
    pub fn field(&self) -> String {
        let mut processor = Entry::new(self.processor.clone()).with("id", self.id);
        if let Some(reason) = self.refused {
            processor = processor.with("bypass", "refused").with("reason", reason);
        }
        let more = self.services.len().saturating_sub(VIA_SERVICES_MAX);
        if more > 0 {
            processor = processor.with("more", &more.to_string());
        }
        let mut entries = vec![processor];
        let named = self.services.iter().take(VIA_SERVICES_MAX);
        entries.extend(named.map(Ran::entry));
        folded(VIA_FIELD, &entries)
    }
}

// === impl Ran ===

impl<'a> Ran<'a> {
    /// A service that ran although `asked`, what was asked for and granted, names it; or one that nobody asked about.
    pub fn in_spite_of(asked: Option<&Bypass>, name: &str, service: &'a AgentUri) -> Self {
        let asked = asked.is_some_and(|asked| asked.covers(name));
        Self {
            service,
            bypass: asked.then_some(BypassMark::Refused),
        }
    }

    fn entry(&self) -> Entry {
        let entry = Entry::new(self.service.clone());
        match self.bypass {
            None => entry,
            Some(BypassMark::Granted) => entry.with("bypass", "granted"),
            Some(BypassMark::Refused) => entry
                .with("bypass", "refused")
                .with("reason", REASON_REQUIRED),
        }
    }
}

/// Lines are broken between words only, which are entries' URIs and parameters.
fn folded(name: &str, entries: &[Entry]) -> String {
    let mut field = format!("{name}:");
    let mut line = field.len();
    for (index, entry) in entries.iter().enumerate() {
        let mut words = entry.words().peekable();
        while let Some(mut word) = words.next() {
            if words.peek().is_some() {
                word.push(';');
            } else if index + 1 < entries.len() {
                word.push(',');
            }
            let fits = line + 1 + word.len() <= LINE_OCTETS_PREFERRED;
            if fits || line == name.len() + 1 {
                field.push(' ');
                line += 1 + word.len();
            } else {
                field.push_str("\r\n\t");
                line = 1 + word.len();
            }
            field.push_str(&word);
        }
    }
    field.push_str("\r\n");
    field
}

/// The body of a field on one line, for [`Entry::parse_list`].
pub(crate) fn unfolded(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let breaks = |c: char| {
        if matches!(c, '\r' | '\n' | '\t') {
            ' '
        } else {
            c
        }
    };
    text.chars()
        .map(breaks)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests;
