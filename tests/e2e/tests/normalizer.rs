//! Illegal formats are repaired, legal ones pass to the octet (RFC 4496 §4.6), behind a real edge; Python's mail parser is the judge.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use opes_e2e::behind::{Behind, Rule};
use opes_e2e::trace::without_trace;
use opes_normalizer::Normalizer;
use serde_json::{Value, json};

const RULE: Rule<'_> = Rule {
    class: "adapt",
    at: "mailFrom, rcptTo, content",
    allow: "body, reject",
    on_failure: "tempfail",
    parameters: "{}",
};

/// What a strict reader finds: defects, fields, attachments.
const READ: &str = r#"
import json, sys
from email import message_from_bytes, policy
message = message_from_bytes(sys.stdin.buffer.read(), policy=policy.default)
parts = list(message.walk())
print(json.dumps({
    "defects": [type(d).__name__ for part in parts for d in part.defects],
    "subject": message["Subject"], "from": str(message["From"]),
    "date": message["Date"] is not None, "id": message["Message-ID"],
    "files": [[part.get_filename(), part.get_payload(decode=True).decode()] for part in parts if part.get_filename()],
}))
"#;

fn read(message: &[u8]) -> Result<Value> {
    let mut python = Command::new("python3");
    let mut child = python
        .args(["-c", READ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(message)?;
    let output = child.wait_with_output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

async fn behind() -> Result<Behind> {
    let normalizer = Normalizer::from_config(&json!({ "domain": "mail.example.com" }))?;
    Behind::one(normalizer, RULE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_is_read_without_a_complaint_and_what_is_fine_is_the_same() -> Result<()> {
    let behind = behind().await?;
    let broken = b"From: \"J\xc3\xb6rg\" <j@example.org>\r\nSubject: Gr\xfc\xdfe\r\nSubject: another\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello\r\n\
        --b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\
        Content-Disposition: attachment; filename=\"M\xc3\xbcll.txt\"\r\n\r\naGVsbG8gd29y!bGQgaGVsbG8gd29ybGQ\r\n";
    let fine = b"Date: Tue, 24 Nov 2026 05:05:30 +0000\r\nMessage-ID: <1@example.org>\r\nFrom: a@example.org\r\nSubject: fine\r\n\r\nbody\r\n";
    for content in [&broken[..], fine] {
        let said = behind.send(content).await?;
        ensure!(said.starts_with("250"), "{said}");
    }
    let [repaired, untouched] = behind
        .delivered(["MIME-Version: 1.0", "Subject: fine"])
        .await?;
    let before = read(broken)?;
    ensure!(
        before["defects"] != json!([]),
        "it was not broken: {before}"
    );
    let found = read(&repaired.content)?;
    ensure!(found["defects"] == json!([]), "{found}");
    ensure!(
        found["subject"] == "Grüße" && found["from"] == "Jörg <j@example.org>",
        "{found}"
    );
    ensure!(
        found["files"] == json!([["Müll.txt", "hello world hello world"]]),
        "{found}"
    );
    let id = found["id"].as_str().unwrap_or_default();
    ensure!(
        found["date"] == true && id.ends_with("@mail.example.com>"),
        "{found}"
    );
    ensure!(
        without_trace(&untouched.content) == fine,
        "a message that is fine was changed"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_a_command_are_nobodys_buffer() -> Result<()> {
    let behind = behind().await?;
    let mut dialog = behind.dialog().await?;
    let long = "l".repeat(65);
    for (command, code) in [
        (format!("MAIL FROM:<{long}@example.org>"), "5"),
        ("MAIL FROM:<ann@example.org>".to_owned(), "250"),
        (format!("RCPT TO:<{long}@example.com>"), "5"),
        ("RCPT TO:<b\x01b@example.com>".to_owned(), "5"),
        ("RCPT TO:<bob@example.com>".to_owned(), "250"),
    ] {
        let said = dialog.command(&command).await?;
        ensure!(said.starts_with(code), "{command:?}: {said}");
    }
    Ok(())
}
