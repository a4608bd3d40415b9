//! Recovery from every prefix of the log, from reordered writes, and from damage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::*;
use crate::QueueId;
use crate::recovery::recover;
use crate::segment::{Purpose, SEGMENT_HEADER_OCTETS, Segment, segment_path};

/// What was acknowledged when the log had a certain length.
#[derive(Clone, Default)]
struct Acknowledged {
    stored: BTreeMap<QueueId, Vec<u8>>,
    settled: BTreeSet<QueueId>,
}

struct History {
    dir: tempfile::TempDir,
    log: Vec<u8>,
    /// End of the log, and what had been acknowledged by then.
    steps: Vec<(usize, Acknowledged)>,
}

/// Some stores and settlements, one commit each.
async fn history() -> History {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    let mut state = Acknowledged::default();
    let mut steps = vec![(end(&spool), state.clone())];
    let mut queue = Vec::new();
    for round in 0..6u8 {
        let octets = vec![round; 40 + usize::from(round) * 7];
        let queued = store(&spool, 1, &octets).await.unwrap();
        state.stored.insert(queued.id, octets);
        steps.push((end(&spool), state.clone()));
        queue.push(queued);
        if round % 2 == 1 {
            let first = queue.remove(0);
            deliver(&spool, &first).await;
            state.settled.insert(first.id);
            steps.push((end(&spool), state.clone()));
        }
    }
    drop(spool);
    let log = std::fs::read(segment_path(dir.path(), 1)).unwrap();
    History { dir, log, steps }
}

fn end(spool: &Spool) -> usize {
    let written = spool.stats().written_octets + SEGMENT_HEADER_OCTETS;
    usize::try_from(written).unwrap()
}

/// A spool directory with `log` as its only segment, padded with zeros as a reserved file is.
fn directory_with(log: &[u8], reserved: usize) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("big")).unwrap();
    let path = segment_path(dir.path(), 1);
    let mut octets = log.to_vec();
    octets.resize(reserved.max(log.len()), 0);
    std::fs::write(&path, octets).unwrap();
    let dir_path = dir.path().to_owned();
    (dir, dir_path)
}

#[tokio::test]
async fn every_prefix_of_the_log_gives_what_was_acknowledged() {
    let history = history().await;
    let full = history.log.len();
    // The header's octets matter as such only; the records are cut at every one.
    let header = usize::try_from(SEGMENT_HEADER_OCTETS).unwrap();
    for cut in (0..header).step_by(511).chain(header..=full) {
        let reserved = if cut % 2 == 0 { full } else { 0 };
        let (_dir, path) = directory_with(&history.log[..cut], reserved);
        let found = recover(&path).unwrap().messages;
        let done = history.steps.iter().rev().find(|(end, _)| *end <= cut);
        let done = done.map(|(_, state)| state.clone()).unwrap_or_default();
        // Only the write that was cut short may be there or not.
        let next = history.steps.iter().find(|(end, _)| *end > cut);
        let next = next.map_or_else(|| done.clone(), |(_, state)| state.clone());
        for id in done.stored.keys() {
            let pending = found.contains_key(id);
            assert!(pending || next.settled.contains(id), "{id} lost at {cut}");
            assert!(
                !pending || !done.settled.contains(id),
                "{id} again at {cut}"
            );
        }
        assert!(
            found.keys().all(|id| next.stored.contains_key(id)),
            "invented at {cut}"
        );
    }
    drop(history.dir);
}

#[tokio::test]
async fn a_prefix_can_be_opened_and_written_on() {
    let history = history().await;
    for (end, state) in &history.steps {
        for cut in [*end, end + 8, end + 70] {
            let cut = cut.min(history.log.len());
            let (_dir, path) = directory_with(&history.log[..cut], 64 * 1024);
            let (spool, found) = Spool::open(&path, small()).unwrap();
            for queued in &found {
                if let Some(octets) = state.stored.get(&queued.id) {
                    assert_eq!(&content(queued).await, octets);
                }
            }
            let new = store(&spool, 1, b"new").await.unwrap();
            drop(spool);
            let (_, again) = Spool::open(&path, small()).unwrap();
            let ids: Vec<_> = again.iter().map(|queued| queued.id).collect();
            let expected: Vec<_> = found.iter().map(|q| q.id).chain([new.id]).collect();
            assert_eq!(ids, expected);
        }
    }
}

#[tokio::test]
async fn damage_in_the_middle_costs_one_record_and_is_kept_for_the_postmaster() {
    let history = history().await;
    let (_, second) = (&history.steps[0], &history.steps[1]);
    let (start, first_end) = (history.steps[0].0, second.0);
    let first = *second.1.stored.keys().next().unwrap();
    let intact = recover(history.dir.path()).unwrap().messages;
    for octet in start..first_end {
        let mut log = history.log.clone();
        log[octet] ^= 0x20;
        let (_dir, path) = directory_with(&log, 64 * 1024);
        let found = recover(&path).unwrap().messages;
        let expected: Vec<_> = intact.keys().filter(|id| **id != first).collect();
        assert_eq!(found.keys().collect::<Vec<_>>(), expected, "octet {octet}");
        let padding = log[octet] == 0x20 && octet + 8 > first_end;
        assert!(path.join("damaged").exists() || padding, "octet {octet}");
    }
}

#[tokio::test]
async fn either_copy_of_the_segment_header_is_enough() {
    let history = history().await;
    let intact: Vec<_> = recover(history.dir.path())
        .unwrap()
        .messages
        .into_keys()
        .collect();
    assert!(!intact.is_empty());
    for (broken, lost) in [(&[0][..], false), (&[4096], false), (&[0, 4096], true)] {
        let mut log = history.log.clone();
        for at in broken {
            log[*at..at + 64].fill(0xff);
        }
        let (_dir, path) = directory_with(&log, 0);
        let recovered = recover(&path).unwrap();
        let found: Vec<_> = recovered.messages.into_keys().collect();
        assert_eq!(found, if lost { vec![] } else { intact.clone() });
        assert_eq!(path.join("damaged/0000000001.seg").exists(), lost);
    }
}

#[tokio::test]
async fn a_later_record_survives_when_an_earlier_unsynced_one_was_not_written() {
    let history = history().await;
    let (before, _) = history.steps[history.steps.len() - 2];
    let (start, _) = history.steps[history.steps.len() - 3];
    // The store before the last settlement is zeroed: the disk may keep writes in any order.
    let mut log = history.log.clone();
    log[start..before].fill(0);
    let (_dir, path) = directory_with(&log, 64 * 1024);
    let found = recover(&path).unwrap().messages;
    let last = &history.steps.last().unwrap().1;
    assert!(found.keys().all(|id| !last.settled.contains(id)));
}

#[tokio::test]
async fn content_that_looks_like_records_is_not_taken_for_any() {
    let history = history().await;
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    let records = &history.log[usize::try_from(SEGMENT_HEADER_OCTETS).unwrap()..];
    let bait = store(&spool, 1, &records[..records.len().min(8000)])
        .await
        .unwrap();
    drop(spool);
    let path = segment_path(dir.path(), 1);
    let mut log = std::fs::read(&path).unwrap();
    // The header of the enclosing record is lost, so recovery looks into the content.
    let at = usize::try_from(SEGMENT_HEADER_OCTETS).unwrap();
    log[at..at + 64].fill(0);
    std::fs::write(&path, log).unwrap();
    let found = recover(dir.path()).unwrap().messages;
    assert!(found.is_empty(), "{bait:?} {found:?}");
}

#[tokio::test]
async fn a_missing_large_content_is_reported_with_its_envelope() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    let large = store(&spool, 1, &vec![b'x'; 20_000]).await.unwrap();
    let short = store(&spool, 1, &vec![b'y'; 20_000]).await.unwrap();
    drop(spool);
    let big = dir.path().join("big");
    std::fs::remove_file(big.join(large.id.to_string())).unwrap();
    std::fs::write(big.join(short.id.to_string()), "cut").unwrap();
    std::fs::write(big.join("0000000000000000ZZ"), "orphan").unwrap();
    let (_, found) = Spool::open(dir.path(), small()).unwrap();
    assert!(found.is_empty());
    assert_eq!(own_files(dir.path()), 0);
    let damaged = dir.path().join("damaged");
    assert!(damaged.join(format!("{}.json", large.id)).exists());
    assert!(damaged.join(format!("{}.content", short.id)).exists());
}

#[test]
fn a_segment_without_a_header_is_unused() {
    let (_dir, path) = directory_with(&[], 4096);
    let recovered = recover(&path).unwrap();
    assert!(recovered.messages.is_empty());
    assert_eq!(recovered.segments.len(), 1);
    assert!(!path.join("damaged").exists());
}

#[test]
fn a_failed_creation_does_not_shorten_the_segment_that_was_written_on() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("big")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (spool, _) = Spool::open(dir.path(), small()).unwrap();
        // As if a rotation had failed after the header, and the file could not be removed.
        let previous = crate::segment::SegmentEnd {
            number: 1,
            end: SEGMENT_HEADER_OCTETS,
        };
        let made = Segment::create(
            &SystemDisk,
            dir.path(),
            2,
            (Purpose::Messages, 65_536),
            previous,
        );
        made.unwrap();
        let queued = store(&spool, 1, b"after that").await.unwrap();
        drop(spool);
        let (_, found) = Spool::open(dir.path(), small()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id, queued.id);
    });
}
