//! Refusal in the reply to MAIL, RCPT and the content (RFC 4496 §4.8), behind a real edge.

use anyhow::{Result, ensure};
use opes_content_block::ContentBlock;
use opes_e2e::behind::{ANN, BOB, Behind, Rule};
use serde_json::json;

const RULE: Rule<'_> = Rule {
    class: "analyze",
    at: "mailFrom, rcptTo, content",
    allow: "reject",
    on_failure: "tempfail",
    parameters: "{ text: Not at this site }",
};

fn content_block() -> Result<ContentBlock> {
    ContentBlock::from_config(&json!({
        "senders": ["@.spam.example"],
        "recipients": ["nobody@example.com"],
        "words": ["casino bonus"],
        "patterns": [r"\bwin \d+ euros?\b"],
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_refused_in_the_reply_to_its_own_command() -> Result<()> {
    let behind = Behind::one(content_block()?, RULE).await?;
    let mut dialog = behind.dialog().await?;
    for (command, reply) in [
        (
            "MAIL FROM:<a@mx.spam.example>",
            "550 5.7.1 Not at this site",
        ),
        ("MAIL FROM:<ann@example.org>", "250"),
        ("RCPT TO:<nobody@example.com>", "550 5.7.1 Not at this site"),
        ("RCPT TO:<bob@example.com>", "250"),
        ("RSET", "250"),
    ] {
        let said = dialog.command(command).await?;
        ensure!(said.starts_with(reply), "{command}: {said}");
    }
    let hidden = "Subject: hello\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
        PHA+eW91IDxiPndpbiAxMDAwPC9iPiBldXJvczwvcD4=\r\n";
    for (content, reply) in [
        (
            "Subject: =?utf-8?q?Casino_b=C2=ADonus?=\r\n\r\nbody\r\n",
            "550 5.7.1 Not at this site",
        ),
        (
            "Subject: hello\r\n\r\nthe Casino\r\n  BONUS is here\r\n",
            "550",
        ),
        (hidden, "550"),
        ("Subject: the casino\r\n\r\nnothing to win\r\n", "250"),
    ] {
        let said = dialog.message(ANN, &[BOB], content.as_bytes()).await?;
        ensure!(said.starts_with(reply), "{content}: {said}");
    }
    let [passed] = behind.delivered(["Subject: the casino"]).await?;
    ensure!(
        passed
            .content
            .ends_with(b"Subject: the casino\r\n\r\nnothing to win\r\n"),
        "octets differ"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_make_no_sense_are_a_failure() -> Result<()> {
    for (on_failure, reply) in [("tempfail", "451"), ("accept", "250")] {
        let rule = Rule {
            at: "content",
            parameters: "{ colour: red }",
            on_failure,
            ..RULE
        };
        let behind = Behind::one(content_block()?, rule).await?;
        let said = behind
            .send(b"Subject: casino bonus\r\n\r\nbody\r\n")
            .await?;
        ensure!(said.starts_with(reply), "{on_failure}: {said}");
    }
    Ok(())
}
