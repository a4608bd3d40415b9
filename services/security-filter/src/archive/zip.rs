//! Where the files of a ZIP archive are, by its directory and by what stands in front of each file.
//!
//! Programs disagree about whom to believe, and that is used to hide files: some read the central directory, some go from local
//! header to local header. Here both are read, a file that only one of them knows is listed too, and where they differ both
//! stand in the [`Entry`]. Owns no decompression. Never fails and never panics; what no program could open is not listed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use memchr::memmem;

use crate::names;

/// In front of each file (APPNOTE.TXT 4.3.7).
const LOCAL: &[u8] = b"PK\x03\x04";
/// In the directory, for each file (4.3.12).
const CENTRAL: &[u8] = b"PK\x01\x02";
/// End of the directory (4.3.16).
const END: &[u8] = b"PK\x05\x06";
/// Fixed octets of these three.
const LOCAL_OCTETS: usize = 30;
const CENTRAL_OCTETS: usize = 46;
const END_OCTETS: usize = 22;
/// How far from the end of a file its directory may end: a comment of 65,535 octets follows it.
pub(crate) const TAIL_OCTETS: usize = END_OCTETS + 65_535;
/// Extra fields that count: ZIP64 sizes (4.5.3), and a name in UTF-8 that takes the place of the other one (4.6.9).
const EXTRA_ZIP64: u16 = 0x0001;
const EXTRA_NAME: u16 = 0x7075;
/// A size that stands in the ZIP64 field instead.
const IN_ZIP64: u32 = u32::MAX;

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Entry {
    /// Every name that somebody may show, the directory's first.
    pub(crate) names: Vec<String>,
    /// Every compression method that is stated.
    pub(crate) methods: Vec<u16>,
    /// Anybody says that it is encrypted.
    pub(crate) encrypted: bool,
    /// First octet of the compressed data.
    pub(crate) start: usize,
    /// End of the compressed data, the farther one if that is disputed; the end of the archive if nobody says.
    pub(crate) end: usize,
}

/// What is in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Listing {
    /// In the order of their places, as many as wanted.
    pub(crate) entries: Vec<Entry>,
    /// There are more.
    pub(crate) truncated: bool,
    /// Files share octets: no program writes that, but a bomb needs little room so (D. Fifield, WOOT 2019).
    pub(crate) overlap: bool,
}

/// What one of the two headers says.
#[derive(Debug, Clone, Default)]
struct Header {
    names: Vec<String>,
    method: u16,
    encrypted: bool,
    /// The size follows behind the data.
    streamed: bool,
    packed: u64,
    /// Of the local header, in the directory only.
    offset: u64,
    /// After the header.
    end: usize,
}

/// Would a program take this for a ZIP archive?
pub(crate) fn is_zip(content: &[u8]) -> bool {
    content.starts_with(LOCAL) || has_end(content)
}

/// Does a directory end here, at most a comment before the end?
pub(crate) fn has_end(content: &[u8]) -> bool {
    ends(content).next().is_some()
}

/// Where directories may end, the last one first. A signature without room for the rest of an end behind it is none: it would hide the
/// one in front of it.
fn ends(content: &[u8]) -> impl Iterator<Item = usize> {
    let last = content.len().saturating_sub(END_OCTETS - END.len());
    let first = tail_start(content).min(last);
    let tail = content.get(first..last).unwrap_or_default();
    memmem::rfind_iter(tail, END).map(move |at| first + at)
}

/// The last one in front of these, for archives with more behind them than a comment.
fn older_end(content: &[u8]) -> Option<usize> {
    memmem::rfind(content.get(..tail_start(content))?, END)
}

fn tail_start(content: &[u8]) -> usize {
    content.len().saturating_sub(TAIL_OCTETS)
}

/// The files of an archive, at most `max`.
pub(crate) fn list(content: &[u8], max: usize) -> Listing {
    let mut found = Found {
        // Some programs add a directory and leave the old one.
        room: max.saturating_add(1).saturating_mul(2),
        ..Found::default()
    };
    for end in ends(content) {
        found.follow(content, end);
    }
    if found.directories.is_empty()
        && let Some(end) = older_end(content)
    {
        found.follow(content, end);
    }
    let covered = found.covered();
    let behind = |pair: &[Range<usize>]| matches!(pair, [a, b] if b.start < a.end);
    let overlap = found.overlap || covered.windows(2).any(behind);
    let mut entries = found.entries;
    strays(content, &covered, max, &mut entries);
    Listing {
        truncated: found.room == 0 || entries.len() > max,
        overlap,
        entries: entries.into_values().take(max).collect(),
    }
}

/// What the directories of an archive have. There can be several: programs disagree about which end to believe.
#[derive(Debug, Default)]
struct Found {
    entries: BTreeMap<usize, Entry>,
    /// Files with their headers: start and end.
    files: BTreeMap<usize, usize>,
    /// Directories that were read: start and what to add to their offsets.
    directories: BTreeSet<(usize, u64)>,
    places: Vec<Range<usize>>,
    overlap: bool,
    /// Headers that may still be read.
    room: usize,
}

// === impl Found ===

impl Found {
    /// Reads the directories that this end leads to.
    fn follow(&mut self, content: &[u8], end: usize) {
        for (start, base) in starts(content, end) {
            if self.directories.insert((start, base)) {
                self.read(content, end, start, base);
            }
        }
    }

    fn read(&mut self, content: &[u8], end: usize, start: usize, base: u64) {
        let (headers, place) = directory(content, start, self.room);
        self.room -= headers.len();
        let located: Vec<_> = headers
            .iter()
            .filter_map(|central| Some((located(content, central, base)?, central)))
            .collect();
        // What is in a file is looked at when that file is: an archive that is wholly in it is not this one.
        if let Some(file) = self.file_around(end)
            && located.iter().all(|((at, _), _)| file.contains(at))
        {
            return;
        }
        self.places.push(place);
        let mut own = BTreeSet::new();
        for ((at, local), central) in located {
            self.overlap |= !own.insert(at);
            let packed_end = end_of(content, local.end, central.packed);
            let file = self.files.entry(at).or_default();
            *file = local.end.max(packed_end).max(*file);
            let entry = joined(content, &local, Some(central));
            match self.entries.get_mut(&at) {
                Some(known) => known.add(entry),
                None => {
                    self.entries.insert(at, entry);
                }
            }
        }
    }

    fn file_around(&self, at: usize) -> Option<Range<usize>> {
        let (start, end) = self.files.range(..=at).next_back()?;
        Some(*start..*end).filter(|file| file.contains(&at))
    }

    /// Files and directories, in the order of their places.
    fn covered(&self) -> Vec<Range<usize>> {
        let files = self.files.iter().map(|(start, end)| *start..*end);
        let mut covered: Vec<_> = files.chain(self.places.iter().cloned()).collect();
        covered.sort_by_key(|range| range.start);
        covered
    }
}

// === impl Entry ===

impl Entry {
    /// What another directory says of the same file.
    fn add(&mut self, other: Self) {
        for name in other.names {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
        for method in other.methods {
            if !self.methods.contains(&method) {
                self.methods.push(method);
            }
        }
        self.encrypted |= other.encrypted;
        self.end = self.end.max(other.end);
    }
}

/// Where the directory of this end starts, and what to add to its offsets if something stands in front of the archive. Some count back
/// from the end, some believe the offset.
fn starts(content: &[u8], end: usize) -> impl Iterator<Item = (usize, u64)> {
    let offset = u32_at(content, end + 16).unwrap_or_default();
    let size = u32_at(content, end + 12).and_then(|size| usize::try_from(size).ok());
    let before = size.and_then(|size| end.checked_sub(size));
    let stated = usize::try_from(offset)
        .ok()
        .filter(|at| before != Some(*at));
    let starts = before.into_iter().chain(stated);
    starts
        .filter(|at| starts_with(content, *at, CENTRAL))
        .map(move |at| (at, (at as u64).saturating_sub(offset.into())))
}

/// At most `room` headers of a directory, and where they are.
fn directory(content: &[u8], start: usize, room: usize) -> (Vec<Header>, Range<usize>) {
    let mut headers = Vec::new();
    let mut at = start;
    while headers.len() < room
        && let Some(header) = central(content, at)
    {
        at = header.end;
        headers.push(header);
    }
    (headers, start..at)
}

/// The header in front of the file, and where it is.
fn located(content: &[u8], central: &Header, base: u64) -> Option<(usize, Header)> {
    let local = |at: u64| {
        let at = usize::try_from(at).ok()?;
        Some((at, local(content, at)?))
    };
    local(central.offset.saturating_add(base)).or_else(|| local(central.offset))
}

/// Files that the directory does not know, between those that it does.
fn strays(
    content: &[u8],
    covered: &[Range<usize>],
    max: usize,
    entries: &mut BTreeMap<usize, Entry>,
) {
    let mut at = 0;
    let mut covered = covered.iter().peekable();
    while let Some(found) = content.get(at..).and_then(|rest| memmem::find(rest, LOCAL)) {
        let found = at + found;
        while covered.next_if(|range| range.end <= found).is_some() {}
        if let Some(range) = covered.peek().filter(|range| range.start <= found) {
            at = range.end;
            continue;
        }
        at = found + LOCAL.len();
        let Some(header) = local(content, found) else {
            continue;
        };
        let entry = joined(content, &header, None);
        if !header.streamed {
            at = at.max(entry.end);
        }
        entries.insert(found, entry);
        if entries.len() > max {
            return;
        }
    }
}

/// What both say.
fn joined(content: &[u8], local: &Header, central: Option<&Header>) -> Entry {
    let mut entry = Entry {
        start: local.end,
        end: content.len(),
        ..Entry::default()
    };
    for header in central.into_iter().chain([local]) {
        for name in &header.names {
            if !entry.names.contains(name) {
                entry.names.push(name.clone());
            }
        }
        if !entry.methods.contains(&header.method) {
            entry.methods.push(header.method);
        }
        entry.encrypted |= header.encrypted;
    }
    let stated = if local.streamed { 0 } else { local.packed };
    let size = central.map_or(0, |central| central.packed).max(stated);
    if size > 0 || !local.streamed {
        entry.end = end_of(content, local.end, size);
    }
    entry
}

fn end_of(content: &[u8], start: usize, size: u64) -> usize {
    let end = (start as u64).saturating_add(size);
    usize::try_from(end).map_or(content.len(), |end| end.min(content.len()))
}

fn local(content: &[u8], at: usize) -> Option<Header> {
    if !starts_with(content, at, LOCAL) {
        return None;
    }
    let flags = u16_at(content, at + 6)?;
    let name_end = at + LOCAL_OCTETS + usize::from(u16_at(content, at + 26)?);
    let name = content.get(at + LOCAL_OCTETS..name_end)?;
    let end = name_end + usize::from(u16_at(content, at + 28)?);
    let extra = content.get(name_end..end)?;
    let sizes = [u32_at(content, at + 22)?, u32_at(content, at + 18)?];
    let [_, packed, _] = zip64(extra, [sizes[0], sizes[1], 0]);
    Some(Header {
        names: names_of(name, extra),
        method: u16_at(content, at + 8)?,
        encrypted: flags & 1 != 0,
        streamed: flags & 8 != 0,
        packed,
        offset: 0,
        end,
    })
}

fn central(content: &[u8], at: usize) -> Option<Header> {
    if !starts_with(content, at, CENTRAL) {
        return None;
    }
    let name_end = at + CENTRAL_OCTETS + usize::from(u16_at(content, at + 28)?);
    let name = content.get(at + CENTRAL_OCTETS..name_end)?;
    let extra_end = name_end + usize::from(u16_at(content, at + 30)?);
    let extra = content.get(name_end..extra_end)?;
    let flags = u16_at(content, at + 8)?;
    let (packed, plain) = (u32_at(content, at + 20)?, u32_at(content, at + 24)?);
    let [_, packed, offset] = zip64(extra, [plain, packed, u32_at(content, at + 42)?]);
    Some(Header {
        names: names_of(name, extra),
        method: u16_at(content, at + 10)?,
        encrypted: flags & 1 != 0,
        streamed: flags & 8 != 0,
        packed,
        offset,
        end: extra_end + usize::from(u16_at(content, at + 32)?),
    })
}

fn names_of(name: &[u8], extra: &[u8]) -> Vec<String> {
    // One octet of version and four of a checksum in front of the name.
    let other = fields(extra).find_map(|(id, value)| value.get(5..).filter(|_| id == EXTRA_NAME));
    let all = [name].into_iter().chain(other);
    all.flat_map(names::of_archive).collect()
}

/// Plain size, packed size and offset, in the order in which the ZIP64 field has those that do not fit.
fn zip64(extra: &[u8], values: [u32; 3]) -> [u64; 3] {
    let mut field = fields(extra)
        .find_map(|(id, value)| (id == EXTRA_ZIP64).then_some(value))
        .unwrap_or_default();
    values.map(|value| match field.split_first_chunk::<8>() {
        Some((first, rest)) if value == IN_ZIP64 => {
            field = rest;
            u64::from_le_bytes(*first)
        }
        _ => value.into(),
    })
}

/// Extra fields: number and value (4.5.1).
fn fields(mut extra: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (id, size) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let value = extra.get(4..4 + size)?;
        extra = extra.get(4 + size..)?;
        Some((id, value))
    })
}

fn starts_with(content: &[u8], at: usize, signature: &[u8]) -> bool {
    content
        .get(at..)
        .is_some_and(|rest| rest.starts_with(signature))
}

fn u16_at(content: &[u8], at: usize) -> Option<u16> {
    let octets = content.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(octets.try_into().ok()?))
}

fn u32_at(content: &[u8], at: usize) -> Option<u32> {
    let octets = content.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(octets.try_into().ok()?))
}
