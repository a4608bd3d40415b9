//! The spool as a whole, on a disk that can be made to fail.

mod crash;
mod faults;
mod full;
mod model;
mod overlap;
mod reports;

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::Path;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use opes_content::{Budget, Limits, View};

use crate::disk::{Disk, SystemDisk};
use crate::{Envelope, Queued, Recipient, Settlement, Spool, SpoolConfig, SpoolError};

/// The system's disk, with switches for what goes wrong.
#[derive(Debug, Default)]
struct TestDisk {
    fail_writes: AtomicBool,
    /// Syncs of segment data that fail from now on.
    failing_syncs: AtomicU64,
    syncs: AtomicU64,
    /// No space at all.
    full: AtomicBool,
    /// So little space that only files up to this many octets can be made; 0 = no such limit.
    low: AtomicU64,
    /// A sync that had to wait at the gate fails.
    fail_gated_sync: AtomicBool,
    /// Syncs of segment data wait while this is set.
    gate_closed: AtomicBool,
    /// No sync gets past whoever has this locked.
    gate: Mutex<()>,
}

impl TestDisk {
    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }
}

impl Disk for TestDisk {
    fn create(&self, path: &Path, octets: u64) -> io::Result<File> {
        let low = self.low.load(Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) || (low > 0 && octets > low) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        SystemDisk.create(path, octets)
    }

    fn write_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        if self.fail_writes.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        SystemDisk.write_at(file, slices, offset)
    }

    fn set_len(&self, file: &File, octets: u64) -> io::Result<()> {
        SystemDisk.set_len(file, octets)
    }

    fn sync_data(&self, _: &File) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        let gated = self.gate_closed.load(Ordering::SeqCst);
        while self.gate_closed.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        if gated && self.fail_gated_sync.load(Ordering::SeqCst) {
            return Err(io::Error::other("medium error"));
        }
        drop(self.gate.lock().unwrap());
        let failing = &self.failing_syncs;
        let less = |left: u64| left.checked_sub(1);
        match failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Err(io::Error::other("medium error")),
            Err(_) => Ok(()),
        }
    }

    fn sync_all(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }

    fn free_octets(&self, dir: &Path) -> io::Result<u64> {
        if self.full.load(Ordering::SeqCst) {
            return Ok(0);
        }
        let low = self.low.load(Ordering::SeqCst);
        if low > 0 {
            return Ok(low);
        }
        SystemDisk.free_octets(dir)
    }
}

fn open_on(
    disk: Arc<dyn Disk>,
    dir: &Path,
    config: SpoolConfig,
) -> Result<(Spool, Vec<Queued>), SpoolError> {
    Spool::open(dir, SpoolConfig { disk, ..config })
}

/// Segments small enough to fill in a test.
fn small() -> SpoolConfig {
    SpoolConfig {
        segment_octets: 64 * 1024,
        own_file_octets: 8 * 1024,
        reserve_octets: 0,
        kept_octets: 0,
        settle_sync: Duration::from_millis(20),
        ..SpoolConfig::default()
    }
}

fn envelope(recipients: usize) -> Envelope {
    let recipient = |index| Recipient {
        address: format!("r{index}@example.org"),
        ..Recipient::default()
    };
    Envelope {
        reverse_path: "sender@example.com".to_owned(),
        recipients: (0..recipients).map(recipient).collect(),
        ..Envelope::default()
    }
}

async fn view(octets: &[u8]) -> View {
    let limits = Arc::new(Limits::in_dir(std::env::temp_dir()));
    let (mut writer, content) = opes_content::create(&Budget::new(1 << 30), &limits);
    writer.append(Bytes::copy_from_slice(octets)).await.unwrap();
    writer.finish();
    View::original(content)
}

async fn store(spool: &Spool, recipients: usize, octets: &[u8]) -> Result<Queued, SpoolError> {
    let view = view(octets).await;
    spool.store(envelope(recipients), &view).await
}

async fn content(queued: &Queued) -> Vec<u8> {
    let mut octets = Vec::new();
    loop {
        let more = queued.content.read_at(octets.len() as u64, 1000).await;
        let more = more.unwrap();
        if more.is_empty() {
            return octets;
        }
        octets.extend_from_slice(&more);
    }
}

async fn deliver(spool: &Spool, queued: &Queued) {
    let outcomes: Vec<_> = queued
        .pending
        .iter()
        .map(|recipient| (*recipient, Settlement::Delivered))
        .collect();
    spool.settle(&queued.id, &outcomes).await.unwrap();
}

fn open(disk: &Arc<TestDisk>, dir: &Path) -> (Spool, Vec<Queued>) {
    open_on(disk.clone(), dir, small()).unwrap()
}

async fn until_healthy(spool: &Spool) {
    let healthy = async {
        while spool.unhealthy_reason().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), healthy)
        .await
        .expect("the spool must recover by itself");
}

fn segments(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).unwrap();
    names
        .filter(|entry| {
            let path = entry.as_ref().unwrap().path();
            path.extension().is_some_and(|extension| extension == "seg")
        })
        .count()
}

fn own_files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("big")).unwrap().count()
}

#[tokio::test]
async fn a_stored_message_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, found) = Spool::open(dir.path(), small()).unwrap();
    assert!(found.is_empty());
    let stored = store(&spool, 2, b"Subject: one\r\n\r\nbody\r\n")
        .await
        .unwrap();
    spool
        .settle(&stored.id, &[(1, Settlement::Delivered)])
        .await
        .unwrap();
    drop(spool);

    let (spool, found) = Spool::open(dir.path(), small()).unwrap();
    let [queued] = &found[..] else {
        panic!("one message expected, got {found:?}");
    };
    assert_eq!(queued.id, stored.id);
    assert_eq!(queued.envelope, stored.envelope);
    assert_eq!(queued.pending, [0]);
    assert_eq!(content(queued).await, b"Subject: one\r\n\r\nbody\r\n");
    deliver(&spool, queued).await;
    drop(spool);
    assert!(Spool::open(dir.path(), small()).unwrap().1.is_empty());
}

#[tokio::test]
async fn content_is_read_from_memory_or_segment_or_own_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = SpoolConfig {
        kept_octets: 5000,
        ..small()
    };
    let (spool, _) = Spool::open(dir.path(), config).unwrap();
    let octets: Vec<u8> = (0..20_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut in_memory = store(&spool, 1, &octets[..4000]).await.unwrap();
    let in_segment = store(&spool, 1, &octets[..4001]).await.unwrap();
    let in_own_file = store(&spool, 1, &octets).await.unwrap();
    assert!(in_memory.content.in_memory().is_some());
    assert!(in_segment.content.in_memory().is_none());
    assert_eq!(own_files(dir.path()), 1);
    assert_eq!(content(&in_memory).await, &octets[..4000]);
    in_memory.content.release_memory();
    assert_eq!(content(&in_memory).await, &octets[..4000]);
    assert_eq!(content(&in_segment).await, &octets[..4001]);
    assert_eq!(content(&in_own_file).await, octets);
    // Memory that was let go serves the next one.
    let next = store(&spool, 1, &octets[..4000]).await.unwrap();
    assert!(next.content.in_memory().is_some());

    deliver(&spool, &in_own_file).await;
    drop(spool);
    assert_eq!(own_files(dir.path()), 0);
}

#[tokio::test]
async fn an_adapted_view_is_stored_as_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    let original = view(b"0123456789").await;
    let rope = opes_mime::Rope::identity(10)
        .splice_all(vec![opes_mime::Splice {
            offset: 2,
            size: 3,
            replacement: Bytes::from_static(b"abc-"),
        }])
        .unwrap();
    let adapted = original.compose(Some(rope)).unwrap();
    let queued = spool.store(envelope(1), &adapted).await.unwrap();
    assert_eq!(content(&queued).await, b"01abc-56789");
}

#[tokio::test]
async fn a_second_process_is_told_who_has_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    let error = Spool::open(dir.path(), small()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    assert!(matches!(error, SpoolError::Locked { .. }));
    drop(spool);
    Spool::open(dir.path(), small()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Spool::open(&file, small()).unwrap_err().to_string();
    assert!(error.contains(&file.display().to_string()), "{error}");
}

#[tokio::test]
async fn stores_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open_on(disk.clone(), dir.path(), small()).unwrap();
    // No commit ends before all of them wait.
    disk.gate_closed.store(true, Ordering::SeqCst);
    let stores = (0..100).map(|_| {
        let spool = spool.clone();
        tokio::spawn(async move { store(&spool, 1, b"x\r\n").await.unwrap() })
    });
    let stores: Vec<_> = stores.collect();
    for _ in 0..stores.len() {
        tokio::task::yield_now().await;
    }
    disk.gate_closed.store(false, Ordering::SeqCst);
    let mut ids = std::collections::HashSet::new();
    for task in stores {
        ids.insert(task.await.unwrap().id);
    }
    assert_eq!(ids.len(), 100);
    assert!(disk.syncs() < 50, "{} syncs", disk.syncs());
    assert_eq!(spool.stats().stored, 100);
}

#[tokio::test]
async fn a_store_nobody_waits_for_is_withdrawn() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open_on(disk.clone(), dir.path(), small()).unwrap();
    let view = view(b"x\r\n").await;
    {
        let _held = disk.gate.lock().unwrap();
        let mut future = Box::pin(spool.store(envelope(1), &view));
        // One poll puts the request into the queue; then the session is cancelled, before the message is on disk.
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    // A later store is committed after it.
    let kept = store(&spool, 1, b"y\r\n").await.unwrap();
    drop(spool);
    let (_, found) = Spool::open(dir.path(), small()).unwrap();
    let ids: Vec<_> = found.iter().map(|queued| queued.id).collect();
    assert_eq!(ids, [kept.id]);
}

#[tokio::test]
async fn space_of_settled_messages_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    for _ in 0..200 {
        let queued = store(&spool, 1, &[b'x'; 4000]).await.unwrap();
        deliver(&spool, &queued).await;
    }
    assert!(segments(dir.path()) <= 2, "{}", segments(dir.path()));
    assert_eq!(spool.stats().live_messages, 0);
}

#[tokio::test]
async fn one_waiting_message_does_not_hold_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    let stuck = store(&spool, 3, b"stuck\r\n").await.unwrap();
    spool
        .settle(&stuck.id, &[(2, Settlement::Delivered)])
        .await
        .unwrap();
    for _ in 0..300 {
        let queued = store(&spool, 1, &[b'x'; 4000]).await.unwrap();
        deliver(&spool, &queued).await;
    }
    assert!(segments(dir.path()) <= 6, "{}", segments(dir.path()));
    assert_eq!(content(&stuck).await, b"stuck\r\n");
    drop(spool);
    let (spool, found) = Spool::open(dir.path(), small()).unwrap();
    let pending: Vec<_> = found.iter().map(|queued| &queued.pending[..]).collect();
    assert_eq!(pending, [[0, 1]]);
    assert_eq!(content(&found[0]).await, b"stuck\r\n");
    deliver(&spool, &found[0]).await;
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    let error = store(&spool, 0, b"x").await.unwrap_err();
    assert!(matches!(error, SpoolError::NoRecipients), "{error}");
    let error = store(&spool, 5000, b"x").await.unwrap_err();
    assert!(
        matches!(error, SpoolError::RecordTooLarge { .. }),
        "{error}"
    );
    // Settling twice, or a recipient that is not there, changes nothing.
    let queued = store(&spool, 2, b"x").await.unwrap();
    for recipient in [0, 0, 9] {
        let outcome = [(recipient, Settlement::Delivered)];
        spool.settle(&queued.id, &outcome).await.unwrap();
    }
    assert_eq!(spool.stats().live_messages, 1);
}
