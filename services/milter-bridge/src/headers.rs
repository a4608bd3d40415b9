//! The header section as the milter sees it, its own changes included, and what they come to in the end.
//!
//! A milter counts the fields of a name in the message as it stands after what it said before; an OPES edit names fields of the message as it was.
//! So each change is made on a list, and the edits are read off the list.

use bytes::Bytes;
use opes_callout_server::Answer;
use opes_trace::SYSTEM_FIELD;

/// The header section.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers {
    fields: Vec<Field>,
    /// The first field is the edge's own.
    has_own: bool,
}

#[derive(Debug, Clone)]
struct Field {
    name: Bytes,
    /// Where it stood in the message; `None`: the milter added it.
    place: Option<Place>,
    /// Of its own, or in place of the message's.
    value: Option<Bytes>,
    removed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    /// Among all fields, from 0 on.
    index: u32,
    /// Among those of its name, from 0 on.
    nth: u32,
}

/// Of a field that the milter added.
enum Spot {
    Top,
    Above(u32),
    Bottom,
}

impl Headers {
    /// The next field of the message.
    pub(crate) fn push(&mut self, name: &[u8]) {
        if self.fields.is_empty() {
            self.has_own = name.eq_ignore_ascii_case(SYSTEM_FIELD.as_bytes());
        }
        let place = Place {
            index: count(self.fields.iter()),
            nth: count(self.fields.iter().filter(|field| field.is_named(name))),
        };
        self.fields.push(Field {
            name: Bytes::copy_from_slice(name),
            place: Some(place),
            value: None,
            removed: false,
        });
    }

    /// SMFIR_ADDHEADER.
    pub(crate) fn add(&mut self, name: Bytes, value: Bytes) {
        self.fields.push(Field::new(name, value));
    }

    /// SMFIR_INSHEADER. `index` counts the fields above, that of the MTA first: 0 is above it, 1 below it, and so milters mean "at the top" by
    /// both. Sendmail's is `Received`, which milters are not shown; ours is shown, if there is one.
    pub(crate) fn insert(&mut self, index: u32, name: Bytes, value: Bytes) {
        let hidden = u32::from(!self.has_own);
        let above = usize::try_from(index.saturating_sub(hidden)).unwrap_or(usize::MAX);
        let mut there = self.fields.iter().enumerate();
        let mut there = there.by_ref().filter(|(_, field)| !field.removed);
        let at = there.nth(above).map_or(self.fields.len(), |(at, _)| at);
        self.fields.insert(at, Field::new(name, value));
    }

    /// SMFIR_CHGHEADER. As in Sendmail and Postfix, a field that is to be changed and is not there is added.
    pub(crate) fn change(&mut self, index: u32, name: Bytes, value: Bytes) {
        let nth = usize::try_from(index.saturating_sub(1)).unwrap_or(usize::MAX);
        let named = |field: &&mut Field| !field.removed && field.is_named(&name);
        match self.fields.iter_mut().filter(named).nth(nth) {
            Some(field) if value.is_empty() => field.removed = true,
            Some(field) => field.value = Some(value),
            None if value.is_empty() => {}
            None => self.add(name, value),
        }
        self.fields
            .retain(|field| !field.removed || field.place.is_some());
    }

    /// Adds the edits to `answer`. `to_bottom`: fields can be put below the last one; if not, they are put above the first.
    pub(crate) fn edit(&self, mut answer: Answer, to_bottom: bool) -> Answer {
        for (at, field) in self.fields.iter().enumerate() {
            let name = String::from_utf8_lossy(&field.name).into_owned();
            let value = field.value.as_ref().map(|value| lines(value));
            answer = match (field.place, value) {
                (Some(place), _) if field.removed => answer.delete_header(name, place.nth),
                (Some(place), Some(value)) => answer.replace_header(name, place.nth, value),
                (Some(_), None) => answer,
                (None, value) => {
                    let value = value.unwrap_or_default();
                    match self.spot(at) {
                        Spot::Bottom if to_bottom => answer.append_header(name, value),
                        Spot::Top | Spot::Bottom => answer.add_header(name, value),
                        Spot::Above(index) => answer.insert_header(index, name, value),
                    }
                }
            };
        }
        answer
    }

    fn spot(&self, at: usize) -> Spot {
        let (before, after) = self.fields.split_at_checked(at).unwrap_or_default();
        let next = after.iter().find_map(|field| field.place);
        match next {
            None => Spot::Bottom,
            Some(_) if before.iter().all(|field| field.place.is_none()) => Spot::Top,
            Some(place) => Spot::Above(place.index),
        }
    }
}

impl Field {
    fn new(name: Bytes, value: Bytes) -> Self {
        Self {
            name,
            place: None,
            value: Some(value),
            removed: false,
        }
    }

    fn is_named(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

fn count<'f>(fields: impl Iterator<Item = &'f Field>) -> u32 {
    u32::try_from(fields.count()).unwrap_or(u32::MAX)
}

/// Lines of a value, which milters end with LF or CRLF, as RFC 5322 §2.2.3 has them: CRLF, and white space before the next one.
fn lines(value: &[u8]) -> Bytes {
    let mut folded = Vec::with_capacity(value.len() + 8);
    let ends = |octet: &u8| matches!(octet, b'\n' | b'\r');
    for line in value
        .split(ends)
        .filter(|line| !line.trim_ascii().is_empty())
    {
        if !folded.is_empty() {
            folded.extend_from_slice(b"\r\n");
            if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                folded.push(b'\t');
            }
        }
        folded.extend_from_slice(line);
    }
    folded.into()
}

#[cfg(test)]
mod tests;
