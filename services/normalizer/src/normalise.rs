//! The repairs, one after the other, each over what the ones before it left; the result as edits of the original.

mod header;
mod lines;
mod parts;

use bytes::Bytes;
use opes_mime::rope::Splice;
use opes_mime::{Piece, Rope, RopeError, Structure};

use crate::config::{Config, Repair};

/// A message that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Normalised {
    /// Sorted, without overlap, over the original. Empty: it is fine.
    pub edits: Vec<Splice>,
    /// What was repaired, a word each.
    pub done: Vec<&'static str>,
}

/// What the repairs are told besides the message.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// For a `Date` that is missing, in the format of RFC 5322 §3.3.
    pub date: &'a str,
    /// The client said SMTPUTF8: header fields may be UTF-8 (RFC 6532).
    pub smtputf8: bool,
}

/// The message so far.
struct Work {
    rope: Rope,
    octets: Vec<u8>,
    structure: Structure,
    done: Vec<&'static str>,
}

/// Looks at a message. The error: it would take more edits than there may be; such a message is not touched.
pub fn normalise(
    message: &[u8],
    config: &Config,
    facts: Facts<'_>,
) -> Result<Normalised, RopeError> {
    let mut work = Work {
        rope: Rope::identity(message.len() as u64),
        octets: message.to_vec(),
        structure: opes_mime::scan(message),
        done: Vec::new(),
    };
    let repairs: [(Repair, &'static str, Find); 9] = [
        (Repair::LineEnds, "line-ends", |work, _, _| {
            lines::ends(&work.octets)
        }),
        (Repair::Boundaries, "boundaries", |work, _, _| {
            parts::closed(&work.octets, &work.structure)
        }),
        (Repair::Base64, "base64", |work, _, _| {
            parts::base64(&work.octets, &work.structure)
        }),
        (Repair::LongLines, "long-lines", |work, _, _| {
            parts::long_lines(&work.octets, &work.structure)
        }),
        (Repair::Singletons, "singletons", |work, _, _| {
            header::singletons(&work.octets, &work.structure)
        }),
        (Repair::RawHeaders, "raw-headers", |work, _, facts| {
            header::raw(&work.octets, &work.structure, facts)
        }),
        (Repair::SectionNames, "section-names", |work, _, _| {
            header::section_names(&work.octets, &work.structure)
        }),
        (Repair::Date, "date", |work, _, facts| {
            header::date(&work.octets, &work.structure, facts)
        }),
        (Repair::MessageId, "message-id", |work, config, _| {
            header::message_id(&work.octets, &work.structure, &config.domain)
        }),
    ];
    for (repair, name, find) in repairs {
        if config.has(repair) {
            let edits = find(&work, config, facts);
            work.apply(name, edits)?;
        }
    }
    Ok(Normalised {
        edits: splices(&work.rope, message.len() as u64),
        done: work.done,
    })
}

type Find = fn(&Work, &Config, Facts<'_>) -> Vec<Splice>;

impl Work {
    fn apply(&mut self, name: &'static str, edits: Vec<Splice>) -> Result<(), RopeError> {
        if edits.is_empty() {
            return Ok(());
        }
        let here = Rope::identity(self.octets.len() as u64).splice_all(edits)?;
        self.rope = self.rope.compose(&here)?;
        self.octets = here.flatten(&self.octets);
        self.structure = opes_mime::scan(&self.octets);
        self.done.push(name);
        Ok(())
    }
}

/// What to cut out of the original and what to put there. Ranges of the original keep their order, as no repair moves anything.
fn splices(rope: &Rope, original_len: u64) -> Vec<Splice> {
    let mut splices = Vec::new();
    let (mut at, mut inserted) = (0, Vec::new());
    let mut add = |from: u64, to: u64, inserted: &mut Vec<u8>| {
        if to > from || !inserted.is_empty() {
            splices.push(Splice {
                offset: from,
                size: to - from,
                replacement: Bytes::from(std::mem::take(inserted)),
            });
        }
    };
    for piece in rope.pieces() {
        match piece {
            Piece::Original { offset, len } => {
                add(at, *offset, &mut inserted);
                at = offset + len;
            }
            Piece::Inserted(octets) => inserted.extend_from_slice(octets),
        }
    }
    add(at, original_len, &mut inserted);
    splices
}

/// The octets of a range; nothing if there is no such range.
fn slice(octets: &[u8], from: u64, to: u64) -> &[u8] {
    let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    range
        .and_then(|(from, to)| octets.get(from..to))
        .unwrap_or_default()
}

fn insert(offset: u64, octets: impl Into<Bytes>) -> Splice {
    Splice {
        offset,
        size: 0,
        replacement: octets.into(),
    }
}

fn replace(from: u64, to: u64, octets: impl Into<Bytes>) -> Splice {
    Splice {
        offset: from,
        size: to.saturating_sub(from),
        replacement: octets.into(),
    }
}

#[cfg(test)]
mod tests;
