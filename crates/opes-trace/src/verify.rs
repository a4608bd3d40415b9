//! Is our trace still what we wrote, and is all that claims to be ours, ours (C-60, R4902-12, R3897-26)?
//!
//! Fields of other systems are none of our business: they stay as they are.

use std::ops::Range;

use crate::entry::Entry;
use crate::field::unfolded;
use crate::header::{HeaderTrace, TraceField};
use crate::uri::AgentUri;

/// What the edge wrote into one message.
#[derive(Debug, Clone, Copy)]
pub struct Guard<'a> {
    /// Our system.
    pub system: &'a AgentUri,
    /// The `OPES-System` field, octet for octet.
    pub field: &'a [u8],
}

/// What has to be done to a header section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// Fields to take out: they claim our name and are not ours. In order.
    pub remove: Vec<Range<usize>>,
    /// Our field is gone and has to be put at the top.
    pub restore: bool,
}

// === impl Repair ===

impl Repair {
    /// Nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && !self.restore
    }
}

// === impl Guard ===

impl Guard<'_> {
    /// Looks at `header`, which was scanned to `trace`. `believed` are fields with our name that came with the message from somebody who
    /// may have them; each may stand there once.
    pub fn inspect(&self, header: &[u8], trace: &HeaderTrace, believed: &[&[u8]]) -> Repair {
        let mut repair = Repair {
            remove: Vec::new(),
            restore: true,
        };
        let mut believed = believed.to_vec();
        for found in &trace.fields {
            let octets = header.get(found.range.clone()).unwrap_or_default();
            if repair.restore && octets == self.field {
                repair.restore = false;
                continue;
            }
            if !self.claims(found, header) {
                continue;
            }
            match believed.iter().position(|known| *known == octets) {
                Some(index) => {
                    believed.swap_remove(index);
                }
                None => repair.remove.push(found.range.clone()),
            }
        }
        repair
    }

    /// Fields that have our name in a header section that did not come from us.
    pub fn claims_in<'h>(&self, header: &'h [u8], trace: &HeaderTrace) -> Vec<&'h [u8]> {
        let claiming = trace
            .fields
            .iter()
            .filter(|found| self.claims(found, header));
        claiming
            .filter_map(|found| header.get(found.range.clone()))
            .collect()
    }

    /// Names our system or one of its agents. What cannot be parsed counts if our name stands in it: a mail
    /// program may show it all the same.
    fn claims(&self, found: &TraceField, header: &[u8]) -> bool {
        let text = unfolded(header.get(found.value.clone()).unwrap_or_default());
        match Entry::parse_list(&text) {
            Ok(entries) => entries.iter().any(|entry| entry.uri.is_within(self.system)),
            Err(_) => self.system.stands_in(&text),
        }
    }
}

#[cfg(test)]
mod tests;
