//! What every store must do.

use std::time::{Duration, SystemTime};

use super::{Bench, KEEP, MESSAGE, content, held};
use crate::store::{now_ms, signed};
use crate::{Fate, Filter, RecipientState, ReleaseRequest, StoreError};

const PAUL: &str = "paul@example.com";
const ANN: &str = "ann@example.net";

fn to(addresses: &[&str]) -> ReleaseRequest {
    ReleaseRequest {
        recipients: Some(
            addresses
                .iter()
                .map(|address| (*address).to_owned())
                .collect(),
        ),
        again: false,
    }
}

fn again(request: ReleaseRequest) -> ReleaseRequest {
    ReleaseRequest {
        again: true,
        ..request
    }
}

/// All properties, one after the other, each with ids of its own.
pub(super) async fn all(bench: &Bench) {
    holding(bench).await;
    large_contents(bench).await;
    lists(bench).await;
    releases(bench).await;
    unfinished_releases(bench).await;
    one_of_many_operators(bench).await;
    deletion(bench).await;
    expiry(bench).await;
    orphans(bench).await;
}

async fn holding(bench: &Bench) {
    let message = held("hold", &[PAUL, ANN]);
    bench.hold(&message).await;
    bench.hold(&message).await;
    let other = crate::Held {
        edge: "edge2".into(),
        ..message.clone()
    };
    bench.hold(&other).await;
    bench.hold(&other).await;
    let page = bench.store.list(&Filter::default()).await.unwrap();
    let ids: Vec<_> = page.entries.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(ids, ["hold-edge2", "hold"]);

    let shown = bench.store.show("hold").await.unwrap();
    assert_eq!(shown.envelope, message.envelope);
    assert_eq!((shown.entry.recipients, shown.entry.held), (2, 2));
    assert_eq!(shown.entry.summary.subject, "Grüße");
    assert_eq!(shown.entry.octets, MESSAGE.len() as u64);
    assert_eq!(shown.audit.len(), 1, "{:?}", shown.audit);
    assert_eq!(content(&bench.store, "hold").await.unwrap(), MESSAGE);
    for id in ["hold", "hold-edge2"] {
        bench.store.delete(id, "test").await.unwrap();
    }
    let traversal = held("../x", &[PAUL]);
    let file = bench.file(MESSAGE);
    assert!(bench.store.hold(&traversal, &file).await.is_err());
}

/// More than one part of an upload, and more than one read.
async fn large_contents(bench: &Bench) {
    let octets: Vec<u8> = (0..6_000_003_u32).map(|n| (n % 251) as u8).collect();
    let file = bench.file(&octets);
    bench
        .store
        .hold(&held("large", &[PAUL]), &file)
        .await
        .unwrap();
    assert!(content(&bench.store, "large").await.unwrap() == octets);
    bench.store.delete("large", "test").await.unwrap();
}

async fn ids(bench: &Bench, filter: Filter) -> Vec<String> {
    let page = bench.store.list(&filter).await.unwrap();
    page.entries.into_iter().map(|entry| entry.id).collect()
}

async fn lists(bench: &Bench) {
    for number in 0..23_u64 {
        let mut message = held(&format!("list{number:02}"), &[PAUL]);
        // Pairs with the same time: the id decides.
        message.held_at_ms += number / 2;
        if number == 5 {
            message.queue = "odd".into();
            message.envelope.recipients = super::envelope(&[PAUL, "Ann@Example.NET"]).recipients;
            message.reason = "Over 9_000".into();
            message.envelope.reverse_path = String::new();
        }
        bench.hold(&message).await;
    }
    let mut found = Vec::new();
    let mut filter = Filter {
        limit: Some(7),
        ..Filter::default()
    };
    loop {
        let page = bench.store.list(&filter).await.unwrap();
        found.extend(page.entries.into_iter().map(|entry| entry.id));
        filter.cursor = page.next;
        if filter.cursor.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..23).rev().map(|n| format!("list{n:02}")).collect();
    assert_eq!(found, expected);

    filters(bench).await;
    for id in expected {
        bench.store.delete(&id, "test").await.unwrap();
    }
}

/// Of the 23 entries of [`lists`].
async fn filters(bench: &Bench) {
    let text = |text: &str| Some(text.to_owned());
    for filter in [
        Filter {
            queue: text("odd"),
            ..Filter::default()
        },
        Filter {
            sender: text(""),
            ..Filter::default()
        },
        Filter {
            recipient: text("ANN@example.net"),
            ..Filter::default()
        },
        Filter {
            domain: text("EXAMPLE.net"),
            ..Filter::default()
        },
        Filter {
            reason: text("over 9_0"),
            ..Filter::default()
        },
    ] {
        assert_eq!(ids(bench, filter.clone()).await, ["list05"], "{filter:?}");
    }
    let since = 1_700_000_000_000 + 10;
    let times = Filter {
        since_ms: Some(since),
        until_ms: Some(since + 1),
        ..Filter::default()
    };
    assert_eq!(ids(bench, times).await, ["list21", "list20"]);
    // No wildcards from outside.
    for reason in ["100%x", "9%", "_ooks"] {
        let filter = Filter {
            reason: text(reason),
            ..Filter::default()
        };
        assert!(ids(bench, filter).await.is_empty(), "{reason}");
    }
    let domain = Filter {
        domain: text("example.org"),
        ..Filter::default()
    };
    assert_eq!(ids(bench, domain).await.len(), 22);
    for filter in [
        Filter {
            cursor: text("x"),
            ..Filter::default()
        },
        Filter {
            queue: text("a\0b"),
            ..Filter::default()
        },
    ] {
        assert!(matches!(
            bench.store.list(&filter).await,
            Err(StoreError::Request(_))
        ));
    }
}

async fn releases(bench: &Bench) {
    let (store, id) = (&bench.store, "release");
    bench.hold(&held(id, &[PAUL, ANN])).await;
    let all = ReleaseRequest::default();
    let stranger = store
        .begin_release(id, &to(&["eve@example.com"]), "edge1", "op")
        .await;
    assert!(matches!(stranger, Err(StoreError::NotARecipient { .. })));

    let release = store
        .begin_release(id, &to(&["Paul@example.com"]), "edge1", "op")
        .await
        .unwrap();
    assert_eq!(release.envelope, super::envelope(&[PAUL]));
    let octets = store.read_release(&release, 0).await.unwrap();
    assert_eq!(octets, MESSAGE);
    for _ in 0..2 {
        assert_eq!(
            store.finish_release(&release.id).await.unwrap(),
            Fate::Deliver
        );
    }
    let twice = store.begin_release(id, &to(&[PAUL]), "edge1", "op").await;
    assert!(matches!(twice, Err(StoreError::AlreadyReleased { .. })));
    let partly = store
        .begin_release(id, &to(&[PAUL, ANN]), "edge1", "op")
        .await;
    assert!(matches!(partly, Err(StoreError::AlreadyReleased { .. })));

    let rest = store.begin_release(id, &all, "edge1", "op").await.unwrap();
    assert_eq!(rest.envelope, super::envelope(&[ANN]));
    assert_eq!(store.finish_release(&rest.id).await.unwrap(), Fate::Deliver);
    let none = store.begin_release(id, &all, "edge1", "op").await;
    assert!(matches!(none, Err(StoreError::AlreadyReleased { .. })));
    let third = store
        .begin_release(id, &again(to(&[PAUL])), "edge1", "op")
        .await
        .unwrap();
    assert_ne!(third.id, release.id);
    assert_eq!(
        store.finish_release(&third.id).await.unwrap(),
        Fate::Deliver
    );

    let shown = store.show(id).await.unwrap();
    assert!(
        shown
            .status
            .iter()
            .all(|status| status.state == RecipientState::Released)
    );
    let acts: Vec<_> = shown
        .audit
        .iter()
        .map(|act| (act.by.as_str(), act.what.as_str()))
        .collect();
    assert_eq!(acts.len(), 4, "{acts:?}");
    assert_eq!(acts.last(), Some(&("op", "released")));
    store.delete(id, "test").await.unwrap();
}

async fn unfinished_releases(bench: &Bench) {
    let (store, id) = (&bench.store, "unfinished");
    bench.hold(&held(id, &[PAUL, ANN])).await;
    let first = store
        .begin_release(id, &ReleaseRequest::default(), "gone", "op")
        .await
        .unwrap();
    let busy = store.begin_release(id, &to(&[ANN]), "edge1", "op").await;
    assert!(matches!(busy, Err(StoreError::UnderWay { edge, .. }) if edge == "gone"));
    assert_eq!(
        store.unfinished_releases("gone").await.unwrap(),
        std::slice::from_ref(&first)
    );
    assert!(store.unfinished_releases("edge1").await.unwrap().is_empty());

    // Another edge takes one recipient over; the other is held again; the first edge comes back too late.
    let second = store
        .begin_release(id, &again(to(&[ANN])), "edge1", "op")
        .await
        .unwrap();
    assert_eq!(
        store.finish_release(&first.id).await.unwrap(),
        Fate::Withdraw
    );
    assert!(store.unfinished_releases("gone").await.unwrap().is_empty());
    assert_eq!(
        store.finish_release(&second.id).await.unwrap(),
        Fate::Deliver
    );
    let states: Vec<_> = store
        .show(id)
        .await
        .unwrap()
        .status
        .iter()
        .map(|status| status.state)
        .collect();
    assert_eq!(states, [RecipientState::Held, RecipientState::Released]);
    assert_eq!(
        store.finish_release("nobody knows").await.unwrap(),
        Fate::Deliver
    );
    store.delete(id, "test").await.unwrap();
}

async fn one_of_many_operators(bench: &Bench) {
    let id = "race";
    bench.hold(&held(id, &[PAUL])).await;
    let operators: Vec<_> = (0..8)
        .map(|number| {
            let store = bench.store.clone();
            tokio::spawn(async move {
                let by = format!("operator {number}");
                store
                    .begin_release(id, &ReleaseRequest::default(), "edge1", &by)
                    .await
            })
        })
        .collect();
    let mut won = 0;
    for operator in operators {
        match operator.await.unwrap() {
            Ok(_) => won += 1,
            Err(StoreError::UnderWay { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(won, 1);
    bench.store.delete(id, "test").await.unwrap();
}

async fn deletion(bench: &Bench) {
    let (store, id) = (&bench.store, "delete");
    let message = held(id, &[PAUL]);
    bench.hold(&message).await;
    let release = store
        .begin_release(id, &ReleaseRequest::default(), "edge1", "op")
        .await
        .unwrap();
    store.delete(id, "Zoe").await.unwrap();
    assert_eq!(
        store.finish_release(&release.id).await.unwrap(),
        Fate::Withdraw
    );
    assert!(store.read_release(&release, 0).await.is_err());
    // The edge crashed before it removed its pair, and hands it over once more.
    bench.hold(&message).await;
    for gone in [
        store.show(id).await.err(),
        content(store, id).await.err(),
        store.delete(id, "x").await.err(),
    ] {
        assert!(
            matches!(gone, Some(StoreError::Gone { what, by, .. }) if what == "deleted" && by == "Zoe")
        );
    }
    assert!(matches!(
        store.show("never").await,
        Err(StoreError::NotFound(_))
    ));
    assert!(ids(bench, Filter::default()).await.is_empty());
}

async fn expiry(bench: &Bench) {
    let store = &bench.store;
    let keep = u64::try_from(KEEP.as_millis()).unwrap();
    let now = now_ms();
    for (id, age) in [("old", keep), ("busy", keep), ("young", keep - 60_000)] {
        let held_at_ms = now - age;
        bench
            .hold(&crate::Held {
                held_at_ms,
                ..held(id, &[PAUL])
            })
            .await;
    }
    store
        .begin_release("busy", &ReleaseRequest::default(), "gone", "op")
        .await
        .unwrap();
    assert_eq!(store.expire(now).await.unwrap(), 1);
    assert_eq!(ids(bench, Filter::default()).await, ["young", "busy"]);
    assert!(matches!(store.show("old").await, Err(StoreError::Gone { by, .. }) if by == "expiry"));
    // An edge that does not come back in a week.
    sqlx::query("UPDATE quarantine_releases SET begun_at = begun_at - $1 WHERE entry = 'busy'")
        .bind(signed(8 * 24 * 3_600_000))
        .execute(store.pool().await.unwrap())
        .await
        .unwrap();
    assert_eq!(store.expire(now).await.unwrap(), 1);
    assert_eq!(store.expire(now + 60_000).await.unwrap(), 1);
    // In the end nothing is remembered.
    assert!(store.forget(now_ms() + keep).await.unwrap() > 3);
    assert!(matches!(
        store.show("old").await,
        Err(StoreError::NotFound(_))
    ));
    let rows: i64 = sqlx::query_scalar(
        "SELECT (SELECT COUNT(*) FROM quarantine_audit) + (SELECT COUNT(*) FROM quarantine_releases) + (SELECT COUNT(*) FROM quarantine_recipients)",
    )
    .fetch_one(store.pool().await.unwrap())
    .await
    .unwrap();
    assert_eq!(rows, 0);
}

async fn orphans(bench: &Bench) {
    let store = &bench.store;
    bench.hold(&held("kept", &[PAUL])).await;
    let file = bench.file(MESSAGE);
    let left = format!("edge1/left.{:x}", now_ms());
    let new = "edge1/new.7fffffffffff";
    let older_than_the_index = "edge1/old.1";
    for key in [&left, new, older_than_the_index] {
        store.contents().put(key, &file).await.unwrap();
    }
    let before = SystemTime::now() + Duration::from_mins(1);
    assert_eq!(store.remove_orphans(before).await.unwrap(), 1);
    assert_eq!(store.remove_orphans(before).await.unwrap(), 0);
    assert_eq!(content(store, "kept").await.unwrap(), MESSAGE);
    let len = MESSAGE.len() as u64;
    assert!(store.contents().read(&left, 0, len).await.is_err());
    for key in [new, older_than_the_index] {
        assert!(store.contents().read(key, 0, len).await.is_ok(), "{key}");
    }
}
