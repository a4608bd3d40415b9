//! What edits mean, written down a second time and as plainly as possible: whole messages, lists of changes, no code of `opes-mime`.
//!
//! Slow on purpose. Where the two disagree, `docs/ocp-smtp.md` B4 and the comments of `opes_mime::edit` decide which one is wrong.

mod mime;
mod render;

use opes_proto::smtp;
use opes_proto::smtp::edit::Kind;

pub(super) use self::mime::{Entity, Message};

/// Why nothing is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Name,
    Value,
    LineTooLong,
    Text,
    NoField,
    NoPart,
    Outside,
    Overlap,
    Unsupported,
}

/// Where a change stands among those at the same offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// As the edits come.
    Octets,
    /// New fields below the last one.
    Below,
    /// The body that begins here.
    Body,
}

struct Change {
    start: usize,
    end: usize,
    octets: Vec<u8>,
    place: Place,
}

struct Draft<'m> {
    message: Message<'m>,
    changes: Vec<Change>,
}

/// The message after all edits of one outcome, or none of them.
pub(super) fn adapt(octets: &[u8], edits: &[smtp::Edit]) -> Result<Vec<u8>, Refusal> {
    let mut draft = Draft {
        message: Message::read(octets),
        changes: Vec::new(),
    };
    for edit in edits {
        match edit.kind.as_ref().unwrap() {
            Kind::HeaderAdd(add) => match add.above {
                Some(index) => draft.add_above(index, &add.name, &add.value)?,
                None => draft.add(&add.name, &add.value, add.append)?,
            },
            Kind::HeaderReplace(new) => draft.replace(&new.name, new.index, &new.value)?,
            Kind::HeaderDelete(gone) => draft.delete(&gone.name, gone.index, gone.all)?,
            Kind::SubjectMark(mark) => draft.mark_subject(&mark.text)?,
            Kind::PartReplace(part) => draft.replace_part(&part.path, &part.text, &part.name)?,
            Kind::Splice(splice) => draft.splice(splice)?,
            Kind::BodyMark(mark) => draft.mark_body(&mark.text, edits)?,
        }
    }
    draft.made()
}

impl Draft<'_> {
    fn change(&mut self, start: usize, end: usize, octets: impl Into<Vec<u8>>, place: Place) {
        self.changes.push(Change {
            start,
            end,
            octets: octets.into(),
            place,
        });
    }

    fn insert(&mut self, at: usize, octets: impl Into<Vec<u8>>, place: Place) {
        self.change(at, at, octets, place);
    }

    fn add(&mut self, name: &str, value: &[u8], below: bool) -> Result<(), Refusal> {
        let field = render::field(name, value)?;
        if below {
            self.insert(self.message.fields_end, field, Place::Below);
        } else {
            self.insert(0, field, Place::Octets);
        }
        Ok(())
    }

    fn add_above(&mut self, index: u32, name: &str, value: &[u8]) -> Result<(), Refusal> {
        match self.message.fields.get(index as usize) {
            Some(below) => {
                let at = below.whole.0;
                self.insert(at, render::field(name, value)?, Place::Octets);
                Ok(())
            }
            None => self.add(name, value, true),
        }
    }

    fn replace(&mut self, name: &str, index: u32, value: &[u8]) -> Result<(), Refusal> {
        let field = render::field(name, value)?;
        match self.message.named(name).get(index as usize) {
            Some(old) => {
                let (start, end) = old.value;
                let new = &field[name.len() + 1..field.len() - 2];
                self.change(start, end, new, Place::Octets);
            }
            None if index == 0 => self.insert(self.message.fields_end, field, Place::Below),
            None => return Err(Refusal::NoField),
        }
        Ok(())
    }

    fn delete(&mut self, name: &str, index: u32, all: bool) -> Result<(), Refusal> {
        render::check_name(name)?;
        for (number, field) in self.message.named(name).into_iter().enumerate() {
            if all || number == index as usize {
                self.remove(field.whole);
            }
        }
        Ok(())
    }

    /// Once, however often it is asked for.
    fn remove(&mut self, (start, end): (usize, usize)) {
        let same = |change: &Change| {
            (change.start, change.end) == (start, end) && change.octets.is_empty()
        };
        if !self.changes.iter().any(same) {
            self.change(start, end, "", Place::Octets);
        }
    }

    fn mark_subject(&mut self, text: &str) -> Result<(), Refusal> {
        let mark = text.trim();
        if mark.is_empty() || mark.chars().any(char::is_control) {
            return Err(Refusal::Text);
        }
        let Some(field) = self.message.named("subject").into_iter().next() else {
            let field = render::field("Subject", render::words(mark, false).as_bytes())?;
            self.insert(self.message.fields_end, field, Place::Below);
            return Ok(());
        };
        let (start, end) = field.value;
        let value = &self.message.octets[start..end];
        if let Some((at, octets)) = render::marked(value, mark) {
            self.insert(start + at, octets, Place::Octets);
        }
        Ok(())
    }

    fn splice(&mut self, splice: &smtp::Splice) -> Result<(), Refusal> {
        let end = splice.offset.saturating_add(splice.size);
        if end > self.message.octets.len() as u64 {
            return Err(Refusal::Outside);
        }
        let at = |offset: u64| usize::try_from(offset).unwrap();
        let (start, end) = (at(splice.offset), at(end));
        self.change(start, end, splice.replacement.to_vec(), Place::Octets);
        Ok(())
    }

    fn replace_part(&mut self, path: &str, text: &str, name: &str) -> Result<(), Refusal> {
        if name.chars().any(char::is_control) || name.chars().count() > 200 {
            return Err(Refusal::Text);
        }
        let entity = self.message.entity(path).ok_or(Refusal::NoPart)?.clone();
        let (fields, body) = render::text_part(text, name);
        if !path.is_empty() {
            let mut octets = [fields.as_bytes(), b"\r\n", &body].concat();
            let at_end = entity.end == self.message.octets.len();
            if entity.body_end == entity.end && !at_end {
                octets.extend_from_slice(b"\r\n");
            }
            self.change(entity.start, entity.body_end, octets, Place::Body);
            return Ok(());
        }
        for field in self.message.fields.clone() {
            if field.name.to_ascii_lowercase().starts_with("content-") {
                self.remove(field.whole);
            }
        }
        if self.message.named("mime-version").is_empty() {
            let version = "MIME-Version: 1.0\r\n";
            self.insert(self.message.fields_end, version, Place::Below);
        }
        self.insert(self.message.fields_end, fields, Place::Below);
        let (start, end) = (self.message.body_start, self.message.octets.len());
        self.change(start, end, body, Place::Body);
        Ok(())
    }

    fn mark_body(&mut self, text: &str, all: &[smtp::Edit]) -> Result<(), Refusal> {
        let text = render::crlf(text.trim_end());
        if text.is_empty() {
            return Err(Refusal::Text);
        }
        let replaced: Vec<&str> = all
            .iter()
            .filter_map(|edit| match &edit.kind {
                Some(Kind::PartReplace(part)) => Some(part.path.as_str()),
                _ => None,
            })
            .collect();
        let texts: Vec<Entity> = self.message.first_texts(&replaced);
        if texts.is_empty() {
            return Err(Refusal::Unsupported);
        }
        for entity in texts {
            let mark = render::body_mark(&text, &entity)?;
            self.insert(entity.body_start, mark, Place::Body);
        }
        Ok(())
    }

    fn made(mut self) -> Result<Vec<u8>, Refusal> {
        self.check_apart()?;
        self.end_header();
        Ok(build(self.message.octets, &self.changes))
    }

    fn check_apart(&self) -> Result<(), Refusal> {
        for (index, one) in self.changes.iter().enumerate() {
            for other in &self.changes[index + 1..] {
                // Also an insertion strictly inside of what another change takes away.
                if one.start < other.end && other.start < one.end {
                    return Err(Refusal::Overlap);
                }
            }
        }
        Ok(())
    }

    /// A field below the last one begins a line; a body begins after an empty line.
    fn end_header(&mut self) {
        let at = self.message.fields_end;
        let has =
            |changes: &[Change], place| changes.iter().any(|c| c.start == at && c.place == place);
        let above: Vec<&Change> = self
            .changes
            .iter()
            .filter(|change| change.place == Place::Octets && change.end <= at)
            .collect();
        let before = build(&self.message.octets[..at], &above);
        let mut line_ended = before.is_empty() || before.ends_with(b"\n");
        let appends = has(&self.changes, Place::Below);
        let begins_body = at == self.message.body_start && has(&self.changes, Place::Body);
        if appends && !line_ended {
            let first = self.changes.iter().position(|c| c.place == Place::Below);
            self.changes[first.unwrap()].octets.splice(0..0, *b"\r\n");
        }
        line_ended |= appends;
        if begins_body {
            let is_first = |c: &Change| c.place == Place::Body && c.start == at;
            let first = self.changes.iter().position(is_first).unwrap();
            let ends: &[u8] = if line_ended { b"\r\n" } else { b"\r\n\r\n" };
            self.changes[first]
                .octets
                .splice(0..0, ends.iter().copied());
        }
    }
}

/// Octet by octet: what is inserted here, then what takes the place of this octet, then the octet.
fn build<C: std::borrow::Borrow<Change>>(octets: &[u8], changes: &[C]) -> Vec<u8> {
    let changes: Vec<&Change> = changes.iter().map(std::borrow::Borrow::borrow).collect();
    let mut made = Vec::new();
    let mut at = 0;
    while at <= octets.len() {
        let here = |change: &&&Change| change.start == at;
        for place in [Place::Octets, Place::Below, Place::Body] {
            let inserted = |c: &&&Change| here(c) && c.end == at && c.place == place;
            for change in changes.iter().filter(inserted) {
                made.extend_from_slice(&change.octets);
            }
        }
        if let Some(change) = changes.iter().filter(here).find(|c| c.end > at) {
            made.extend_from_slice(&change.octets);
            at = change.end;
        } else {
            made.extend(octets.get(at));
            at += 1;
        }
    }
    made
}
