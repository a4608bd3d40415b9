//! Reports: a stored report is the settlement of the recipients that it tells of, at every octet of the log.

use super::*;
use crate::recovery::recover;
use crate::segment::segment_path;
use crate::{QueueId, ReportsOn};

const REPORT: &[u8] = b"Subject: Undelivered\r\n\r\nsorry\r\n";

fn report_envelope(on: &Queued, recipients: &[u32]) -> Envelope {
    Envelope {
        reverse_path: String::new(),
        reports_on: Some(ReportsOn {
            id: on.id,
            recipients: recipients.to_vec(),
        }),
        ..envelope(1)
    }
}

async fn report(spool: &Spool, on: &Queued, recipients: &[u32]) -> Result<Queued, SpoolError> {
    let envelope = report_envelope(on, recipients);
    spool
        .store_octets(envelope, Bytes::from_static(REPORT))
        .await
}

/// Queue ids with the recipients that are left.
fn left(found: &[Queued]) -> Vec<(QueueId, Vec<u32>)> {
    found.iter().map(|q| (q.id, q.pending.clone())).collect()
}

#[tokio::test]
async fn the_report_settles_what_it_tells_of_and_is_queued_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    let message = store(&spool, 3, &vec![b'x'; 20_000]).await.unwrap();
    let first = report(&spool, &message, &[0, 2]).await.unwrap();
    assert_eq!(spool.stats().live_messages, 2);
    drop(spool);
    let (spool, found) = Spool::open(dir.path(), small()).unwrap();
    assert_eq!(left(&found), [(message.id, vec![1]), (first.id, vec![0])]);
    assert_eq!(content(&found[1]).await, REPORT);
    assert_eq!(found[1].envelope, first.envelope);
    // The last recipient: the content of the message is not needed any more, durably.
    let second = report(&spool, &message, &[1]).await.unwrap();
    assert_eq!(own_files(dir.path()), 0);
    deliver(&spool, &first).await;
    drop(spool);
    let (spool, found) = Spool::open(dir.path(), small()).unwrap();
    assert_eq!(left(&found), [(second.id, vec![0])]);
    deliver(&spool, &second).await;
    drop(spool);
    assert!(Spool::open(dir.path(), small()).unwrap().1.is_empty());
}

#[tokio::test]
async fn every_prefix_of_the_log_has_either_the_recipient_or_the_report() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    let message = store(&spool, 2, b"message\r\n").await.unwrap();
    let outcome = [(0, Settlement::Delivered)];
    spool.settle(&message.id, &outcome).await.unwrap();
    let written = spool.stats().written_octets + crate::segment::SEGMENT_HEADER_OCTETS;
    let before = usize::try_from(written).unwrap();
    let told = report(&spool, &message, &[1]).await.unwrap();
    drop(spool);
    let log = std::fs::read(segment_path(dir.path(), 1)).unwrap();
    for cut in before..=log.len() {
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("big")).unwrap();
        let mut prefix = log[..cut].to_vec();
        prefix.resize(log.len(), 0);
        std::fs::write(segment_path(copy.path(), 1), prefix).unwrap();
        let found = recover(copy.path()).unwrap().messages;
        let pending = found.contains_key(&message.id);
        let reported = found.contains_key(&told.id);
        assert!(pending != reported, "at {cut}: {pending} and {reported}");
    }
}

#[tokio::test]
async fn a_report_nobody_waits_for_stays_since_it_settles() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    let message = store(&spool, 1, b"message\r\n").await.unwrap();
    {
        let envelope = report_envelope(&message, &[0]);
        let mut future = Box::pin(spool.store_octets(envelope, Bytes::from_static(REPORT)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = future.as_mut().poll(&mut context);
    }
    drop(spool);
    let (_, found) = Spool::open(dir.path(), small()).unwrap();
    let [only] = &found[..] else {
        panic!("the report and nothing else, got {found:?}");
    };
    assert_eq!(content(only).await, REPORT);
}

#[tokio::test]
async fn a_report_that_is_refused_settles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open(&disk, dir.path());
    let message = store(&spool, 1, b"message\r\n").await.unwrap();
    disk.failing_syncs.store(1, Ordering::SeqCst);
    report(&spool, &message, &[0]).await.unwrap_err();
    assert_eq!(spool.stats().live_messages, 1);
    // The record that failed lies in the old segment; this one says that it does not count.
    let other = store(&spool, 1, b"other\r\n").await.unwrap();
    let found = recover(dir.path()).unwrap().messages;
    let ids: Vec<_> = found.keys().copied().collect();
    assert_eq!(ids, [message.id, other.id]);
    let again = report(&spool, &message, &[0]).await.unwrap();
    drop(spool);
    let (_, found) = open(&disk, dir.path());
    assert_eq!(left(&found), [(other.id, vec![0]), (again.id, vec![0])]);
}

#[tokio::test]
async fn a_full_volume_can_be_emptied_by_reports() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let config = SpoolConfig {
        reserve_octets: 1 << 20,
        disk: disk.clone(),
        ..small()
    };
    let (spool, _) = Spool::open(dir.path(), config.clone()).unwrap();
    let message = store(&spool, 1, b"message\r\n").await.unwrap();
    drop(spool);
    // Too little for a segment of messages, enough for one that drains.
    disk.low.store(100 * 1024, Ordering::SeqCst);
    let (spool, found) = Spool::open(dir.path(), config).unwrap();
    assert_eq!(left(&found), [(message.id, vec![0])]);
    let refused = store(&spool, 1, b"new\r\n").await.unwrap_err();
    assert!(refused.is_full(), "{refused}");
    let told = report(&spool, &message, &[0]).await.unwrap();
    deliver(&spool, &told).await;
    assert_eq!(spool.stats().live_messages, 0);
}

#[tokio::test]
async fn what_a_report_settled_stays_settled_when_segments_are_cleaned() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    let stuck = store(&spool, 2, b"stuck\r\n").await.unwrap();
    let told = report(&spool, &stuck, &[0]).await.unwrap();
    deliver(&spool, &told).await;
    for _ in 0..300 {
        let queued = store(&spool, 1, &[b'x'; 4000]).await.unwrap();
        deliver(&spool, &queued).await;
    }
    assert!(!segment_path(dir.path(), 1).exists());
    drop(spool);
    let (_, found) = Spool::open(dir.path(), small()).unwrap();
    assert_eq!(left(&found), [(stuck.id, vec![1])]);
}
