//! What is found on disk at start, and what is made of it. The table of legal states is in `docs/spool.md`; [`verdict`] is that table.
//!
//! What a record says is a fact that no order can change: messages that were taken, recipients that were settled. The state of the queue is
//! the union of both over all segments, so recovery gives the same for every order in which the disk kept our writes.

mod scan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::scan::{Gap, Record, Scan, scan};
use crate::envelope::ENVELOPE_VERSION;
use crate::index::Location;
use crate::own_file::{OWN_FILES, own_file_path};
use crate::record::{Kind, RECORD_VERSION};
use crate::segment::{SegmentEnd, segment_number, segment_path};
use crate::{Envelope, QueueId, Settlement, SpoolError};

/// Where octets go that should have been records, for the postmaster to look at.
pub(crate) const DAMAGED: &str = "damaged";

/// A live message.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) envelope: Envelope,
    pub(crate) at: Location,
    pub(crate) settled: Vec<u32>,
}

/// The state of the spool.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) messages: BTreeMap<QueueId, Found>,
    /// Segment files and where they end, oldest first.
    pub(crate) segments: Vec<SegmentEnd>,
}

/// Which recipients of a message are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettledPart {
    None,
    Some,
    All,
}

/// The file of its own that a content may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnFileState {
    Absent,
    Complete,
    WrongSize,
}

/// Everything on disk that concerns one queue id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnDisk {
    /// There is a message record (or a copy of it; copies are alike).
    pub(crate) message: bool,
    /// That record says that the content is in a file of its own.
    pub(crate) needs_own_file: bool,
    pub(crate) own_file: OwnFileState,
    pub(crate) settled: SettledPart,
}

/// What recovery does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing to deliver. An own file, if there is one, goes.
    Forget,
    /// Queue the recipients that are not settled.
    Queue,
    /// It was acknowledged and its content has gone: tell the postmaster.
    Lost,
}

/// The table of `docs/spool.md`.
pub(crate) fn verdict(state: OnDisk) -> Verdict {
    match state {
        OnDisk { message: false, .. }
        | OnDisk {
            settled: SettledPart::All,
            ..
        } => Verdict::Forget,
        OnDisk {
            needs_own_file: false,
            ..
        }
        | OnDisk {
            own_file: OwnFileState::Complete,
            ..
        } => Verdict::Queue,
        OnDisk {
            own_file: OwnFileState::Absent | OwnFileState::WrongSize,
            ..
        } => Verdict::Lost,
    }
}

/// A segment as scanned.
struct Segment {
    number: u64,
    path: PathBuf,
    file: Arc<File>,
    len: u64,
    scan: Scan,
}

/// Facts of all segments.
#[derive(Default)]
struct Facts {
    messages: BTreeMap<QueueId, Found>,
    settled: HashMap<QueueId, BTreeSet<u32>>,
}

/// Reads all of `dir`. Removes own files that nothing needs; changes nothing else but the folder `damaged`.
pub(crate) fn recover(dir: &Path) -> Result<Recovered, SpoolError> {
    let segments = scan_segments(dir)?;
    let ends = declared_ends(&segments);
    let mut facts = Facts::default();
    for segment in &segments {
        let end = ends.get(&segment.number).copied();
        report_gaps(dir, segment, end)?;
        facts.take(segment, end)?;
    }
    let messages = judge(dir, facts)?;
    remove_needless_own_files(dir, &messages)?;
    let ends = segments.iter().map(|segment| SegmentEnd {
        number: segment.number,
        end: segment.scan.end,
    });
    Ok(Recovered {
        messages,
        segments: ends.collect(),
    })
}

fn scan_segments(dir: &Path) -> Result<Vec<Segment>, SpoolError> {
    let names = file_names(dir)?;
    let mut numbers: Vec<_> = names
        .iter()
        .filter_map(|name| segment_number(name))
        .collect();
    numbers.sort_unstable();
    let mut segments = Vec::with_capacity(numbers.len());
    for number in numbers {
        let segment = scan_segment(dir, number)?;
        if segment.scan.header.is_some() || is_unused(&segment)? {
            segments.push(segment);
        } else {
            set_aside(dir, &segment)?;
        }
    }
    Ok(segments)
}

/// Nothing but zeros: a crash came before the header.
fn is_unused(segment: &Segment) -> Result<bool, SpoolError> {
    let unused = || {
        let mut file = io::BufReader::with_capacity(256 * 1024, &*segment.file);
        loop {
            let octets = io::BufRead::fill_buf(&mut file)?;
            if octets.is_empty() {
                return Ok(true);
            }
            if octets.iter().any(|octet| *octet != 0) {
                return Ok(false);
            }
            let len = octets.len();
            io::BufRead::consume(&mut file, len);
        }
    };
    unused().map_err(SpoolError::read(&segment.path))
}

/// Neither copy of the header can be read, and so no record.
fn set_aside(dir: &Path, segment: &Segment) -> Result<(), SpoolError> {
    let folder = dir.join(DAMAGED);
    std::fs::create_dir_all(&folder).map_err(SpoolError::directory(&folder))?;
    let to = folder.join(format!("{:010}.seg", segment.number));
    std::fs::rename(&segment.path, &to).map_err(SpoolError::write(&to))?;
    tracing::error!(path = %segment.path.display(), moved_to = %to.display(), "spool segment has no readable header; it was set aside with all messages in it");
    Ok(())
}

fn scan_segment(dir: &Path, number: u64) -> Result<Segment, SpoolError> {
    let path = segment_path(dir, number);
    let read = || {
        let file = File::open(&path)?;
        let len = file.metadata()?.len();
        let scan = scan(&file, number, len)?;
        Ok((file, len, scan))
    };
    let (file, len, scan) = read().map_err(SpoolError::read(&path))?;
    Ok(Segment {
        number,
        path,
        file: Arc::new(file),
        len,
        scan,
    })
}

fn file_names(dir: &Path) -> Result<Vec<String>, SpoolError> {
    let list = || {
        std::fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()
    };
    list().map_err(SpoolError::read(dir))
}

/// Where segments end according to their successors.
fn declared_ends(segments: &[Segment]) -> HashMap<u64, u64> {
    // Without a record it may be one whose creation failed, after which its predecessor was written on.
    let used = segments
        .iter()
        .filter(|segment| !segment.scan.records.is_empty());
    used.filter_map(|segment| segment.scan.header)
        .map(|header| (header.previous.number, header.previous.end))
        .collect()
}

/// Octets before `durable` were acknowledged, so that a gap there is damage; after it, it is a write that a crash cut short.
fn report_gaps(dir: &Path, segment: &Segment, end: Option<u64>) -> Result<(), SpoolError> {
    let scan = &segment.scan;
    let durable = end.unwrap_or(scan.durable_to);
    let tail = (scan.end < durable).then_some(Gap {
        start: scan.end,
        end: durable,
    });
    let path = segment.path.display();
    if scan.is_torn() && tail.is_none() {
        tracing::info!(%path, offset = scan.end, "ignored a write at the end that a crash cut short");
    }
    for gap in scan.gaps.iter().chain(&tail) {
        if gap.start >= durable {
            tracing::info!(%path, offset = gap.start, "ignored a write that a crash cut short");
            continue;
        }
        let octets = gap.end - gap.start;
        match unless_full(save_gap(dir, segment, gap))? {
            Some(copy) => {
                tracing::error!(%path, offset = gap.start, octets, copy = %copy.display(), "spool segment is damaged; the octets were copied, all other messages are recovered");
            }
            None => {
                tracing::error!(%path, offset = gap.start, octets, "spool segment is damaged, and the volume is too full for a copy of the octets; all other messages are recovered");
            }
        }
    }
    Ok(())
}

fn save_gap(dir: &Path, segment: &Segment, gap: &Gap) -> Result<PathBuf, SpoolError> {
    let name = format!("{:010}-{}.octets", segment.number, gap.start);
    let end = gap.end.min(segment.len).max(gap.start);
    let len = usize::try_from(end - gap.start).unwrap_or(0);
    let mut octets = vec![0; len];
    segment
        .file
        .read_exact_at(&mut octets, gap.start)
        .map_err(SpoolError::read(&segment.path))?;
    save(dir, &name, &octets)
}

/// What is for the postmaster to look at must not keep a full spool from being emptied.
fn unless_full<T>(saved: Result<T, SpoolError>) -> Result<Option<T>, SpoolError> {
    match saved {
        Err(error) if error.is_full() => Ok(None),
        other => other.map(Some),
    }
}

fn save(dir: &Path, name: &str, octets: &[u8]) -> Result<PathBuf, SpoolError> {
    let folder = dir.join(DAMAGED);
    std::fs::create_dir_all(&folder).map_err(SpoolError::write(&folder))?;
    let path = folder.join(name);
    std::fs::write(&path, octets).map_err(SpoolError::write(&path))?;
    Ok(path)
}

// === impl Facts ===

impl Facts {
    fn take(&mut self, segment: &Segment, end: Option<u64>) -> Result<(), SpoolError> {
        for record in &segment.scan.records {
            let refused = end.is_some_and(|end| record.offset >= end);
            match record.header.kind {
                Ok(_) if record.header.version > RECORD_VERSION => {
                    return Err(newer(segment, "a later version of a record"));
                }
                // Refused when it was written; the client was told so.
                Ok(Kind::Message) if refused => {}
                Ok(Kind::Message) => self.take_message(segment, record)?,
                Ok(Kind::Settled) => self.take_settled(segment, record)?,
                Err(kind) => return Err(newer(segment, &format!("a record of kind {kind}"))),
            }
        }
        Ok(())
    }

    fn take_message(&mut self, segment: &Segment, record: &Record) -> Result<(), SpoolError> {
        let envelope: Envelope = parse(segment, record)?;
        if let Some(on) = &envelope.reports_on {
            let settled = self.settled.entry(on.id).or_default();
            settled.extend(&on.recipients);
        }
        let header = &record.header;
        let at = Location {
            segment: segment.number,
            record_seed: segment.scan.record_seed(),
            file: Arc::clone(&segment.file),
            offset: record.offset,
            meta_len: header.meta_len,
            content_len: header.content_len,
            own_file: header.own_file,
            octets: header.octets(),
        };
        let found = Found {
            envelope,
            at,
            settled: Vec::new(),
        };
        // Segments come oldest first, so that the newest copy wins: the older one may be about to go.
        self.messages.insert(header.id, found);
        Ok(())
    }

    fn take_settled(&mut self, segment: &Segment, record: &Record) -> Result<(), SpoolError> {
        let outcomes: Vec<(u32, Settlement)> = parse(segment, record)?;
        let settled = self.settled.entry(record.header.id).or_default();
        settled.extend(outcomes.into_iter().map(|(recipient, _)| recipient));
        Ok(())
    }
}

/// The checksum was right, so that this is what somebody wrote.
fn parse<T: serde::de::DeserializeOwned>(
    segment: &Segment,
    record: &Record,
) -> Result<T, SpoolError> {
    serde_json::from_slice(&record.json).map_err(|error| {
        newer(
            segment,
            &format!(
                "JSON of version {ENVELOPE_VERSION} at offset {} cannot be read: {error}",
                record.offset
            ),
        )
    })
}

fn newer(segment: &Segment, what: &str) -> SpoolError {
    SpoolError::Newer {
        path: segment.path.clone(),
        what: what.to_owned(),
    }
}

fn judge(dir: &Path, mut facts: Facts) -> Result<BTreeMap<QueueId, Found>, SpoolError> {
    let mut live = BTreeMap::new();
    for (id, mut found) in facts.messages {
        let recipients = u32::try_from(found.envelope.recipients.len()).unwrap_or(u32::MAX);
        let settled = facts.settled.remove(&id).unwrap_or_default();
        found.settled = settled
            .into_iter()
            .filter(|index| *index < recipients)
            .collect();
        let state = OnDisk {
            message: true,
            needs_own_file: found.at.own_file,
            own_file: own_file_state(dir, &id, &found.at),
            settled: settled_part(found.settled.len(), found.envelope.recipients.len()),
        };
        match verdict(state) {
            Verdict::Forget => {}
            Verdict::Queue => {
                live.insert(id, found);
            }
            Verdict::Lost => report_lost(dir, &id, &found, state)?,
        }
    }
    Ok(live)
}

fn settled_part(settled: usize, recipients: usize) -> SettledPart {
    match settled {
        _ if settled >= recipients => SettledPart::All,
        0 => SettledPart::None,
        _ => SettledPart::Some,
    }
}

fn own_file_state(dir: &Path, id: &QueueId, at: &Location) -> OwnFileState {
    if !at.own_file {
        return OwnFileState::Absent;
    }
    match std::fs::metadata(own_file_path(dir, id)) {
        Ok(file) if file.len() == at.content_len => OwnFileState::Complete,
        Ok(_) => OwnFileState::WrongSize,
        Err(_) => OwnFileState::Absent,
    }
}

fn report_lost(dir: &Path, id: &QueueId, found: &Found, state: OnDisk) -> Result<(), SpoolError> {
    let json = serde_json::to_vec(&found.envelope).unwrap_or_default();
    let copy = unless_full(save(dir, &format!("{id}.json"), &json))?;
    // What is left of the content goes there too, before the own files are swept.
    let own_file = own_file_path(dir, id);
    if state.own_file == OwnFileState::WrongSize {
        let kept = dir.join(DAMAGED).join(format!("{id}.content"));
        unless_full(std::fs::rename(&own_file, &kept).map_err(SpoolError::write(&kept)))?;
    }
    match copy {
        Some(copy) => {
            tracing::error!(queue_id = %id, content = %own_file.display(), envelope = %copy.display(), "the content of an accepted message is missing or cut short; its envelope was saved");
        }
        None => {
            tracing::error!(queue_id = %id, content = %own_file.display(), sender = found.envelope.reverse_path, "the content of an accepted message is missing or cut short, and the volume is too full to save its envelope");
        }
    }
    Ok(())
}

fn remove_needless_own_files(
    dir: &Path,
    messages: &BTreeMap<QueueId, Found>,
) -> Result<(), SpoolError> {
    let folder = dir.join(OWN_FILES);
    let needed: HashSet<String> = messages
        .iter()
        .filter(|(_, found)| found.at.own_file)
        .map(|(id, _)| id.to_string())
        .collect();
    for name in file_names(&folder)? {
        // Only what has a queue id for a name can be ours.
        if name.parse::<QueueId>().is_ok() && !needed.contains(&name) {
            let path = folder.join(name);
            std::fs::remove_file(&path).map_err(SpoolError::write(&path))?;
        }
    }
    Ok(())
}
