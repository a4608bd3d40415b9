//! The writer against SQLite: what is written, repeated, dropped and removed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use opes_proto::smtp::{Answer, Context, Fate, Point, Step, fate::Kind};
use serde_json::json;

use super::*;
use crate::event::Reader;
use crate::report::{By, Query, Report, report};

fn config(file: &Path, more: serde_json::Value) -> Config {
    let mut config = json!({ "database": { "sqlite": file }, "addresses": "full", "flushMs": 5 });
    if let (Some(config), serde_json::Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    Config::from_json(&config).unwrap()
}

fn started(config: &Config) -> (Writer, Metrics) {
    let metrics = Metrics::default();
    let store = Arc::new(Store::open(config).unwrap());
    (Writer::start(config, store, &metrics), metrics)
}

fn event(id: &str, at_ms: u64) -> Event {
    let reader = Reader {
        addresses: crate::address::Addresses::Full,
        outbound_listeners: Vec::new(),
    };
    let context = Context {
        event_id: id.into(),
        size: Some(10),
        answer: Some(Answer {
            at: Point::Content.into(),
            fates: vec![Fate {
                kind: Kind::Queued.into(),
                recipients: 1,
                code: 250,
                ..Fate::default()
            }],
            steps: vec![Step {
                rule: "default/a".into(),
                service: "default/b".into(),
                elapsed_us: 100,
                ..Step::default()
            }],
            elapsed_us: 1,
        }),
        ..Context::default()
    };
    reader.event(Point::Answered, &context, at_ms).unwrap()
}

async fn read(config: &Config) -> Report {
    let query = Query {
        since_ms: 0,
        until_ms: u64::MAX,
        by: vec![By::Service],
        rows_max: 10,
    };
    report(config, &query).await.unwrap()
}

fn messages(report: &Report) -> u64 {
    report.volume.iter().map(|row| row.messages).sum()
}

#[tokio::test]
async fn what_waits_is_written_at_the_end_and_what_comes_twice_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(
        &folder.path().join("new/r.sqlite"),
        json!({ "batchMax": 70, "stopMs": 10_000 }),
    );
    let (writer, metrics) = started(&config);
    for number in 0..1_000 {
        writer
            .queue
            .push(event(&format!("e{}", number % 500), now_ms()));
    }
    writer.stop().await;
    let report = read(&config).await;
    assert_eq!(messages(&report), 500);
    let mode = config.database.sqlite_file().metadata().unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    assert_eq!(report.services.as_ref().unwrap()[0].calls, 500);
    assert_eq!(metrics.written.get(), 1_000);
    assert_eq!(metrics.queued.get(), 0);
    assert!(report.losses.is_empty());
    // Nobody is there to write any more, and nobody waits.
    writer.queue.push(event("late", now_ms()));
    assert_eq!(metrics.dropped(Reason::Stopped), 1);
}

#[tokio::test]
async fn a_full_queue_drops_and_the_report_says_how_many() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.sqlite");
    let config = config(&file, json!({ "queueMax": 10, "batchMax": 5 }));
    // No database can be made where a folder stands.
    std::fs::create_dir(&file).unwrap();
    let (writer, metrics) = started(&config);
    for number in 0..100 {
        writer.queue.push(event(&format!("e{number}"), now_ms()));
        tokio::task::yield_now().await;
    }
    let dropped = metrics.dropped(Reason::Full);
    assert!((80..=95).contains(&dropped), "{dropped}");
    while metrics.failures.get() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::remove_dir(&file).unwrap();
    while metrics.written.get() + dropped < 100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    writer.stop().await;
    let report = read(&config).await;
    assert_eq!(messages(&report), 100 - dropped);
    let [loss] = report.losses.as_slice() else {
        panic!("{:?}", report.losses)
    };
    assert_eq!((loss.reason.as_str(), loss.events), ("full", dropped));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_database_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.sqlite");
    std::fs::create_dir(&file).unwrap();
    let config = config(&file, json!({ "stopMs": 300 }));
    let (writer, metrics) = started(&config);
    for number in 0..20 {
        writer.queue.push(event(&format!("e{number}"), now_ms()));
    }
    let begun = Instant::now();
    writer.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(metrics.dropped(Reason::Stopped), 20);
}

#[tokio::test]
async fn old_rows_go_in_steps_and_new_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder.path().join("r.sqlite"), json!({ "keepDays": 2 }));
    let store = Store::open(&config).unwrap();
    let day = 24 * 3_600_000;
    let now = now_ms();
    let old: Vec<_> = (0..2_500)
        .map(|n| event(&format!("o{n}"), now - 3 * day))
        .collect();
    let new: Vec<_> = (0..50)
        .map(|n| event(&format!("n{n}"), now - day))
        .collect();
    store.insert(&old, &[]).await.unwrap();
    store.insert(&new, &[]).await.unwrap();
    let first = store.expire(now - 2 * day).await.unwrap();
    assert!(first.more && first.rows <= 6 * 1_000, "{first:?}");
    assert_eq!(messages(&read(&config).await), 1_550);
    let (writer, _metrics) = started(&config);
    // Steps follow each other by themselves.
    while messages(&read(&config).await) > 50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    writer.stop().await;
    assert_eq!(messages(&read(&config).await), 50);
}

#[tokio::test]
async fn one_event_that_the_database_does_not_take_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder.path().join("r.sqlite"), json!({}));
    let store = Arc::new(Store::open(&config).unwrap());
    store.insert(&[event("first", 1)], &[]).await.unwrap();
    // A rule that the schema does not have, so that one of the rows breaks it.
    let file = config.database.sqlite_file();
    let pool = sqlx::any::AnyPoolOptions::new();
    let pool = pool.connect(&format!("sqlite://{}", file.display())).await;
    let trigger = "CREATE TRIGGER picky BEFORE INSERT ON report_events WHEN NEW.id = 'bad'
        BEGIN SELECT RAISE(ABORT, 'not this one'); END";
    sqlx::query(trigger).execute(&pool.unwrap()).await.unwrap();
    let metrics = Metrics::default();
    let writer = Writer::start(&config, store, &metrics);
    for id in ["a", "bad", "b"] {
        writer.queue.push(event(id, now_ms()));
    }
    writer.stop().await;
    assert_eq!(metrics.dropped(Reason::Rejected), 1);
    assert_eq!(messages(&read(&config).await), 3);
}
