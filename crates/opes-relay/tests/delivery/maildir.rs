//! Delivery from the spool to mailboxes.

use std::path::{Path, PathBuf};

use crate::common::{Bench, CONTENT, envelope, open_spool, view};
use opes_relay::{DeliveryOutcome, Queued, Route};
use opes_spool::{Settlement, Spool};

fn route(dir: &Path) -> Route {
    Route::Maildir { dir: dir.into() }
}

fn messages(mailbox: &Path) -> Vec<PathBuf> {
    let folders = ["new", "cur"].map(|name| mailbox.join(name));
    let entries = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).expect("a mailbox"));
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[tokio::test]
async fn every_recipient_has_the_message_with_trace_and_unchanged_content() {
    let mailboxes = tempfile::tempdir().expect("a folder");
    let mut bench = Bench::start(route(mailboxes.path()));
    bench.send(&["b@example.net", "C@EXAMPLE.org"]).await;
    bench.decided().await;
    bench.decided().await;
    for (mailbox, recipient) in [
        ("example.net/b", "b@example.net"),
        ("example.org/C", "C@EXAMPLE.org"),
    ] {
        let files = messages(&mailboxes.path().join(mailbox));
        assert_eq!(files.len(), 1);
        let mut expected =
            format!("Return-Path: <a@example.com>\r\nDelivered-To: {recipient}\r\n").into_bytes();
        expected.extend_from_slice(CONTENT);
        assert_eq!(std::fs::read(&files[0]).expect("read"), expected);
    }
    bench.assert_nothing_left();
}

#[tokio::test]
async fn large_and_many_messages_arrive_once_each() {
    let mailboxes = tempfile::tempdir().expect("a folder");
    let mut bench = Bench::start(route(mailboxes.path()));
    let large = b"0123456789\r\n".repeat(200_000);
    let queued = bench
        .store(&["large@example.net", "large2@example.net"], &large)
        .await;
    bench.relay.enqueue(queued);
    for _ in 0..100 {
        bench.send(&["b@example.net"]).await;
    }
    for _ in 0..102 {
        let (event, _) = bench.decided().await;
        assert!(
            matches!(event.outcome, DeliveryOutcome::Delivered { .. }),
            "{event:?}"
        );
    }
    assert_eq!(messages(&mailboxes.path().join("example.net/b")).len(), 100);
    for mailbox in ["large", "large2"] {
        let files = messages(&mailboxes.path().join("example.net").join(mailbox));
        assert!(std::fs::read(&files[0]).expect("read").ends_with(&large));
    }
    bench.assert_nothing_left();
}

/// The spool as a crash between delivery and settlement leaves it.
async fn delivered_but_not_settled(mailboxes: &Path) -> (tempfile::TempDir, Spool, Vec<Queued>) {
    let mut bench = Bench::start(route(mailboxes));
    // A second recipient keeps the message in the spool after the first is settled.
    let queued = bench
        .store(&["b@example.net", "c@example.net"], CONTENT)
        .await;
    let mut of_b = queued.clone();
    of_b.pending = vec![0];
    bench.relay.enqueue(of_b);
    bench.decided().await;
    let spool = bench.spool.clone();
    (bench.shutdown().await, spool, vec![queued])
}

#[tokio::test]
async fn message_delivered_before_a_crash_is_not_delivered_again() {
    for read_meanwhile in [false, true] {
        let mailboxes = tempfile::tempdir().expect("a folder");
        let (dir, spool, recovered) = delivered_but_not_settled(mailboxes.path()).await;
        let mailbox = mailboxes.path().join("example.net/b");
        if read_meanwhile {
            let new = &messages(&mailbox)[0];
            let name = new.file_name().expect("a name").to_str().expect("ASCII");
            std::fs::rename(new, mailbox.join("cur").join(format!("{name}:2,S"))).expect("moved");
        }
        let mut bench = Bench::start_in(dir, spool, recovered, route(mailboxes.path()), |_| {});
        bench.decided().await;
        bench.decided().await;
        assert_eq!(
            messages(&mailbox).len(),
            1,
            "read meanwhile: {read_meanwhile}"
        );
        assert_eq!(messages(&mailboxes.path().join("example.net/c")).len(), 1);
        bench.assert_nothing_left();
    }
}

#[tokio::test]
async fn settled_recipients_are_not_offered_again_after_a_restart() {
    let mailboxes = tempfile::tempdir().expect("a folder");
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open_spool(dir.path());
    let view = view(dir.path(), CONTENT).await;
    let envelope = envelope(&["b@example.net", "c@example.net"]);
    let queued = spool.store(envelope, &view).await.expect("stored");
    spool
        .settle(&queued.id, &[(0, Settlement::Delivered)])
        .await
        .expect("settled");
    drop((queued, spool));
    let (spool, recovered) = open_spool(dir.path());
    let mut bench = Bench::start_in(dir, spool, recovered, route(mailboxes.path()), |_| {});
    assert_eq!(bench.decided().await.0.recipient, "c@example.net");
    assert!(!mailboxes.path().join("example.net/b").exists());
    bench.assert_nothing_left();
}

#[tokio::test]
async fn missing_folder_defers_with_the_remedy_until_it_is_there() {
    let parent = tempfile::tempdir().expect("a folder");
    let mailboxes = parent.path().join("volume");
    let mut bench = Bench::start(route(&mailboxes));
    bench.send(&["b@example.net"]).await;
    let DeliveryOutcome::Deferred {
        detail: Some(detail),
        ..
    } = bench.event().await.outcome
    else {
        panic!("not deferred");
    };
    assert!(
        detail.contains("volume") && detail.contains("mount"),
        "{detail}"
    );
    std::fs::create_dir(&mailboxes).expect("mounted");
    let (event, _) = bench.decided().await;
    assert!(
        matches!(event.outcome, DeliveryOutcome::Delivered { .. }),
        "{event:?}"
    );
    bench.assert_nothing_left();
}

#[tokio::test]
async fn addresses_do_not_leave_the_folder() {
    let parent = tempfile::tempdir().expect("a folder");
    let mailboxes = parent.path().join("mailboxes");
    std::fs::create_dir(&mailboxes).expect("made");
    let mut bench = Bench::start(route(&mailboxes));
    let attempts = ["\"../../x\"@example.net", "x@../..", "..@..", "/x@/"];
    bench.send(&attempts).await;
    for _ in attempts {
        bench.decided().await;
    }
    bench.send(&["@example.net"]).await;
    let (event, _) = bench.decided().await;
    assert!(matches!(event.outcome, DeliveryOutcome::Failed { reply, .. } if reply.is_permanent()));
    let beside: Vec<_> = std::fs::read_dir(parent.path()).expect("read").collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
}
