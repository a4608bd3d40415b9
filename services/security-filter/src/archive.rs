//! Archives are opened, and what is in them is looked at as if it had come by itself: ZIP, gzip, tar, inside each other, and
//! messages in them.
//!
//! Nothing is written to disk. What comes out of a compressed file passes through a window; only what must be read from one
//! piece (a ZIP archive, a message) is held, within [`Budget`]. Owns no policy. Never panics; what cannot be opened is said.

mod budget;
mod stream;
mod zip;

use std::cell::Cell;
use std::io::{self, BufReader, Read};

use flate2::read::DeflateDecoder;

pub use self::budget::{Budget, Unseen};
use self::budget::{Counted, Metered};
use self::stream::{Members, Rationed, is_gzip, is_tar};
use self::zip::Entry;
use crate::config::Config;
use crate::formats;
use crate::inspect::{Cause, Inspector, Place};
use crate::names::of_archive;

/// Octets that are read before it is decided what something is: an ISO 9660 image shows itself after 32 KiB.
const PROBE_OCTETS: usize = 64 * 1024;
/// Octets of a compressed file that are read ahead.
const AHEAD_OCTETS: usize = 4096;
/// Octets of a window over what is not held.
const WINDOW_OCTETS: usize = 64 * 1024;
/// Octets of headers of a tar file in front of one file, with long names and the like.
const TAR_HEADERS_OCTETS_MAX: u64 = 1024 * 1024;
/// Compression methods in a ZIP archive (APPNOTE.TXT 4.4.5).
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// How far the colon of a message's first field is searched.
const FIRST_FIELD_OCTETS_MAX: usize = 64;
/// Names of files that are messages.
const MESSAGE_NAMES: [&str; 4] = [".eml", ".mht", ".mhtml", ".email"];
/// Header fields that messages start with.
const FIRST_FIELDS: [&str; 16] = [
    "received",
    "return-path",
    "delivered-to",
    "from",
    "to",
    "cc",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "reply-to",
    "sender",
    "dkim-signature",
    "authentication-results",
];

impl Inspector<'_> {
    /// Looks into `content` if it is an archive or a message; a text that is read in place is none. `place` is inside of it.
    pub(crate) fn open(&mut self, content: &[u8], is_text: bool, place: &Place) {
        let (tar, gzip, zip) = (is_tar(content), is_gzip(content), zip::is_zip(content));
        let message = !is_text && is_message(content, &place.trail);
        let names_max = self.names_max();
        if formats::has_more_names(content, names_max) {
            let max = u32::try_from(names_max).unwrap_or(u32::MAX);
            self.unseen(Unseen::Entries(max), place);
        }
        if !self.config.settings.open_archives || !(tar || gzip || zip || message) {
            return;
        }
        let Some(budget) = self.budget else {
            self.has_archives = true;
            return;
        };
        if place.depth == 0 {
            budget.next_part();
        }
        if let Err(why) = budget.may_open(place.depth) {
            return self.unseen(why, place);
        }
        let found = self.findings.len();
        // A file can be several things at once, to different readers.
        if tar {
            self.tar(&mut &*content, place, budget);
        }
        if gzip {
            self.gzip(&mut &*content, place, budget);
        }
        if zip && self.findings.len() == found {
            self.zip(content, place, budget);
        }
        if message && self.findings.len() == found {
            self.archived_message(content, place);
        }
    }

    fn archived_message(&mut self, content: &[u8], place: &Place) {
        let inner = Place {
            nesting: place.nesting + 1,
            decoded: place.decoded + 1,
            depth: place.depth + 1,
            ..place.clone()
        };
        let max = self.config.settings.max_nesting;
        if inner.nesting > max {
            return self.find("", "", Cause::Nesting(max), place);
        }
        self.message(content, &inner);
    }

    fn zip(&mut self, content: &[u8], place: &Place, budget: &Budget) {
        let listing = zip::list(content, budget.entries_left());
        for entry in &listing.entries {
            if let Some(cause) = blocked_name(self.config, &entry.names) {
                return self.find("", "", cause, place);
            }
            if let Err(why) = budget.go_on() {
                return self.unseen(why, place);
            }
        }
        let encrypted = listing.entries.iter().any(|entry| entry.encrypted);
        if encrypted && self.config.blocks_format(formats::ZIP_ENCRYPTED) {
            return self.find("", "", Cause::Format(formats::ZIP_ENCRYPTED), place);
        }
        if listing.overlap {
            return self.unseen(Unseen::Overlap, place);
        }
        let found = self.findings.len();
        for entry in &listing.entries {
            if let Err(why) = budget.take_entry() {
                return self.unseen(why, place);
            }
            self.zip_entry(content, entry, place, budget);
            if self.findings.len() > found || budget.stopped().is_some() {
                return;
            }
        }
        if listing.truncated {
            // One more than there may be.
            let why = budget.take_entry().err().unwrap_or(Unseen::Corrupt);
            self.unseen(why, place);
        }
    }

    fn zip_entry(&mut self, content: &[u8], entry: &Entry, place: &Place, budget: &Budget) {
        let name = entry.names.first().map_or("", String::as_str);
        let place = place.deeper(name);
        // The names are all that can be seen of it.
        if entry.encrypted {
            return;
        }
        for method in &entry.methods {
            match *method {
                STORED => {
                    let file = content.get(entry.start..entry.end).unwrap_or_default();
                    let octets = file.len() as u64;
                    match budget.take_octets(octets, octets) {
                        Ok(()) => self.file(file, &place),
                        Err(why) => self.unseen(why, &place),
                    }
                }
                DEFLATED => {
                    // The stream says where it ends, whatever the headers say.
                    let packed = content.get(entry.start..).unwrap_or_default();
                    let taken = Cell::new(0);
                    // Little is read ahead, so that what is taken is what was needed.
                    let ahead = vec![0; AHEAD_OCTETS];
                    let file = DeflateDecoder::new_with_buf(Counted::new(packed, &taken), ahead);
                    self.stream(
                        &mut Metered::new(file, budget, Some(&taken)),
                        &place,
                        budget,
                    );
                }
                other => self.unseen(Unseen::Method(other), &place),
            }
        }
    }

    fn gzip(&mut self, source: &mut dyn Read, place: &Place, budget: &Budget) {
        if let Err(why) = budget.take_entry() {
            return self.unseen(why, place);
        }
        let taken = Cell::new(0);
        let members = Members::new(BufReader::new(Counted::new(source, &taken)));
        let names = [members.name(), unpacked_name(&place.trail)];
        let names = names.iter().flatten();
        let names: Vec<_> = names.flat_map(|name| of_archive(name.as_bytes())).collect();
        if let Some(cause) = blocked_name(self.config, &names) {
            return self.find("", "", cause, place);
        }
        let inside = place.deeper(names.first().map_or("", String::as_str));
        let found = self.findings.len();
        let mut file = Metered::new(members, budget, Some(&taken));
        self.stream(&mut file, &inside, budget);
        if self.findings.len() > found {
            return;
        }
        // gunzip passes over what follows; others may not.
        if let Some(mut rest) = file.into_inner().behind() {
            self.stream(&mut rest, &place.deeper(""), budget);
        }
    }

    fn tar(&mut self, source: &mut dyn Read, place: &Place, budget: &Budget) {
        let ration = Cell::new(None);
        let mut archive = tar::Archive::new(Rationed::new(source, &ration));
        // Some programs go on behind the end.
        archive.set_ignore_zeros(true);
        let Ok(mut entries) = archive.entries() else {
            return self.unseen(Unseen::Corrupt, place);
        };
        let found = self.findings.len();
        loop {
            ration.set(Some(TAR_HEADERS_OCTETS_MAX));
            let mut entry = match entries.next() {
                None => return,
                Some(Ok(entry)) => entry,
                Some(Err(_)) => {
                    return self.unseen(budget.stopped().unwrap_or(Unseen::Corrupt), place);
                }
            };
            ration.set(None);
            if let Err(why) = budget.take_entry() {
                return self.unseen(why, place);
            }
            let names = [entry.path_bytes(), entry.header().path_bytes()];
            let names: Vec<_> = names.iter().flat_map(|name| of_archive(name)).collect();
            if let Some(cause) = blocked_name(self.config, &names) {
                return self.find("", "", cause, place);
            }
            let inside = place.deeper(names.first().map_or("", String::as_str));
            if entry.header().entry_type().is_gnu_sparse() {
                // Its holes are in no archive.
                self.stream(&mut Metered::new(&mut entry, budget, None), &inside, budget);
            } else {
                self.stream(&mut entry, &inside, budget);
            }
            if self.findings.len() > found || budget.stopped().is_some() {
                return;
            }
            if io::copy(&mut entry, &mut io::sink()).is_err() {
                return self.unseen(budget.stopped().unwrap_or(Unseen::Corrupt), &inside);
            }
        }
    }

    /// A file that is not in one piece.
    fn stream(&mut self, source: &mut dyn Read, place: &Place, budget: &Budget) {
        let mut held = Vec::new();
        let failed = fill(source, &mut held, PROBE_OCTETS).is_err();
        if !failed && held.len() == PROBE_OCTETS && (is_tar(&held) || is_gzip(&held)) {
            // Opened as it comes, however large it is.
            if let Err(why) = budget.may_open(place.depth) {
                return self.unseen(why, place);
            }
            let mut whole = held.as_slice().chain(source);
            if is_tar(&held) {
                self.tar(&mut whole, place, budget);
            } else {
                self.gzip(&mut whole, place, budget);
            }
            return;
        }
        if !failed && held.len() == PROBE_OCTETS {
            return self.large(held, source, place, budget);
        }
        self.file(&held, place);
        if failed {
            self.unseen(budget.stopped().unwrap_or(Unseen::Corrupt), place);
        }
    }

    /// A file of which there is more than the `probe`.
    fn large(&mut self, probe: Vec<u8>, source: &mut dyn Read, place: &Place, budget: &Budget) {
        let room = budget.room().max(probe.len());
        // Room that is not written to costs nothing, and nothing is copied to grow.
        let mut held = Vec::with_capacity(room);
        held.extend_from_slice(&probe);
        drop(probe);
        let failed = fill(source, &mut held, room).is_err();
        budget.hold(held.len());
        let octets = held.len();
        if failed {
            self.file(&held, place);
            self.unseen(budget.stopped().unwrap_or(Unseen::Corrupt), place);
        } else if octets < room {
            self.file(&held, place);
        } else {
            self.beyond_room(held, source, place, budget);
        }
        budget.release(octets);
    }

    /// A file of which only the start could be held.
    fn beyond_room(
        &mut self,
        held: Vec<u8>,
        source: &mut dyn Read,
        place: &Place,
        budget: &Budget,
    ) {
        if let Some(cause) = self.forbidden_content(false, &held) {
            return self.find("", "", cause, place);
        }
        if self.needs_whole(&held, place) {
            return self.unseen(budget.too_large(), place);
        }
        let kept = held.len().saturating_sub(zip::TAIL_OCTETS);
        let mut window = held.get(kept..).unwrap_or_default().to_vec();
        drop(held);
        loop {
            let before = window.len();
            let read = fill(source, &mut window, before + WINDOW_OCTETS);
            if let Some(format) = formats::detect_anywhere(&window)
                && self.config.blocks_format(format)
            {
                return self.find("", "", Cause::Format(format), place);
            }
            if read.is_err() {
                return self.unseen(budget.stopped().unwrap_or(Unseen::Corrupt), place);
            }
            if window.len() < before + WINDOW_OCTETS {
                break;
            }
            window.drain(..window.len().saturating_sub(zip::TAIL_OCTETS));
        }
        if zip::has_end(&window) {
            self.unseen(budget.too_large(), place);
        }
    }

    /// Can what is in this file be judged by its start?
    fn needs_whole(&self, start: &[u8], place: &Place) -> bool {
        let may_have_macros = formats::detect(start) == Some(formats::OLE2)
            && self.config.blocks_format(formats::OLE2_MACRO);
        may_have_macros || zip::is_zip(start) || is_message(start, &place.trail)
    }

    /// A file of an archive, in one piece.
    fn file(&mut self, content: &[u8], place: &Place) {
        match self.forbidden_content(false, content) {
            Some(cause) => self.find("", "", cause, place),
            None => self.open(content, false, place),
        }
    }
}

fn blocked_name<'n>(config: &Config, names: impl IntoIterator<Item = &'n String>) -> Option<Cause> {
    let mut names = names.into_iter();
    let pattern = names.find_map(|name| config.blocks_name(name))?;
    Some(Cause::EntryName(pattern.to_owned()))
}

/// Reads until `into` has `octets`, or the end.
fn fill(source: &mut dyn Read, into: &mut Vec<u8>, octets: usize) -> io::Result<usize> {
    let wanted = octets.saturating_sub(into.len());
    source.take(wanted as u64).read_to_end(into)
}

/// What is left of `x.exe.gz` when it is unpacked.
fn unpacked_name(trail: &str) -> Option<String> {
    let name = trail.rsplit('/').next()?;
    let (stem, ending) = name.rsplit_once('.')?;
    match ending.to_ascii_lowercase().as_str() {
        "gz" | "gzip" | "z" => Some(stem.to_owned()),
        "tgz" => Some(format!("{stem}.tar")),
        _ => None,
    }
}

/// Would a mail program open it: by its name, or by what it starts with.
fn is_message(content: &[u8], trail: &str) -> bool {
    let name = trail.to_ascii_lowercase();
    if MESSAGE_NAMES.iter().any(|ending| name.ends_with(ending)) {
        return true;
    }
    let start = content.get(..FIRST_FIELD_OCTETS_MAX).unwrap_or(content);
    let Some(colon) = memchr::memchr(b':', start) else {
        return false;
    };
    let field = start.get(..colon).unwrap_or_default().trim_ascii_end();
    let mut names = FIRST_FIELDS.iter();
    names.any(|name| field.eq_ignore_ascii_case(name.as_bytes()))
}

#[cfg(test)]
mod tests;
