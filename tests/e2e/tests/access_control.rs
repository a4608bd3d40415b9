//! A real slapd and a real PostgreSQL behind access-control behind a real edge: each answer goes to the very command that it is
//! about (RFC 4496 §4.4).

#[path = "access_control/postgres.rs"]
mod postgres;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use opes_access_control::AccessControl;
use opes_e2e::behind::{Behind, Rule};
use opes_e2e::slapd::{BASE, READER, Slapd, person};
use postgres::Postgres;
use serde_json::{Value, json};

async fn behind(config: &Value, on_failure: &str) -> Result<Behind> {
    let rule = Rule {
        class: "analyze",
        at: "connect, helo, mailFrom, rcptTo",
        allow: "reject",
        on_failure,
        ..Rule::default()
    };
    Behind::one(AccessControl::from_config(config)?, rule).await
}

/// Commands and how their replies begin.
async fn talk(behind: &Behind, lines: &[(&str, &str)]) -> Result<()> {
    let mut dialog = behind.dialog().await?;
    for (command, reply) in lines {
        let said = dialog.command(command).await?;
        ensure!(said.starts_with(reply), "{command}: {said}, not {reply}");
    }
    Ok(())
}

/// Until the command is answered as it should be.
async fn in_the_end(behind: &Behind, command: &str, reply: &str) -> Result<()> {
    let given_up = Instant::now() + opes_e2e::DEADLINE;
    loop {
        let said = behind.dialog().await?.command(command).await?;
        if said.starts_with(reply) {
            return Ok(());
        }
        ensure!(Instant::now() < given_up, "{command}: {said}, not {reply}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn ldap(slapd: &Slapd, filter: &str, attributes: &[&str]) -> Value {
    json!({
        "ldap": {
            "url": slapd.url(),
            "bindDn": READER,
            "bindPasswordFile": slapd.password_file(),
            "base": BASE,
            "filter": filter,
            "attributes": attributes,
        },
        "timeoutMs": 10_000,
    })
}

fn ldap_policy(slapd: &Slapd) -> Value {
    json!({
        "default": "allow",
        "lookups": {
            "domains": ldap(slapd, "(mailLocalAddress=@%d)", &[]),
            "people": ldap(slapd, "(mailLocalAddress=%s)", &[]),
            "access": ldap(slapd, "(mailLocalAddress=%s)", &["mailAccess"]),
        },
        "rules": [
            { "name": "spammers", "action": "deny", "lookup": { "in": "domains", "key": "sender" } },
            { "name": "access", "action": "lookup", "recipient": [".example.com", "@example.com"],
              "lookup": { "in": "access", "key": "recipient", "verdict": "mailAccess" } },
            { "name": "members-only", "action": "deny", "recipient": "list@example.com",
              "lookup": { "in": "people", "key": "sender", "found": false },
              "reply": { "text": "Only members may write to this list" } },
        ],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn ldap_answers_the_command_it_is_asked_about() -> Result<()> {
    let entries = [
        person("ann", "mailLocalAddress: ann@example.org"),
        person(
            "boss",
            "mailLocalAddress: boss@example.com\nmailAccess: 550 5.7.2 Ask the secretary",
        ),
        person(
            "busy",
            "mailLocalAddress: busy@example.com\nmailAccess: 450 4.2.1 Come again",
        ),
        person("open", "mailLocalAddress: open@example.com\nmailAccess: OK"),
        person(
            "odd",
            "mailLocalAddress: odd@example.com\nmailAccess: perhaps",
        ),
        person("bad", "mailLocalAddress: @spam.example"),
    ];
    let mut slapd = Slapd::start(&entries.concat()).await?;
    let config = ldap_policy(&slapd);
    let strict = behind(&config, "tempfail").await?;
    // At MAIL, because no rule above can still allow it.
    talk(
        &strict,
        &[(
            "MAIL FROM:<x@Spam.example>",
            "550 5.7.1 Sender address not accepted here",
        )],
    )
    .await?;
    talk(
        &strict,
        &[
            ("MAIL FROM:<ann@example.org>", "250"),
            ("RCPT TO:<boss@example.com>", "550 5.7.2 Ask the secretary"),
            ("RCPT TO:<busy@example.com>", "450 4.2.1 Come again"),
            ("RCPT TO:<open@example.com>", "250"),
            ("RCPT TO:<odd@example.com>", "451"),
            ("RCPT TO:<list@example.com>", "250"),
            ("RCPT TO:<\"*)(cn=boss\"@example.com>", "250"),
        ],
    )
    .await?;
    let stranger = [
        ("MAIL FROM:<x@example.net>", "250"),
        (
            "RCPT TO:<list@example.com>",
            "550 5.7.1 Only members may write to this list",
        ),
        ("RCPT TO:<open@example.com>", "250"),
    ];
    talk(&strict, &stranger).await?;
    talk(
        &strict,
        &[
            ("MAIL FROM:<>", "250"),
            ("RCPT TO:<list@example.com>", "550"),
        ],
    )
    .await?;
    let searches = slapd.searches();
    talk(&strict, &stranger).await?;
    ensure!(
        slapd.searches() == searches,
        "{} more searches",
        slapd.searches() - searches
    );

    // Gone in the middle: what is known goes on, what is not is the policy's matter.
    let lenient = behind(&config, "accept").await?;
    slapd.kill();
    talk(&strict, &stranger).await?;
    talk(&strict, &[("MAIL FROM:<new@new.example>", "451")]).await?;
    talk(
        &lenient,
        &[
            ("MAIL FROM:<x@spam.example>", "250"),
            ("RCPT TO:<boss@example.com>", "250"),
        ],
    )
    .await?;
    slapd.run().await?;
    in_the_end(&strict, "MAIL FROM:<new@new.example>", "250").await?;
    in_the_end(&lenient, "MAIL FROM:<x@spam.example>", "550").await
}

fn postgres_policy(database: &Postgres) -> Value {
    let sql = |query: &str| {
        json!({
            "sql": { "url": database.url(), "query": query },
            "timeoutMs": 10_000,
            "cache": { "foundSeconds": 0, "missingSeconds": 0 },
        })
    };
    let rule = |name: &str, key: &str| {
        let lookup = json!({ "in": name, "key": key, "verdict": "verdict" });
        json!({ "name": name, "action": "lookup", "lookup": lookup })
    };
    json!({
        "default": "allow",
        "lookups": {
            "networks": sql("SELECT 1 FROM networks WHERE network >>= :client::inet AND :tls <> 'true'"),
            "helo": sql("SELECT verdict FROM access WHERE what = 'helo' AND value = :s"),
            "sender": sql("SELECT verdict FROM access WHERE what = 'sender' AND value = :s -- one row"),
            "recipient": sql("SELECT verdict FROM access WHERE what = 'recipient' AND value = :s"),
            "writes": sql("SELECT nextval('counter')"),
            "pairs": sql("SELECT 1 FROM pairs WHERE sender = :sender AND recipient = :recipient"),
        },
        "rules": [
            { "name": "bad-helo", "action": "deny", "lookup": { "in": "helo", "key": "helo" } },
            { "name": "bad-sender", "action": "lookup", "lookup": { "in": "sender", "key": "sender", "verdict": "verdict" } },
            rule("recipient", "recipient"),
            { "name": "writes", "action": "deny", "recipient": "writes@example.com", "lookup": { "in": "writes" } },
            { "name": "ceo", "action": "deny", "recipient": "ceo@example.com", "lookup": { "in": "pairs", "found": false } },
            { "name": "clear", "action": "deny", "sender": "bank@example.org", "lookup": { "in": "networks" },
              "reply": { "code": 530, "enhanced": "5.7.0", "text": "TLS is wanted from there" } },
        ],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_answers_the_command_it_is_asked_about() -> Result<()> {
    let mut database = Postgres::start(
        "CREATE TABLE access (what text, value text, verdict text);
         INSERT INTO access VALUES ('helo', 'bad.example.net', 'REJECT'), ('sender', 'x@spam.example', '554 5.7.1 Go away'),
           ('sender', '<>', 'DUNNO'), ('recipient', 'closed@example.com', 'REJECT This mailbox is closed');
         CREATE SEQUENCE counter; CREATE TABLE networks (network inet); INSERT INTO networks VALUES ('192.0.2.0/24'), ('127.0.0.1');
         CREATE TABLE pairs (sender text, recipient text); INSERT INTO pairs VALUES ('ann@example.org', 'ceo@example.com');",
    )
    .await?;
    let config = postgres_policy(&database);
    let strict = behind(&config, "tempfail").await?;
    let lenient = behind(&config, "accept").await?;
    let mail = |address| format!("MAIL FROM:<{address}>");
    let mut dialog = strict.dialog().await?;
    let said = dialog.command("EHLO bad.example.net").await?;
    let is_told = said.contains("Your host name (HELO) is not accepted here");
    ensure!(said.starts_with("550 ") && is_told, "{said}");
    // A rule that may still allow by the recipient holds nothing back that stands above it: `bad-sender` answers at MAIL.
    talk(&strict, &[(&mail("x@spam.example"), "554 5.7.1 Go away")]).await?;
    talk(
        &strict,
        &[
            (&mail("ann@example.org"), "250"),
            ("RCPT TO:<ceo@example.com>", "250"),
            (
                "RCPT TO:<closed@example.com>",
                "550 5.7.1 This mailbox is closed",
            ),
            ("RCPT TO:<\"' OR '1'='1\"@example.com>", "250"),
            ("RCPT TO:<bob@example.com>", "250"),
            // The database is opened for reading.
            ("RCPT TO:<writes@example.com>", "451"),
        ],
    )
    .await?;
    talk(
        &strict,
        &[
            (&mail(""), "250"),
            ("RCPT TO:<ceo@example.com>", "550 5.7.1"),
        ],
    )
    .await?;
    talk(
        &strict,
        &[
            (&mail("bank@example.org"), "250"),
            (
                "RCPT TO:<bob@example.com>",
                "530 5.7.0 TLS is wanted from there",
            ),
        ],
    )
    .await?;

    database.kill();
    // HELO is a look-up too: with `tempfail` nobody comes in, with `accept` everybody does.
    let mut dialog = opes_e2e::smtp::Dialog::open(lenient.edge.address("mx")?, false).await?;
    let said = dialog.command(&mail("x@spam.example")).await?;
    ensure!(said.starts_with("250"), "{said}");
    let refused = opes_e2e::smtp::Dialog::open(strict.edge.address("mx")?, false).await;
    let refused = refused.err().map(|error| error.to_string());
    ensure!(
        refused.is_some_and(|said| said.contains("EHLO refused")),
        "let in"
    );
    database.run().await?;
    let given_up = Instant::now() + opes_e2e::DEADLINE;
    while strict.dialog().await.is_err() {
        ensure!(Instant::now() < given_up, "the database is not asked again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    in_the_end(&strict, &mail("x@spam.example"), "554 5.7.1 Go away").await
}
