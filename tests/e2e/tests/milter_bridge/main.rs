//! Unmodified milters behind the bridge behind a real edge: a program of libmilter that does everything a milter can, opendkim, rspamd.

mod dkim;
mod rspamd;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use opes_e2e::behind::{ANN, BOB, Behind, Rule};
use opes_e2e::embedded::{Embedded, service};
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::smtp::Dialog;
use opes_e2e::trace::{as_services_see_it, without_trace};
use opes_e2e::{Daemon, eventually};
use opes_edge::config::{DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};
use opes_milter_bridge::MilterBridge;
use serde_json::{Value, json};

/// Everything that a milter can ask for.
const ALLOW: &str = "header, body, sender, recipients, reject, discard, quarantine";

/// Milliseconds: as long as the rule waits.
const PATIENT: u64 = 20_000;

/// Debian's: it has libmilter's module.
const PYTHON: &str = "/usr/bin/python3";

struct Script {
    milter: Daemon,
    folder: tempfile::TempDir,
}

impl Script {
    fn start(arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(PYTHON);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("script_milter.py"));
        command.arg(folder.path()).args(arguments);
        let milter = Daemon::start(command, |line| line.starts_with("listening on "))?;
        Ok(Self { milter, folder })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bridge(&self, content_timeout_ms: u64) -> Result<MilterBridge> {
        MilterBridge::from_config(&json!({
            "endpoint": format!("unix:{}", self.file("socket").display()),
            "hostname": "mail.example.com",
            "contentTimeoutMs": content_timeout_ms,
        }))
    }

    async fn behind(&self, rule: Rule<'_>) -> Result<Behind> {
        Behind::one(self.bridge(PATIENT)?, rule).await
    }
}

fn rule() -> Rule<'static> {
    Rule {
        allow: ALLOW,
        ..Rule::default()
    }
}

fn content(subject: &str) -> Vec<u8> {
    format!(
        "X-Twice: a\r\nX-Gone: b\r\nSubject: {subject}\r\nX-Twice:c\r\nX-Gone: d\r\n\r\n.body\r\n"
    )
    .into_bytes()
}

/// The message as the hop got it, without the edge's own fields, wherever they are.
fn text(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(as_services_see_it(content)).into_owned();
    let mut lines: Vec<&str> = text.split_inclusive("\r\n").collect();
    if let Some(own) = lines
        .iter()
        .position(|line| line.starts_with("OPES-System: "))
    {
        lines.remove(own);
        while lines
            .get(own)
            .is_some_and(|line| line.starts_with(['\t', ' ']))
        {
            lines.remove(own);
        }
    }
    lines.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_milter_changes_is_changed() -> Result<()> {
    // The second one replies to fewer commands.
    for arguments in [&[][..], &["silent"]] {
        changes(&Script::start(arguments)?).await?;
    }
    Ok(())
}

async fn changes(script: &Script) -> Result<()> {
    let behind = script.behind(rule()).await?;
    for subject in ["fields", "envelope", "body", "fine"] {
        let said = behind.send(&content(subject)).await?;
        ensure!(said.starts_with("250"), "{subject}: {said}");
    }
    let [fields, envelope, body, fine] = behind
        .delivered([
            "Subject: fields",
            "Subject: envelope",
            "Subject: body",
            "Subject: fine",
        ])
        .await?;
    let expected = "X-Top: first\r\nX-Top: second\r\nX-Twice: a\r\nX-Between: in\r\nSubject: fields\r\nX-Twice: changed\r\n\
        X-Gone: the second is the first now\r\nX-End: one\r\n\ttwo\r\nX-New: new\r\n\r\n.body\r\n";
    ensure!(
        text(&fields.content) == expected,
        "{}",
        text(&fields.content)
    );
    ensure!(envelope.from == "other@example.org", "{envelope:?}");
    ensure!(
        envelope.to == ["carol@example.com", "dan@example.com"],
        "{envelope:?}"
    );
    let with_body = String::from_utf8(content("body"))?.replace(
        "\r\n\r\n.body\r\n",
        "\r\nX-New-Body: yes\r\n\r\na new\r\n.body\r\nwithout CR\r\n",
    );
    ensure!(text(&body.content) == with_body, "{}", text(&body.content));
    ensure!(
        without_trace(&fine.content) == content("fine").as_slice(),
        "octets differ"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_milter_is_told() -> Result<()> {
    let script = Script::start(&[])?;
    let behind = script.behind(rule()).await?;
    let mut long = content("seen");
    long.extend_from_slice(&b"0123456789 0123456789\r\n".repeat(20_000));
    for content in [long, content("enough")] {
        let said = behind.send(&content).await?;
        ensure!(said.starts_with("250"), "{said}");
    }
    let [seen, enough] = behind
        .delivered(["Subject: seen", "Subject: enough"])
        .await?;
    let mut seen = seen_by(&seen.content)?;
    let headers = seen["headers"].as_array_mut().context("no header")?;
    // The edge's own.
    ensure!(headers.remove(0)[0] == "OPES-System");
    let expected = json!({
        "connection": ["[127.0.0.1]", "127.0.0.1", "127.0.0.1", "mail.example.com"],
        "helo": "client.example.org",
        "from": [format!("<{ANN}>")],
        "to": [[format!("<{BOB}>"), BOB]],
        "macros": { "i": seen["macros"]["i"], "{mail_addr}": ANN, "{daemon_name}": "mx" },
        "headers": [["X-Twice", " a"], ["X-Gone", " b"], ["Subject", " seen"], ["X-Twice", "c"], ["X-Gone", " d"]],
        "octets": 7 + 23 * 20_000,
    });
    ensure!(seen == expected, "{seen}");
    ensure!(
        seen["macros"]["i"]
            .as_str()
            .is_some_and(|id| !id.is_empty()),
        "{seen}"
    );
    ensure!(seen_by(&enough.content)?["octets"] == 7);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_milter_that_shows_signs_of_life_may_work_longer() -> Result<()> {
    let script = Script::start(&[])?;
    let behind = Behind::one(script.bridge(8000)?, rule()).await?;
    // Ten seconds with five reports of progress, and more than eight without any.
    for (subject, reply) in [("work", "250"), ("sleep", "451")] {
        let said = behind.send(&content(subject)).await?;
        ensure!(said.starts_with(reply), "{subject}: {said}");
    }
    Ok(())
}

fn seen_by(content: &[u8]) -> Result<Value> {
    let text = text(content);
    let line = text.lines().find_map(|line| line.strip_prefix("X-Seen:"));
    Ok(serde_json::from_str(line.context("no X-Seen")?)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verdict_at_each_stage_of_a_message() -> Result<()> {
    let script = Script::start(&[])?;
    let behind = script.behind(rule()).await?;
    for (action, reply, verdict) in [
        ("reject", "550 5.7.1 Refused by policy", "reject"),
        ("tempfail", "451 4.7.1 Try again later", "tempfail"),
        // The last line of two.
        ("reply", "554 5.7.9 and that is all", "reject"),
        ("discard", "250", "discard"),
        ("accept", "250", "accept"),
    ] {
        for stage in ["mail", "data", "header", "eoh", "body", "eom"] {
            let from = format!("{stage}-{action}@example.org");
            let mut dialog = behind.dialog().await?;
            let said = dialog.message(&from, &[BOB], &content("verdict")).await?;
            ensure!(said.starts_with(reply), "{from}: {said}");
            ensure!(
                behind.verdict()?.starts_with(verdict),
                "{from}: {}",
                behind.verdict()?
            );
        }
    }
    eventually("delivered", || behind.hop.complete() == 6).await;
    let said = behind.send(&content("hold")).await?;
    ensure!(said.starts_with("250"), "{said}");
    ensure!(behind.verdict()? == "quarantine", "{}", behind.verdict()?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reply_goes_to_the_very_command() -> Result<()> {
    let script = Script::start(&[])?;
    let behind = script
        .behind(Rule {
            at: "helo, mailFrom, rcptTo, content",
            ..rule()
        })
        .await?;
    let mut dialog = behind.dialog().await?;
    for (command, reply) in [
        (
            "EHLO helo-reject.example.org",
            "550 5.7.1 Refused by policy",
        ),
        ("EHLO client.example.org", "250"),
        (
            "MAIL FROM:<mail-reply@example.org>",
            "554 5.7.9 and that is all",
        ),
        ("MAIL FROM:<mail-discard@example.org>", "250"),
        ("RSET", "250"),
        (&format!("MAIL FROM:<{ANN}>"), "250"),
        ("RCPT TO:<rcpt-later@example.com>", "450 4.2.1 busy at rcpt"),
        (
            "RCPT TO:<rcpt-reject@example.com>",
            "550 5.7.1 Refused by policy",
        ),
        (&format!("RCPT TO:<{BOB}>"), "250"),
        ("DATA", "354"),
    ] {
        let said = dialog.command(command).await?;
        ensure!(said.starts_with(reply), "{command}: {said}");
    }
    dialog.send(b"Subject: fine\r\n\r\nbody\r\n.\r\n").await?;
    let said = dialog.reply().await?;
    ensure!(said.starts_with("250"), "{said}");
    eventually("delivered", || behind.hop.complete() == 1).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_can_be_refused_at_its_connection() -> Result<()> {
    let script = Script::start(&["connect"])?;
    let behind = script
        .behind(Rule {
            class: "analyze",
            at: "connect",
            allow: "reject",
            ..Rule::default()
        })
        .await?;
    let refused = behind.dialog().await.err().context("it was not refused")?;
    ensure!(refused.to_string().contains("554 5.7.1"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_that_the_milter_refuses_are_refused_alone() -> Result<()> {
    let script = Script::start(&[])?;
    let target = service(script.bridge(PATIENT)?).await?;
    let hop = Hop::start(Manners::default()).await?;
    let folder = tempfile::tempdir()?;
    let config = EdgeConfig {
        listeners: vec![ListenerConfig::new(
            "lmtp",
            "127.0.0.1:0".parse()?,
            ListenerProtocol::Lmtp,
        )],
        domains: vec!["example.com".into()],
        delivery: DeliveryConfig {
            next_hop: Some(hop.address.to_string()),
            ..DeliveryConfig::default()
        },
        ..EdgeConfig::new("mail.example.com", folder.path().join("spool"))
    };
    let edge = Embedded::start(config, &rule().objects("tested", &target)).await?;
    let mut dialog = Dialog::open(edge.address("lmtp")?, true).await?;
    let to = ["rcpt-reject@example.com", BOB, "rcpt-later@example.com"];
    let first = dialog.message(ANN, &to, &content("fields")).await?;
    let replies = [first, dialog.reply().await?, dialog.reply().await?];
    for (reply, expected) in replies.iter().zip(["550 5.7.1", "250", "450 4.2.1 busy"]) {
        ensure!(reply.starts_with(expected), "{replies:?}");
    }
    eventually("delivered", || !hop.arrivals().is_empty()).await;
    let arrivals = hop.arrivals();
    let [arrival] = arrivals.as_slice() else {
        anyhow::bail!("{arrivals:?}");
    };
    ensure!(arrival.to == [BOB], "{arrival:?}");
    ensure!(
        text(&arrival.content).contains("X-Between: in"),
        "{arrival:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_is_a_flow_of_its_own() -> Result<()> {
    let script = Script::start(&[])?;
    let short = script.behind(rule()).await?;
    let said = short.send(&content("large")).await?;
    ensure!(said.starts_with("451"), "without the permission: {said}");
    let behind = script
        .behind(Rule {
            allow: "header, body, rewrite",
            ..Rule::default()
        })
        .await?;
    let said = behind.send(&content("large")).await?;
    ensure!(said.starts_with("250"), "{said}");
    let [large] = behind.delivered(["Subject: large"]).await?;
    let large = without_trace(&large.content);
    let body = b"0123456789abcde\r\n".repeat(3 << 16);
    let header = content("large");
    let header = header.strip_suffix(b".body\r\n").context("no body")?;
    ensure!(
        large == [header, &body].concat().as_slice(),
        "{} octets",
        large.len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_milter_dies_in_a_message_the_policy_decides() -> Result<()> {
    for (on_failure, reply) in [("tempfail", "451"), ("accept", "250")] {
        let mut script = Script::start(&[])?;
        let behind = script
            .behind(Rule {
                on_failure,
                ..rule()
            })
            .await?;
        let hangs = script.file("hangs");
        let message = content("hang");
        let mut dialog = behind.dialog().await?;
        let sending = dialog.message(ANN, &[BOB], &message);
        let killing = async {
            eventually("the milter reads the body", || hangs.exists()).await;
            script.milter.kill();
        };
        let (said, ()) = tokio::join!(sending, killing);
        let said = said?;
        ensure!(said.starts_with(reply), "{on_failure}: {said}");
        // It is gone, and the next message meets the same policy.
        let said = behind.send(&content("fine")).await?;
        ensure!(said.starts_with(reply), "{on_failure}: {said}");
        if on_failure == "accept" {
            let [hung, _fine] = behind.delivered(["Subject: hang", "Subject: fine"]).await?;
            ensure!(
                without_trace(&hung.content) == message.as_slice(),
                "octets differ"
            );
        }
    }
    Ok(())
}
