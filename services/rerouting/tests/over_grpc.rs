//! The service as a processor sees it: over the real binding.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use opes_callout_client::{
    Answer, CalloutError, ContentWant, Group, Request, ServiceClient, ServiceClientConfig,
};
use opes_callout_server::{Listener, ServerConfig, serve};
use opes_proto::smtp::{Address, Context, NextHop, Permission, Point};
use opes_rerouting::Rerouting;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);

async fn start(service: Rerouting) -> ServiceClient {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{listener}");
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(
        Arc::new(service),
        listener,
        ServerConfig::default(),
        shutdown,
    ));
    ServiceClient::new(ServiceClientConfig::new("rerouting", target))
}

fn request(point: Point, line: Option<&str>, recipients: &[&str]) -> Request {
    let recipients = recipients
        .iter()
        .map(|address| Address {
            address: (*address).to_owned(),
            parameters: Vec::new(),
        })
        .collect();
    let allow = vec![Permission::Recipients, Permission::Route];
    Request {
        group: Arc::new(Group {
            rule: "mail/reroute".to_owned(),
            allow,
            ..Group::default()
        }),
        point,
        command_line: line.map(|line| Bytes::copy_from_slice(line.as_bytes())),
        context: Arc::new(Context {
            recipients,
            ..Context::default()
        }),
        content: None,
        content_want: ContentWant::None,
        timeout: DEADLINE,
        traceparent: String::new(),
    }
}

async fn rcpt(client: &ServiceClient, line: &str) -> Result<Answer, CalloutError> {
    client.run(request(Point::RcptTo, Some(line), &[])).await
}

fn new_line(answer: &Answer) -> Option<&str> {
    answer
        .command_line
        .as_deref()
        .map(|line| std::str::from_utf8(line).unwrap())
}

fn next_hop(answer: &Answer) -> Option<&NextHop> {
    answer
        .outcome
        .envelope
        .as_ref()?
        .recipients
        .first()?
        .next_hop
        .as_ref()
}

fn inline() -> Rerouting {
    Rerouting::from_config(&serde_json::json!({ "map": {
        "joe@example.org": "joe@fr.example.org",
        "@example.net": { "nextHop": "mx.de.example.org:24/lmtp" },
        "@long.example.org": format!("@{}.example.org", ["a"; 100].join(".")),
    }}))
    .unwrap()
}

#[tokio::test]
async fn the_line_comes_back_with_its_parameters() {
    let client = start(inline()).await;
    let line = "rcpt to: <Joe+news@example.org> ORCPT=rfc822;Joe+news@example.org NOTIFY=FAILURE";
    let answer = rcpt(&client, line).await.unwrap();
    assert_eq!(
        new_line(&answer),
        Some("RCPT TO:<joe+news@fr.example.org> ORCPT=rfc822;Joe+news@example.org NOTIFY=FAILURE")
    );
    assert_eq!(next_hop(&answer), None);
    assert_eq!(
        answer.outcome.reason,
        "map entry `joe@example.org`: rewritten"
    );
}

#[tokio::test]
async fn the_next_hop_comes_without_a_new_line() {
    let client = start(inline()).await;
    let answer = rcpt(&client, "RCPT TO:<ann@example.net>").await.unwrap();
    assert_eq!(new_line(&answer), None);
    let expected = NextHop {
        host: "mx.de.example.org".to_owned(),
        port: 24,
        lmtp: true,
    };
    assert_eq!(next_hop(&answer), Some(&expected));
}

#[tokio::test]
async fn strangers_and_other_commands_go_on_as_they_are() {
    let client = start(inline()).await;
    let stranger = rcpt(&client, "RCPT TO:<paul@example.com>").await.unwrap();
    assert_eq!(
        (new_line(&stranger), &stranger.outcome.envelope),
        (None, &None)
    );
    let mail = request(Point::MailFrom, Some("MAIL FROM:<joe@example.org>"), &[]);
    assert_eq!(new_line(&client.run(mail).await.unwrap()), None);
}

#[tokio::test]
async fn impossible_results_are_failures_and_leave_the_connection_usable() {
    let client = start(inline()).await;
    let line = format!("RCPT TO:<{}@long.example.org>", "x".repeat(64));
    let failed = rcpt(&client, &line).await;
    assert!(
        matches!(failed, Err(CalloutError::Failed { .. })),
        "{failed:?}"
    );
    assert!(rcpt(&client, "RCPT TO:<joe@example.org>").await.is_ok());
}

#[tokio::test]
async fn accepted_recipients_are_routed_one_by_one() {
    let client = start(inline()).await;
    let recipients = ["paul@example.com", "joe@example.org", "ann@example.net"];
    let answer = client
        .run(request(Point::Routing, None, &recipients))
        .await
        .unwrap();
    let changes = answer.outcome.envelope.unwrap().recipients;
    let seen: Vec<_> = changes
        .iter()
        .map(|change| {
            (
                change.original.as_str(),
                change.address.as_str(),
                change.next_hop.is_some(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("joe@example.org", "joe@fr.example.org", false),
            ("ann@example.net", "", true)
        ]
    );
}

#[tokio::test]
async fn an_edited_map_comes_into_force() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routes.map");
    fs::write(&path, "joe@example.org joe@fr.example.org\n").unwrap();
    let config = serde_json::json!({ "mapFile": &path });
    let client = start(Rerouting::from_config(&config).unwrap()).await;
    let line = "RCPT TO:<joe@example.org>";
    assert_eq!(
        new_line(&rcpt(&client, line).await.unwrap()),
        Some("RCPT TO:<joe@fr.example.org>")
    );
    fs::write(&path, "joe@example.org joe@italy.example.org\n").unwrap();
    let given_up = Instant::now() + DEADLINE;
    while new_line(&rcpt(&client, line).await.unwrap()) != Some("RCPT TO:<joe@italy.example.org>") {
        assert!(
            Instant::now() < given_up,
            "the new map did not come into force"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn configurations_that_say_nothing_are_refused_with_the_remedy() {
    let refused = |json| format!("{:#}", Rerouting::from_config(&json).unwrap_err());
    let bad = [
        serde_json::Value::Null,
        serde_json::json!({}),
        serde_json::json!({ "mapfile": "x" }),
        serde_json::json!({ "mapFile": "x", "map": {} }),
    ];
    for json in bad {
        assert!(
            refused(json.clone()).contains("write either `mapFile: PATH` or `map:`"),
            "{json}"
        );
    }
    let missing = refused(serde_json::json!({ "mapFile": "no-such.map" }));
    assert!(missing.contains("no-such.map: No such file"), "{missing}");
}

#[test]
fn the_example_with_a_directory_is_a_configuration() {
    let text = include_str!("../../../examples/with-external-services/rerouting-ldap.yaml");
    let object = text.split("\n---\n").next().unwrap();
    let object: serde_json::Value = serde_saphyr::from_str(object).unwrap();
    Rerouting::from_config(&object["spec"]["builtin"]["config"]).unwrap();
}
