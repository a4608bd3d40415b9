//! Disks that fail.

use super::*;

#[tokio::test]
async fn a_failed_write_refuses_the_message_and_the_next_segment_works() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open(&disk, dir.path());
    let first = store(&spool, 1, b"first").await.unwrap();
    disk.fail_writes.store(true, Ordering::SeqCst);
    let error = store(&spool, 1, b"refused").await.unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(error.disposition(), crate::Disposition::Transient);
    // Not even a segment for settlements alone can be written.
    let reason = spool.unhealthy_reason().unwrap();
    assert!(reason.contains("in memory only"), "{reason}");
    // What was durable can still be read and settled; the settlement is kept until it can be written.
    assert_eq!(content(&first).await, b"first");
    let outcome = [(0, Settlement::Delivered)];
    spool.settle(&first.id, &outcome).await.unwrap_err();

    disk.fail_writes.store(false, Ordering::SeqCst);
    until_healthy(&spool).await;
    let second = store(&spool, 1, b"second").await.unwrap();
    drop(spool);
    let (_, found) = open(&disk, dir.path());
    let ids: Vec<_> = found.iter().map(|queued| queued.id).collect();
    assert_eq!(ids, [second.id], "neither the settled nor the refused one");
}

#[tokio::test]
async fn a_failed_sync_is_never_retried_on_the_same_segment() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    // Never by itself: the sync that fails must be that of the message.
    let config = SpoolConfig {
        settle_sync: Duration::from_hours(1),
        ..small()
    };
    let (spool, _) = open_on(disk.clone(), dir.path(), config).unwrap();
    let first = store(&spool, 2, b"first").await.unwrap();
    let outcome = [(1, Settlement::Delivered)];
    spool.settle(&first.id, &outcome).await.unwrap();
    disk.failing_syncs.store(1, Ordering::SeqCst);
    let error = store(&spool, 1, b"refused").await.unwrap_err();
    assert!(matches!(error, SpoolError::Sync { .. }), "{error}");
    // One failure: a new segment, and on we go.
    assert_eq!(spool.unhealthy_reason(), None);
    let second = store(&spool, 1, b"second").await.unwrap();
    drop(spool);

    let (spool, found) = open(&disk, dir.path());
    let ids: Vec<_> = found.iter().map(|queued| queued.id).collect();
    // The refused message was written completely, but the client was told 4xx.
    assert_eq!(ids, [first.id, second.id]);
    assert_eq!(found[0].pending, [0]);
    assert_eq!(content(&found[0]).await, b"first");
    drop(spool);
}

#[tokio::test]
async fn two_failed_syncs_in_a_row_make_it_unhealthy_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open(&disk, dir.path());
    disk.failing_syncs.store(2, Ordering::SeqCst);
    store(&spool, 1, b"refused").await.unwrap_err();
    store(&spool, 1, b"refused").await.unwrap_err();
    assert_eq!(
        spool.unhealthy_reason(),
        Some("the spool cannot be written")
    );
    store(&spool, 1, b"refused at once").await.unwrap_err();
    until_healthy(&spool).await;
    store(&spool, 1, b"taken").await.unwrap();
}

#[tokio::test]
async fn a_large_message_that_finds_no_room_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open(&disk, dir.path());
    disk.fail_writes.store(true, Ordering::SeqCst);
    store(&spool, 1, &vec![b'x'; 20_000]).await.unwrap_err();
    assert_eq!(own_files(dir.path()), 0);
}

#[tokio::test]
async fn settlements_reach_the_disk_without_another_message() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open(&disk, dir.path());
    let queued = store(&spool, 1, b"x").await.unwrap();
    let before = disk.syncs();
    deliver(&spool, &queued).await;
    let synced = async {
        while disk.syncs() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), synced)
        .await
        .expect("within `settle_sync`");
}
