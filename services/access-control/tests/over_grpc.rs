//! The service as a processor sees it: over the real binding, command by command.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use opes_access_control::AccessControl;
use opes_callout_client::{
    Answer, CalloutError, ContentWant, Group, Request, ServiceClient, ServiceClientConfig,
};
use opes_callout_server::{Listener, ServerConfig, serve};
use opes_proto::smtp::{Address, Auth, Client, Context, Permission, Point, Tls};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);
const POLICY: &str = r#"
default: allow
rules:
  - name: staff-only
    action: deny
    recipient: staff@example.com
    authenticated: false
    reply: { code: 550, enhanced: 5.7.2, text: "Only staff may write to this list" }
  - { name: competitors, action: deny, sender: "@example.net" }
  - { name: bad-net, action: deny, client: 198.51.100.0/24 }
  - { name: partners, action: allow, sender: .example.org }
"#;

async fn start(service: AccessControl) -> ServiceClient {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{listener}");
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(
        Arc::new(service),
        listener,
        ServerConfig::default(),
        shutdown,
    ));
    ServiceClient::new(ServiceClientConfig::new("access-control", target))
}

fn inline(policy: &serde_json::Value) -> AccessControl {
    AccessControl::from_config(policy).unwrap()
}

fn from_file(path: &Path) -> AccessControl {
    AccessControl::from_config(&serde_json::json!({ "policyFile": path })).unwrap()
}

fn context(sender: Option<&str>) -> Context {
    Context {
        client: Some(Client {
            ip: "192.0.2.7".to_owned(),
            port: 40_000,
        }),
        helo: "mx.example.org".to_owned(),
        mail_from: sender.map(|sender| Address {
            address: sender.to_owned(),
            parameters: Vec::new(),
        }),
        ..Context::default()
    }
}

async fn ask(
    client: &ServiceClient,
    point: Point,
    line: &str,
    context: Context,
) -> Result<Answer, CalloutError> {
    let group = Group {
        rule: "mail/access".to_owned(),
        allow: vec![Permission::Reject],
        ..Group::default()
    };
    client
        .run(Request {
            group: Arc::new(group),
            point,
            command_line: Some(Bytes::copy_from_slice(line.as_bytes())),
            context: Arc::new(context),
            content: None,
            content_want: ContentWant::None,
            timeout: DEADLINE,
            traceparent: String::new(),
        })
        .await
}

/// `code enhanced text`, or `proceed`.
fn reply(answer: &Answer) -> String {
    let Some(reply) = answer
        .outcome
        .verdict
        .as_ref()
        .and_then(|verdict| verdict.reply.as_ref())
    else {
        return "proceed".to_owned();
    };
    format!(
        "{} {} {}",
        reply.code,
        reply.enhanced,
        reply.lines.join("|")
    )
}

async fn mail(client: &ServiceClient, sender: &str) -> String {
    let line = format!("MAIL FROM:<{sender}> SIZE=1000");
    reply(
        &ask(client, Point::MailFrom, &line, context(None))
            .await
            .unwrap(),
    )
}

async fn rcpt(client: &ServiceClient, sender: &str, recipient: &str) -> String {
    let line = format!("RCPT TO:<{recipient}>");
    reply(
        &ask(client, Point::RcptTo, &line, context(Some(sender)))
            .await
            .unwrap(),
    )
}

#[tokio::test]
async fn commands_are_answered_as_the_policy_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.yaml");
    fs::write(&path, POLICY).unwrap();
    let client = start(from_file(&path)).await;
    assert_eq!(
        mail(&client, "joe@example.net").await,
        "550 5.7.1 Sender address not accepted here"
    );
    assert_eq!(mail(&client, "").await, "proceed");
    assert_eq!(mail(&client, "joe@example.org").await, "proceed");
    assert_eq!(
        rcpt(&client, "a@b.example.org", "paul@example.com").await,
        "proceed"
    );
    assert_eq!(
        rcpt(&client, "a@b.example.org", "\"Staff\"@Example.com").await,
        "550 5.7.2 Only staff may write to this list"
    );
}

#[tokio::test]
async fn helo_is_judged_in_its_own_reply() {
    let client = start(inline(&serde_json::json!({ "default": "allow", "rules": [
        { "name": "bad-helo", "action": "deny", "helo": ".example.net" },
    ]})))
    .await;
    // The context has what was said before.
    for (line, before, expected) in [
        (
            "EHLO mx.example.net",
            "",
            "550  Your host name (HELO) is not accepted here",
        ),
        (
            "EHLO mx.example.net",
            "mx.example.org",
            "550  Your host name (HELO) is not accepted here",
        ),
        ("HELO mx.example.org", "mx.example.net", "proceed"),
        ("EHLO [192.0.2.7] ", "", "proceed"),
    ] {
        let context = Context {
            helo: before.to_owned(),
            ..context(None)
        };
        let answer = ask(&client, Point::Helo, line, context).await.unwrap();
        assert_eq!(reply(&answer), expected, "{line}");
    }
}

#[tokio::test]
async fn identity_client_and_tls_count() {
    let client = start(inline(&serde_json::json!({ "default": "deny", "rules": [
        { "name": "bad-net", "action": "deny", "client": "198.51.100.0/24" },
        { "name": "no-plain", "action": "deny", "tls": false },
        { "name": "users", "action": "allow", "authenticated": true },
    ]})))
    .await;
    let mut context = context(None);
    let line = "MAIL FROM:<joe@example.org>";
    let plain = ask(&client, Point::MailFrom, line, context.clone())
        .await
        .unwrap();
    assert_eq!(
        reply(&plain),
        "530 5.7.0 Must issue a STARTTLS command first"
    );
    context.tls = Some(Tls::default());
    let anonymous = ask(&client, Point::MailFrom, line, context.clone())
        .await
        .unwrap();
    assert_eq!(
        reply(&anonymous),
        "550 5.7.1 Not permitted by the access policy of this host"
    );
    assert_eq!(
        anonymous.outcome.reason,
        "no rule allows it (default: deny)"
    );
    context.auth = Some(Auth {
        mechanism: "PLAIN".to_owned(),
        identity: "joe".to_owned(),
    });
    let user = ask(&client, Point::MailFrom, line, context.clone())
        .await
        .unwrap();
    assert_eq!(reply(&user), "proceed");
    assert_eq!(user.outcome.annotations["access-control.rule"], "users");
    context.client = Some(Client {
        ip: "::ffff:198.51.100.9".to_owned(),
        port: 1,
    });
    let connect = ask(&client, Point::Connect, "", context.clone())
        .await
        .unwrap();
    assert_eq!(
        reply(&connect),
        "554  Mail from your network is not accepted here"
    );
    assert!(
        connect
            .outcome
            .reason
            .contains("rule `bad-net`: 198.51.100.0/24")
    );
}

async fn database(file: &Path) {
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}?mode=rwc", file.display());
    let mut connection = <sqlx::AnyConnection as sqlx::Connection>::connect(&url)
        .await
        .unwrap();
    for statement in [
        "CREATE TABLE bad (value TEXT)",
        "INSERT INTO bad VALUES ('192.0.2.66'), ('bad.example.net'), ('mallory'), ('x@example.net'), ('closed@example.com')",
    ] {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
}

fn policy_that_asks(file: &Path) -> serde_json::Value {
    let url = format!("sqlite://{}", file.display());
    let rule = |key: &str| {
        let lookup = serde_json::json!({ "in": "bad", "key": key });
        serde_json::json!({ "name": key, "action": "deny", "lookup": lookup })
    };
    serde_json::json!({
        "default": "allow",
        "lookups": {
            "bad": { "sql": { "url": url, "query": "SELECT value FROM bad WHERE value = :s" } },
            "clear": { "sql": { "url": url, "query": "SELECT 1 AS x WHERE :tls = 'false' AND :sender_domain = 'bank.example'" } },
        },
        "rules": [
            rule("client"), rule("helo"), rule("auth"), rule("sender"), rule("recipient"),
            { "name": "clear", "action": "deny", "lookup": { "in": "clear" } },
        ],
    })
}

#[tokio::test]
async fn a_database_is_asked_at_each_command_about_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.db");
    database(&file).await;
    let client = start(inline(&policy_that_asks(&file))).await;
    let mut from_bad = context(None);
    from_bad.client = Some(Client {
        ip: "192.0.2.66".to_owned(),
        port: 1,
    });
    let mut mallory = context(None);
    mallory.auth = Some(Auth {
        mechanism: "PLAIN".to_owned(),
        identity: "Mallory".to_owned(),
    });
    let of = |sender| context(Some(sender));
    for (point, line, context, expected) in [
        (Point::Connect, "", context(None), "proceed"),
        (
            Point::Connect,
            "",
            from_bad,
            "554  Mail from your network is not accepted here",
        ),
        (Point::Helo, "EHLO mx.example.org", context(None), "proceed"),
        (
            Point::Helo,
            "EHLO BAD.example.net",
            context(None),
            "550  Your host name (HELO) is not accepted here",
        ),
        (
            Point::Auth,
            "",
            mallory,
            "535 5.7.8 This account is not permitted here",
        ),
        (
            Point::MailFrom,
            "MAIL FROM:<joe@example.net>",
            context(None),
            "proceed",
        ),
        (
            Point::MailFrom,
            "MAIL FROM:<X@example.net>",
            context(None),
            "550 5.7.1 Sender address not accepted here",
        ),
        (
            Point::MailFrom,
            "MAIL FROM:<a@bank.example>",
            context(None),
            "550 5.7.1 Not permitted by the access policy of this host",
        ),
        (
            Point::RcptTo,
            "RCPT TO:<open@example.com>",
            of("joe@example.net"),
            "proceed",
        ),
        (
            Point::RcptTo,
            "RCPT TO:<closed@example.com>",
            of("joe@example.net"),
            "550 5.7.1 Recipient address not accepted from you",
        ),
    ] {
        let answer = ask(&client, point, line, context).await.unwrap();
        assert_eq!(reply(&answer), expected, "{point:?} {line}");
    }
}

#[tokio::test]
async fn missing_facts_are_failures_and_leave_the_connection_usable() {
    let client = start(inline(&serde_json::json!({ "default": "allow", "rules": [
        { "name": "bad-net", "action": "deny", "client": "198.51.100.0/24" },
    ]})))
    .await;
    let nobody = Context {
        client: None,
        ..context(None)
    };
    let failed = ask(&client, Point::MailFrom, "MAIL FROM:<>", nobody).await;
    assert!(
        matches!(failed, Err(CalloutError::Failed { .. })),
        "{failed:?}"
    );
    let garbled = ask(&client, Point::MailFrom, "MAIL FORM:<>", context(None)).await;
    assert!(
        matches!(garbled, Err(CalloutError::Failed { .. })),
        "{garbled:?}"
    );
    assert_eq!(mail(&client, "joe@example.org").await, "proceed");
}

#[tokio::test]
async fn an_edited_policy_comes_into_force_and_a_broken_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.yaml");
    fs::write(&path, POLICY).unwrap();
    let client = start(from_file(&path)).await;
    fs::write(
        &path,
        "default: allow\nrules: [{ name: x, action: denyy }]\n",
    )
    .unwrap();
    assert_ne!(mail(&client, "joe@example.net").await, "proceed");
    fs::write(&path, "default: allow # all is forgiven\n").unwrap();
    let given_up = Instant::now() + DEADLINE;
    while mail(&client, "joe@example.net").await != "proceed" {
        assert!(
            Instant::now() < given_up,
            "the new policy did not come into force"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn configurations_that_say_nothing_are_refused_with_the_remedy() {
    let refused = |json| format!("{:#}", AccessControl::from_config(&json).unwrap_err());
    for empty in [
        serde_json::Value::Null,
        serde_json::json!({}),
        serde_json::json!({ "rules": [] }),
    ] {
        assert!(refused(empty).contains("write `policyFile: PATH`"));
    }
    let both = refused(serde_json::json!({ "policyFile": "x.yaml", "default": "allow" }));
    assert!(both.contains("rules go into that file"), "{both}");
    let missing = refused(serde_json::json!({ "policyFile": "no-such-file.yaml" }));
    assert!(
        missing.contains("no-such-file.yaml: No such file"),
        "{missing}"
    );
}

#[test]
fn the_example_with_a_directory_is_a_configuration() {
    let text = include_str!("../../../examples/with-external-services/access-control-lookups.yaml");
    let object = text.split("\n---\n").next().unwrap();
    let object: serde_json::Value = serde_saphyr::from_str(object).unwrap();
    AccessControl::from_config(&object["spec"]["builtin"]["config"]).unwrap();
}
