//! Settlements while a sync runs, and everything at once.

use std::collections::BTreeMap;

use super::*;
use crate::QueueId;
use crate::recovery::recover;

/// Two stored messages and a third whose sync has begun and does not end before the gate is opened.
async fn settle_during_a_sync(disk: &Arc<TestDisk>, dir: &Path) -> (Spool, Queued, bool) {
    let (spool, _) = open(disk, dir);
    let first = store(&spool, 1, b"first").await.unwrap();
    let second = store(&spool, 1, b"second").await.unwrap();
    disk.gate_closed.store(true, Ordering::SeqCst);
    let before = disk.syncs();
    let third = tokio::spawn({
        let spool = spool.clone();
        async move { store(&spool, 1, b"third").await.is_ok() }
    });
    while disk.syncs() == before {
        tokio::task::yield_now().await;
    }
    let settled = tokio::time::timeout(Duration::from_secs(30), deliver(&spool, &first));
    settled
        .await
        .expect("a settlement does not wait for a sync");
    assert!(!third.is_finished());
    // What a new process would find after kill -9.
    let found = recover(dir).unwrap().messages;
    assert!(!found.contains_key(&first.id));
    assert!(found.contains_key(&second.id));
    disk.gate_closed.store(false, Ordering::SeqCst);
    (spool, second, third.await.unwrap())
}

#[tokio::test]
async fn a_settlement_does_not_wait_for_a_running_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, second, taken) = settle_during_a_sync(&disk, dir.path()).await;
    assert!(taken);
    drop(spool);
    let found = recover(dir.path()).unwrap().messages;
    assert_eq!(found.len(), 2);
    assert!(found.contains_key(&second.id));
}

#[tokio::test]
async fn a_settlement_made_during_a_sync_that_fails_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    disk.fail_gated_sync.store(true, Ordering::SeqCst);
    let (spool, second, taken) = settle_during_a_sync(&disk, dir.path()).await;
    assert!(!taken);
    store(&spool, 1, b"fourth").await.unwrap();
    drop(spool);
    // Even if the disk has lost what was in the segment that failed behind what was durable.
    let first_segment = crate::segment::segment_path(dir.path(), 1);
    let mut log = std::fs::read(&first_segment).unwrap();
    let settlement = log.len() - 96;
    log[settlement..].fill(0);
    std::fs::write(&first_segment, log).unwrap();
    let found = recover(dir.path()).unwrap().messages;
    assert_eq!(found.len(), 2, "second and fourth");
    assert!(found.contains_key(&second.id));
}

/// Two recipients each: the first is settled soon, the second for some messages only, and late.
async fn one_client(spool: Spool, number: usize) -> BTreeMap<QueueId, Vec<u32>> {
    let mut expected = BTreeMap::new();
    let mut late = Vec::new();
    for round in 0..120 {
        let octets = vec![b'x'; (number * 997 + round * 131) % 3000];
        let queued = store(&spool, 2, &octets).await.unwrap();
        let outcome = [(0, Settlement::Delivered)];
        spool.settle(&queued.id, &outcome).await.unwrap();
        if round % 40 == 0 {
            expected.insert(queued.id, vec![1]);
        } else {
            late.push(queued.id);
        }
        if late.len() > 10 {
            let outcome = [(1, Settlement::Delivered)];
            spool
                .settle(&late.swap_remove(round % 10), &outcome)
                .await
                .unwrap();
        }
    }
    expected.extend(late.into_iter().map(|id| (id, vec![1])));
    expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_clients_rotation_and_cleaning_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (spool, _) = open(&disk, dir.path());
    let clients: Vec<_> = (0..8)
        .map(|number| tokio::spawn(one_client(spool.clone(), number)))
        .collect();
    let mut expected = BTreeMap::new();
    for client in clients {
        expected.extend(client.await.unwrap());
    }
    drop(spool);
    // 960 messages of 1.5 KiB are some 25 segments.
    assert!(
        segments(dir.path()) < 20,
        "{} segments",
        segments(dir.path())
    );
    let (_, found) = open(&disk, dir.path());
    let found: BTreeMap<_, _> = found.into_iter().map(|q| (q.id, q.pending)).collect();
    assert_eq!(found, expected);
    assert!(
        !dir.path().join("damaged").exists(),
        "records have been mixed up"
    );
}
