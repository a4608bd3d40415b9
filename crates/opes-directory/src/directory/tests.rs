use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::json;

use crate::ldap::tests::{Says, Server, ask};
use crate::{Directory, DirectoryConfig, Inputs, LookupError, Metrics};

#[tokio::test]
async fn one_question_for_all_who_ask_the_same_and_none_for_what_is_known() {
    let server = Server::start(Says::Entries(1)).await;
    let directory = server.directory(json!({}));
    let asked = (0..200).map(|_| ask(&directory, "joe@example.org"));
    for answer in futures_util::future::join_all(asked).await {
        assert!(answer.unwrap().is_found());
    }
    assert_eq!(server.searches(), 1);
    // "Unknown" is known too.
    server.say(Says::Entries(0));
    for _ in 0..3 {
        assert!(!ask(&directory, "ann@example.org").await.unwrap().is_found());
    }
    assert_eq!(server.searches(), 2);
}

#[tokio::test]
async fn found_and_missing_have_times_of_their_own() {
    let server = Server::start(Says::Entries(1)).await;
    let directory =
        server.directory(json!({ "cache": { "foundSeconds": 600, "missingSeconds": 0 } }));
    for _ in 0..2 {
        ask(&directory, "joe@example.org").await.unwrap();
    }
    assert_eq!(server.searches(), 1);
    server.say(Says::Entries(0));
    for _ in 0..2 {
        ask(&directory, "ann@example.org").await.unwrap();
    }
    assert_eq!(server.searches(), 3);
}

#[tokio::test]
async fn errors_are_not_kept_and_open_the_breaker() {
    let server = Server::start(Says::Nothing).await;
    // Enough for each question to reach the server.
    let directory = server.directory(json!({ "timeoutMs": 1000 }));
    for _ in 0..3 {
        let error = ask(&directory, "joe@example.org").await.unwrap_err();
        assert!(matches!(error, LookupError::Timeout { .. }), "{error}");
    }
    assert_eq!(server.searches(), 3);
    // On a busy machine the pause may be over; then one is let through, and the next pause is longer.
    let mut searches = 3;
    let mut error = ask(&directory, "joe@example.org").await.unwrap_err();
    while server.searches() > searches && searches < 6 {
        searches = server.searches();
        error = ask(&directory, "joe@example.org").await.unwrap_err();
    }
    assert!(matches!(error, LookupError::Open { .. }), "{error}");
    assert_eq!(server.searches(), searches);
    server.say(Says::Entries(1));
    let back = async {
        while ask(&directory, "joe@example.org").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), back)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_answer_that_comes_after_whoever_asked_has_left_is_kept() {
    let server = Server::start(Says::Entries(1)).await;
    let directory = server.directory(json!({}));
    // Polled once: the question is put, and no answer can have come yet.
    assert!(ask(&directory, "joe@example.org").now_or_never().is_none());
    let found = async {
        while server.searches() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ask(&directory, "joe@example.org").await
    };
    let found = tokio::time::timeout(Duration::from_secs(30), found).await;
    assert!(found.unwrap().unwrap().is_found());
}

#[tokio::test]
async fn what_has_no_value_is_unknown_and_not_asked_for() {
    let server = Server::start(Says::Entries(1)).await;
    let directory = server.directory(json!({}));
    for inputs in [
        Inputs::default(),
        Inputs::default().with("s", ""),
        Inputs::default().with("s", "x".repeat(5000)),
        Inputs::default().with("s", "a\0b"),
    ] {
        assert!(!directory.look_up(&inputs).await.unwrap().is_found());
    }
    assert_eq!(server.searches(), 0);
}

#[test]
fn it_is_one_kind_of_directory() {
    let new = |config| {
        let config: DirectoryConfig = serde_json::from_value(config).unwrap();
        let made = Directory::new("x", &config, &["s"], &[], Metrics::default());
        made.unwrap_err().to_string()
    };
    let ldap = json!({ "url": "ldapi:///run/x", "base": "", "filter": "(mail=%s)" });
    let sql = json!({ "url": "sqlite:///x", "query": "SELECT :s" });
    assert_eq!(new(json!({})), "write either `ldap:` or `sql:`");
    assert_eq!(
        new(json!({ "ldap": ldap, "sql": sql })),
        "write either `ldap:` or `sql:`"
    );
    let wrong =
        new(json!({ "ldap": { "url": "ldapi:///run/x", "base": "", "filter": "mail=%s" } }));
    assert!(wrong.starts_with("ldap.filter: expected `(`"), "{wrong}");
    let wrong = new(json!({ "sql": { "url": "sqlite:///x", "query": "SELECT :x" } }));
    assert!(wrong.starts_with("sql.query: there is no `:x`"), "{wrong}");
}
