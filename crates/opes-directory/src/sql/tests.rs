use std::path::Path;

use serde_json::json;
use sqlx::Connection as _;

use crate::{Directory, DirectoryConfig, Inputs, LookupError, Metrics};

async fn fill(file: &Path) {
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}?mode=rwc", file.display());
    let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
    for statement in [
        "CREATE TABLE access (address TEXT, verdict TEXT, level INTEGER, note TEXT)",
        "INSERT INTO access VALUES ('joe@example.org', 'REJECT', 3, NULL)",
        "INSERT INTO access VALUES ('twice@example.org', 'OK', 1, 'a'), ('twice@example.org', 'OK', 2, 'b')",
    ] {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    connection.close().await.unwrap();
}

fn directory(file: &Path, query: &str, more: serde_json::Value) -> Directory {
    let url = format!("sqlite://{}", file.display());
    let mut config = json!({ "sql": { "url": url, "query": query } });
    if let (Some(config), serde_json::Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    let config: DirectoryConfig = serde_json::from_value(config).unwrap();
    Directory::new("access", &config, &["s"], &[], Metrics::default()).unwrap()
}

fn inputs(address: &str) -> Inputs {
    Inputs::default().with("s", address)
}

const QUERY: &str = "SELECT verdict, level, note FROM access WHERE address = :s -- or not";

#[tokio::test]
async fn rows_are_entries_and_addresses_are_values() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access list.db");
    fill(&file).await;
    let access = directory(&file, QUERY, json!({}));
    let answer = access.look_up(&inputs("joe@example.org")).await.unwrap();
    let [row] = &answer.entries[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (row.values("Verdict"), row.values("level")),
        (&["REJECT".to_owned()][..], &["3".to_owned()][..])
    );
    assert!(row.values("note").is_empty());
    for attack in [
        "' OR '1'='1",
        "x'; DROP TABLE access; --",
        "%",
        "joe@example.org' --",
    ] {
        assert!(
            !access.look_up(&inputs(attack)).await.unwrap().is_found(),
            "{attack}"
        );
    }
    let answer = access.look_up(&inputs("twice@example.org")).await.unwrap();
    assert_eq!(answer.entries.len(), 2);
}

#[tokio::test]
async fn bounds_and_mistakes_have_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.db");
    let absent = directory(&file, QUERY, json!({}));
    let error = absent.look_up(&inputs("a@example.org")).await.unwrap_err();
    assert!(error.to_string().starts_with("access "), "{error}");
    assert!(!file.exists(), "a database was made");
    fill(&file).await;
    for (query, more, said) in [
        (QUERY, json!({ "entriesMax": 1 }), "entriesMax (1)"),
        (QUERY, json!({ "sizeMax": 10 }), "sizeMax"),
        (
            "SELECT x FROM nowhere WHERE a = :s",
            json!({}),
            "no such table",
        ),
        (
            "SELECT x'ff' AS v FROM access WHERE address = :s",
            json!({}),
            "cast",
        ),
    ] {
        let access = directory(&file, query, more);
        let error = access
            .look_up(&inputs("twice@example.org"))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(said), "{query}: {error}");
    }
}

#[tokio::test]
async fn a_database_that_does_not_answer_costs_the_time_and_no_more() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://opes@{}/mail", silent.local_addr().unwrap());
    let config =
        json!({ "sql": { "url": url, "query": "SELECT 1 WHERE 'a' = :s" }, "timeoutMs": 100 });
    let config: DirectoryConfig = serde_json::from_value(config).unwrap();
    let access = Directory::new("access", &config, &["s"], &[], Metrics::default()).unwrap();
    let error = access.look_up(&inputs("a@example.org")).await.unwrap_err();
    assert!(
        matches!(
            error,
            LookupError::Timeout { .. } | LookupError::Unreachable { .. }
        ),
        "{error}"
    );
}

#[test]
fn urls_that_are_none_or_unsafe() {
    let folder = tempfile::tempdir().unwrap();
    let new = |sql: serde_json::Value| {
        let config: DirectoryConfig = serde_json::from_value(json!({ "sql": sql })).unwrap();
        Directory::new("access", &config, &["s"], &[], Metrics::default())
    };
    for (url, said) in [
        ("mysql://db.example.org/mail", "write postgres://"),
        ("access.db", "write postgres://"),
        ("sqlite:access.db", "the whole path"),
        ("sqlite:///a.db?mode=rwc", "the whole path"),
        ("postgres:///mail", "name the host"),
        (
            "postgres://u:secret@db.example.org/mail",
            "sql.passwordFile",
        ),
        (
            "postgres://u@db.example.org/mail?sslmode=prefer",
            "in the clear to db.example.org",
        ),
        (
            "postgres://u@localhost/mail?host=db.example.org&sslmode=require",
            "in the clear to db.example.org",
        ),
    ] {
        let error = new(json!({ "url": url, "query": "SELECT :s" }))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("sql.url: ") && error.contains(said),
            "{url}: {error}"
        );
        assert!(!error.contains("secret"), "{error}");
    }
    let password = folder.path().join("password");
    std::fs::write(&password, "p@ss/word\n").unwrap();
    for sql in [
        json!({ "url": "postgres://u@db.example.org/mail", "passwordFile": password }),
        json!({ "url": "postgres://u@db.example.org/mail?sslmode=disable", "insecurePlaintext": true }),
        json!({ "url": "postgres://u@127.0.0.1/mail?sslmode=disable" }),
        json!({ "url": "postgres://u@localhost/mail?host=/run/postgresql" }),
    ] {
        let mut sql = sql;
        sql["query"] = "SELECT :s".into();
        let made = new(sql).unwrap();
        assert!(!format!("{made:?}").contains("p@ss"));
    }
}
