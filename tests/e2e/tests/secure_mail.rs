//! Secure mail (RFC 4496 §4.5) behind a real edge, with GnuPG, `openssl cms` and dkimpy as the other side.

#[path = "secure_mail/dkim.rs"]
mod dkim;
#[path = "secure_mail/failures.rs"]
mod failures;
#[path = "secure_mail/gnupg.rs"]
mod gnupg;
#[path = "secure_mail/openssl.rs"]
mod openssl;
#[path = "secure_mail/pgp.rs"]
mod pgp;
#[path = "secure_mail/smime.rs"]
mod smime;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use opes_e2e::behind::{Behind, Rule};
use opes_secure_mail::SecureMail;
use serde_json::json;

/// A signer or encrypter before an edge.
const SIGN: Rule<'_> = Rule {
    class: "sign",
    at: "content",
    allow: "header, rewrite, reject, notify, report",
    on_failure: "tempfail",
    parameters: "{}",
};
/// Something that verifies or decrypts.
const ADAPT: Rule<'_> = Rule {
    class: "adapt",
    allow: "header, rewrite, subject, reject, quarantine, notify, report",
    ..SIGN
};

/// An edge with the service, which has its keys in `folder`, behind one rule.
async fn behind(folder: &Path, rule: Rule<'_>, parameters: &str) -> Result<Behind> {
    let anchors = folder.join("anchors/ca.crt");
    let mut config = json!({ "keys": folder });
    if anchors.exists() {
        config["trustAnchors"] = json!(anchors);
    }
    let service = SecureMail::from_config(&config)?;
    Behind::one(service, Rule { parameters, ..rule }).await
}

/// Runs a program with `input`; its output if it ended well.
fn run(command: &mut Command, input: &[u8]) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let input = input.to_vec();
    // Beside the reading, so that nobody waits for a full pipe; who does not read all of it has a reason.
    let writing = std::thread::spawn(move || {
        let _closed = stdin.write_all(&input);
    });
    let output = child.wait_with_output()?;
    let _ended = writing.join();
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

/// The value of a parameter in a header section, such as `boundary`.
fn parameter(text: &str, name: &str) -> Result<String> {
    let start = text.find(&format!("{name}=\"")).context("no parameter")?;
    let value = text[start..].split('"').nth(1);
    Ok(value.context("no value")?.to_owned())
}

/// The two parts of a multipart, each to the octet (RFC 2046 §5.1.1).
fn two_parts(message: &[u8]) -> Result<[String; 2]> {
    let text = String::from_utf8(message.to_vec())?;
    let boundary = parameter(&text, "boundary")?;
    let body = text.split_once("\r\n\r\n").context("no body")?.1;
    let body = format!("\r\n{body}");
    let delimiter = format!("\r\n--{boundary}");
    let mut parts = body.split(&delimiter);
    let mut part = || {
        let part = parts.next().context("no part")?;
        Ok::<_, anyhow::Error>(part.strip_prefix("\r\n").unwrap_or(part).to_owned())
    };
    part()?;
    Ok([part()?, part()?])
}
