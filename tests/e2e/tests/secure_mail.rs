//! Secure mail (RFC 4496 §4.5) behind a real edge, with GnuPG, `openssl cms` and dkimpy as the other side.

#[path = "secure_mail/dkim.rs"]
mod dkim;
#[path = "secure_mail/failures.rs"]
mod failures;
#[path = "secure_mail/openssl.rs"]
mod openssl;
#[path = "secure_mail/pgp.rs"]
mod pgp;
#[path = "secure_mail/smime.rs"]
mod smime;

use std::path::Path;

use anyhow::{Context as _, Result};
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
