//! A volume without space, at start and later: what is held can be delivered, and mail is taken again when there is space.

use super::*;

/// Octets free: too few for a segment, enough for one that takes settlements.
const LOW: u64 = 100 * 1024;

/// [`small`], with a reserve that [`LOW`] is far below.
fn config() -> SpoolConfig {
    SpoolConfig {
        reserve_octets: 1 << 20,
        ..small()
    }
}

fn open_config(disk: &Arc<TestDisk>, dir: &Path) -> (Spool, Vec<Queued>) {
    open_on(disk.clone(), dir, config()).unwrap()
}

#[tokio::test]
async fn a_full_disk_can_be_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open(&disk, dir.path());
    disk.full.store(true, Ordering::SeqCst);
    let mut taken = Vec::new();
    let error = loop {
        match store(&spool, 1, &[b'x'; 4000]).await {
            Ok(queued) => taken.push(queued),
            Err(error) => break error,
        }
        assert!(taken.len() < 100, "a segment of 64 KiB holds less");
    };
    assert!(error.is_full(), "{error}");
    assert!(spool.unhealthy_reason().is_some());
    assert!(!taken.is_empty());
    // No new segment can be made, yet deliveries are recorded.
    for queued in &taken {
        deliver(&spool, queued).await;
    }
    disk.full.store(false, Ordering::SeqCst);
    until_healthy(&spool).await;
    store(&spool, 1, b"again").await.unwrap();
    drop(spool);
    let (_, found) = open(&disk, dir.path());
    assert_eq!(found.len(), 1);
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
    waited.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_spool_opens_on_a_full_volume_and_can_be_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open_config(&disk, dir.path());
    let large = store(&spool, 1, &vec![b'x'; 20_000]).await.unwrap();
    let two = store(&spool, 2, b"two").await.unwrap();
    drop(spool);

    disk.low.store(LOW, Ordering::SeqCst);
    let (spool, found) = open_config(&disk, dir.path());
    let ids: Vec<_> = found.iter().map(|queued| queued.id).collect();
    assert_eq!(ids, [large.id, two.id]);
    assert_eq!(spool.unhealthy_reason(), Some("the spool volume is full"));
    for octets in [1, 20_000] {
        let error = store(&spool, 1, &vec![b'y'; octets]).await.unwrap_err();
        assert!(error.is_full(), "{error}");
    }
    assert_eq!(content(&found[0]).await, vec![b'x'; 20_000]);
    deliver(&spool, &found[0]).await;
    let outcome = [(0, Settlement::Delivered)];
    spool.settle(&two.id, &outcome).await.unwrap();
    until("the content of the large one must go", || {
        own_files(dir.path()) == 0
    })
    .await;
    drop(spool);

    let (spool, found) = open_config(&disk, dir.path());
    let pending: Vec<_> = found
        .iter()
        .map(|queued| (queued.id, &queued.pending[..]))
        .collect();
    assert_eq!(pending, [(two.id, &[1][..])]);
    disk.low.store(0, Ordering::SeqCst);
    until_healthy(&spool).await;
    let new = store(&spool, 1, b"new").await.unwrap();
    drop(spool);
    let (_, found) = open_config(&disk, dir.path());
    let ids: Vec<_> = found.iter().map(|queued| queued.id).collect();
    assert_eq!(ids, [two.id, new.id]);
}

#[tokio::test]
async fn without_any_space_settlements_are_kept_and_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open(&disk, dir.path());
    let first = store(&spool, 1, b"first").await.unwrap();
    let large = store(&spool, 1, &vec![b'x'; 20_000]).await.unwrap();
    drop(spool);

    disk.full.store(true, Ordering::SeqCst);
    let (spool, found) = open(&disk, dir.path());
    assert_eq!(found.len(), 2);
    let reason = spool.unhealthy_reason().unwrap();
    assert!(reason.contains("in memory only"), "{reason}");
    for queued in &found {
        let outcome = [(0, Settlement::Delivered)];
        let error = spool.settle(&queued.id, &outcome).await.unwrap_err();
        assert!(error.is_full(), "{error}");
    }
    assert!(store(&spool, 1, b"refused").await.unwrap_err().is_full());
    assert_eq!(spool.stats().live_messages, 0);
    assert_eq!(own_files(dir.path()), 1, "its settlement is not on disk");

    disk.full.store(false, Ordering::SeqCst);
    until_healthy(&spool).await;
    assert_eq!(own_files(dir.path()), 0);
    let third = store(&spool, 1, b"third").await.unwrap();
    drop(spool);
    let (_, found) = open(&disk, dir.path());
    let ids: Vec<_> = found.iter().map(|queued| queued.id).collect();
    assert_eq!(ids, [third.id], "neither {} nor {}", first.id, large.id);
}

#[tokio::test]
async fn settlements_in_memory_are_written_when_there_is_space_for_them_alone() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open_config(&disk, dir.path());
    // More than one segment takes that fits into what will be free.
    for _ in 0..1500 {
        store(&spool, 1, b"x").await.unwrap();
    }
    drop(spool);
    disk.full.store(true, Ordering::SeqCst);
    let (spool, found) = open_config(&disk, dir.path());
    assert_eq!(found.len(), 1500);
    for queued in &found {
        let outcome = [(0, Settlement::Delivered)];
        spool.settle(&queued.id, &outcome).await.unwrap_err();
    }
    disk.low.store(LOW, Ordering::SeqCst);
    disk.full.store(false, Ordering::SeqCst);
    until("the settlements must be written", || {
        spool.unhealthy_reason() == Some("the spool volume is full")
    })
    .await;
    drop(spool);
    let found = crate::recovery::recover(dir.path()).unwrap().messages;
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test]
async fn on_a_full_volume_there_is_no_end_of_room_for_settlements() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open_config(&disk, dir.path());
    let mut taken = Vec::new();
    for _ in 0..1500 {
        taken.push(store(&spool, 1, b"x").await.unwrap());
    }
    disk.low.store(LOW, Ordering::SeqCst);
    // The last stays, and with it every segment from its own on.
    let last = taken.pop().unwrap();
    let stuck = taken.remove(0);
    let tasks = taken.into_iter().map(|queued| {
        let spool = spool.clone();
        tokio::spawn(async move { deliver(&spool, &queued).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(spool.unhealthy_reason(), Some("the spool volume is full"));
    drop(spool);
    let (_, found) = open_config(&disk, dir.path());
    let ids: Vec<_> = found.iter().map(|queued| queued.id).collect();
    assert_eq!(ids, [stuck.id, last.id]);
    assert!(!dir.path().join("damaged").exists());
}

#[tokio::test]
async fn on_a_full_volume_one_waiting_message_does_not_hold_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open_config(&disk, dir.path());
    let stuck = store(&spool, 2, b"stuck").await.unwrap();
    let mut taken = Vec::new();
    while segments(dir.path()) < 8 {
        taken.push(store(&spool, 1, &[b'x'; 4000]).await.unwrap());
    }
    disk.low.store(LOW, Ordering::SeqCst);
    let outcome = [(1, Settlement::Delivered)];
    spool.settle(&stuck.id, &outcome).await.unwrap();
    for queued in &taken {
        deliver(&spool, queued).await;
    }
    until("space must come back", || segments(dir.path()) <= 4).await;
    drop(spool);
    let (_, found) = open_config(&disk, dir.path());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].pending, [0]);
    assert_eq!(content(&found[0]).await, b"stuck");
}
