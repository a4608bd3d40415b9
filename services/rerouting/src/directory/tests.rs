use std::path::Path;

use serde_json::json;

use super::*;

/// A table as a directory: LDAP is asked in the end-to-end tests.
async fn recipients(folder: &Path, more: serde_json::Value) -> Recipients {
    let file = folder.join("recipients.db");
    let url = format!("sqlite://{}?mode=rwc", file.display());
    sqlx::any::install_default_drivers();
    let mut connection = <sqlx::AnyConnection as sqlx::Connection>::connect(&url)
        .await
        .unwrap();
    for statement in [
        "CREATE TABLE IF NOT EXISTS routes (address TEXT, routing TEXT, host TEXT)",
        "DELETE FROM routes",
        "INSERT INTO routes VALUES
            ('joe@example.org', 'joe@fr.example.org', NULL), ('ann@example.org', NULL, 'mx.de.example.org'),
            ('ops@example.org', 'ops@example.net', '[2001:db8::25]:24/lmtp'), ('here@example.org', NULL, ''),
            ('self@example.org', 'Self@example.org', NULL),
            ('two@example.org', 'a@example.org', NULL), ('two@example.org', 'b@example.org', NULL),
            ('bad@example.org', 'nobody', NULL), ('hop@example.org', NULL, 'mx.example.org:0'),
            ('utf@example.org', 'jürgen@example.org', NULL), ('@example.net', '@it.example.net', NULL)",
    ] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    let url = format!("sqlite://{}", file.display());
    let query = "SELECT address AS name, routing AS \"mailRoutingAddress\", host AS \"mailHost\" FROM routes WHERE address = :s";
    let config = json!({ "sql": { "url": url, "query": query } });
    Recipients::new(
        &serde_json::from_value(config).unwrap(),
        serde_json::from_value(more).unwrap(),
        Metrics::default(),
    )
    .unwrap()
}

async fn located(recipients: &Recipients, address: &str) -> anyhow::Result<Located> {
    recipients
        .locate(&ForwardPath::parse(address).unwrap())
        .await
}

/// `address|next hop`, `here`, `unknown`.
async fn said(recipients: &Recipients, address: &str) -> String {
    match located(recipients, address).await.unwrap() {
        Located::Here => "here".to_owned(),
        Located::Unknown => "unknown".to_owned(),
        Located::At(route) => {
            let address = route.address.map(|address| address.to_string());
            let next_hop = route.next_hop.map(|next_hop| next_hop.to_string());
            format!(
                "{}|{}",
                address.unwrap_or_default(),
                next_hop.unwrap_or_default()
            )
        }
    }
}

#[tokio::test]
async fn entries_say_where_recipients_live() {
    let folder = tempfile::tempdir().unwrap();
    let directory = recipients(folder.path(), json!({})).await;
    for (address, expected) in [
        ("joe@example.org", "joe@fr.example.org|"),
        ("JOE@Example.ORG", "joe@fr.example.org|"),
        ("\"joe\"@example.org", "joe@fr.example.org|"),
        ("joe+news@example.org", "joe+news@fr.example.org|"),
        ("ann@example.org", "|mx.de.example.org:25"),
        ("ops@example.org", "ops@example.net|[2001:db8::25]:24/lmtp"),
        ("here@example.org", "here"),
        ("self@example.org", "Self@example.org|"),
        ("Self@example.org", "here"),
        ("nobody@example.org", "unknown"),
        ("bob@example.net", "unknown"),
        ("postmaster@example.org", "here"),
        ("postmaster", "here"),
    ] {
        assert_eq!(said(&directory, address).await, expected, "{address}");
    }
}

#[tokio::test]
async fn what_is_asked_for_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let options = json!({ "askFor": ["address", "domain"], "domains": ["Example.NET"], "answer": { "nextHopPort": 2525 } });
    let directory = recipients(folder.path(), options).await;
    for (address, expected) in [
        ("bob+x@example.net", "bob+x@it.example.net|"),
        ("joe@example.org", "here"),
        ("postmaster", "here"),
    ] {
        assert_eq!(said(&directory, address).await, expected, "{address}");
    }
    for wrong in [
        json!([]),
        json!(["address", "address"]),
        json!(["address", "domain", "address"]),
        json!(["name"]),
    ] {
        assert!(
            serde_json::from_value::<Questions>(wrong.clone()).is_err(),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_not_one_is_an_error_that_names_the_entry() {
    let folder = tempfile::tempdir().unwrap();
    let directory = recipients(folder.path(), json!({})).await;
    for (address, expected) in [
        (
            "two@example.org",
            "2 entries for one recipient (row 1; row 2",
        ),
        ("bad@example.org", "entry `row 1`: `nobody` is no address"),
        (
            "hop@example.org",
            "entry `row 1`: `mx.example.org:0` is no next hop",
        ),
        ("utf@example.org", "is not US-ASCII"),
    ] {
        let error = located(&directory, address).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{address}: {error}");
    }
    let entry = Entry::new("uid=joe").with("mailHost", ["a".to_owned(), "b".to_owned()]);
    let error = one(&entry, "mailHost").unwrap_err().to_string();
    assert_eq!(
        error,
        "directory entry `uid=joe` has 2 values of mailHost; one or none is meant"
    );
}
