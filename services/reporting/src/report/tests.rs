//! What is read back, from rows whose sums can be done by head. PostgreSQL gets the same in tests/e2e.

use opes_proto::smtp::{
    Address, Answer, Context, Delivery, Fate, Point, Step, fate::Kind, step::Result as Results,
};
use serde_json::json;

use super::*;
use crate::address::Addresses;
use crate::event::{Event, Reader};
use crate::store::Store;

const HOUR_MS: u64 = 3_600_000;

fn event(id: u64, at_ms: u64, point: Point, context: Context) -> Event {
    let reader = Reader {
        addresses: Addresses::Domains,
        outbound_listeners: Vec::new(),
    };
    let context = Context {
        event_id: format!("{point:?}{id}"),
        recipients: vec![Address {
            address: "a@example.com".into(),
            parameters: Vec::new(),
        }],
        ..context
    };
    reader.event(point, &context, at_ms).unwrap()
}

/// A call of `elapsed_us` for a message of 10 octets.
fn message(id: u64, at_ms: u64, elapsed_us: u64, failure: &str) -> Event {
    let step = Step {
        rule: "default/scan".into(),
        service: "default/scanner".into(),
        result: Results::Accept.into(),
        elapsed_us,
        failure: failure.into(),
    };
    let action = Step {
        rule: "default/mark".into(),
        result: Results::Change.into(),
        ..Step::default()
    };
    let answer = Answer {
        at: Point::Content.into(),
        fates: vec![Fate {
            kind: Kind::Queued.into(),
            recipients: 1,
            code: 250,
            ..Fate::default()
        }],
        steps: vec![step, action],
        elapsed_us,
    };
    let context = Context {
        size: Some(10),
        answer: Some(answer),
        ..Context::default()
    };
    event(id, at_ms, Point::Answered, context)
}

fn attempt(id: u64, at_ms: u64, point: Point, elapsed_ms: u64) -> Event {
    let context = Context {
        delivery: Some(Delivery {
            elapsed_ms,
            ..Delivery::default()
        }),
        ..Context::default()
    };
    event(id, at_ms, point, context)
}

async fn filled(folder: &Path, events: &[Event]) -> Config {
    let config = json!({ "database": { "sqlite": folder.join("r.sqlite") } });
    let config = Config::from_json(&config).unwrap();
    let store = Store::open(&config).unwrap();
    store.insert(events, &[]).await.unwrap();
    config
}

fn all(since_ms: u64, until_ms: u64) -> Query {
    Query {
        since_ms,
        until_ms,
        by: vec![By::Service, By::Rule, By::Domain, By::Hour],
        rows_max: ROWS_MAX,
    }
}

#[tokio::test]
async fn percentiles_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    // 1 to 200 µs in an order of no kind.
    let mut events: Vec<_> = (0..200)
        .map(|n| message(n, 5, n * 77 % 200 + 1, ""))
        .collect();
    events.push(message(999, 9, 1_000_000, "timeout"));
    let config = filled(folder.path(), &events).await;
    let read = report(&config, &all(0, 9)).await.unwrap();
    let services = read.services.unwrap();
    assert_eq!(
        services[0].latency_us,
        Latency {
            p50: Some(100),
            p90: Some(180),
            p99: Some(198)
        }
    );
    let with_failure = report(&config, &all(0, 10)).await.unwrap();
    let services = with_failure.services.unwrap();
    assert_eq!(
        services[0].results,
        [
            ("accept".to_owned(), 200),
            ("failed: timeout".to_owned(), 1)
        ]
    );
    let rules = with_failure.rules.unwrap();
    let rules: Vec<_> = rules
        .iter()
        .map(|rule| (rule.rule.as_str(), rule.runs))
        .collect();
    assert_eq!(rules, [("default/mark", 201), ("default/scan", 201)]);
}

#[tokio::test]
async fn times_bound_every_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut events = Vec::new();
    for hour in 0..4 {
        let at = hour * HOUR_MS;
        events.push(message(hour, at, 1, ""));
        events.push(attempt(hour, at, Point::Delivered, hour));
        events.push(attempt(hour, at, Point::Deferred, hour));
    }
    let config = filled(folder.path(), &events).await;
    let read = report(&config, &all(HOUR_MS, 3 * HOUR_MS)).await.unwrap();
    assert_eq!(read.volume[0].messages, 2);
    assert_eq!((read.volume[0].octets, read.volume[0].recipients), (20, 2));
    assert_eq!((read.fates[0].events, read.fates[0].recipients), (2, 2));
    let attempts: Vec<_> = read
        .attempts
        .iter()
        .map(|row| (row.outcome.as_str(), row.attempts, row.latency_us.p99))
        .collect();
    assert_eq!(
        attempts,
        [("deferred", 2, Some(2000)), ("delivered", 2, Some(2000))]
    );
    let hours: Vec<_> = read.hours.unwrap().iter().map(|row| row.hour_ms).collect();
    assert_eq!(hours, [2 * HOUR_MS, HOUR_MS]);
    let domains = read.domains.unwrap();
    assert_eq!(domains.len(), 1);
    let domain = &domains[0];
    assert_eq!(
        (
            domain.domain.as_str(),
            domain.messages,
            domain.delivered,
            domain.deferred,
            domain.bounced
        ),
        ("example.com", 2, 2, 2, 0)
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_said_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.sqlite");
    let config = Config::from_json(&json!({ "database": { "sqlite": file } })).unwrap();
    let said = async |query: Query| report(&config, &query).await.unwrap_err().to_string();
    assert!(said(all(0, 1)).await.contains("there is no database"));
    assert!(!file.exists());
    std::fs::write(&file, "").unwrap();
    assert!(said(all(0, 1)).await.contains("no schema 1"));
    std::fs::write(&file, "not a database at all, and longer than a header of one would be, which has 100 octets; so this is more").unwrap();
    assert!(said(all(0, 1)).await.contains("not a database"));
    assert!(said(all(5, 5)).await.contains("not before"));
}
