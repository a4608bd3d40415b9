//! DKIM, with dkimpy as the verifier: a package of the system, so its Python.

use std::process::Command;

use anyhow::{Result, ensure};
use opes_e2e::behind::{Behind, Rule};
use opes_e2e::need;
use opes_e2e::trace::fields;
use opes_secure_mail::SecureMail;
use serde_json::json;

use opes_e2e::run;

use super::SIGN;

/// Says for each signature whether it verifies with the keys of the command line.
const VERIFY: &str = r#"
import sys, dkim
mail = sys.stdin.buffer.read()
keys = {b"rsa._domainkey.example.org.": sys.argv[1].encode(), b"ed._domainkey.example.org.": sys.argv[2].encode()}
def txt(name, timeout=5):
    return keys.get(name if isinstance(name, bytes) else name.encode())
count = mail.lower().count(b"\ndkim-signature:") + mail.lower().startswith(b"dkim-signature:")
def good(i):
    try:
        return dkim.DKIM(mail).verify(idx=i, dnsfunc=txt)
    except dkim.ValidationError:
        return False
print([good(i) for i in range(count)])
"#;

const MAIL: &str = "From: Ann <ann@example.org>\r\nTo: bob@example.com\r\nSubject: a   long\r\n\tsubject\r\nDate: Tue, 24 Nov 2026 05:05:30 +0000\r\n\r\n\
                    hello  \t world \r\n\r\n \r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn dkimpy_verifies_both_signatures_until_something_changes() -> Result<()> {
    need("openssl");
    let folder = tempfile::tempdir()?;
    let public = |name: &str, arguments: &str| -> Result<String> {
        let path = folder.path().join(name).display().to_string();
        let mut make = Command::new("openssl");
        let (verb, options) = arguments.split_once(' ').unwrap_or((arguments, ""));
        let make = make.args([verb, "-out", &path]).args(options.split(' '));
        run(make, b"")?;
        let mut read = Command::new("openssl");
        let read = read.args(["pkey", "-in", &path, "-pubout"]);
        let pem = String::from_utf8(run(read, b"")?.stdout)?;
        Ok(pem.lines().filter(|line| !line.starts_with('-')).collect())
    };
    let rsa = public("rsa.pem", "genrsa -traditional 2048")?;
    let ed = public("ed.pem", "genpkey -algorithm ed25519")?;
    // RFC 8463 §4: the key alone, without the 12 octets of its wrapping.
    let ed = &ed[16..];
    let key = |selector: &str| json!({ "domain": "example.org", "selector": selector, "file": format!("{selector}.pem") });
    let config = json!({ "keys": folder.path(), "dkim": [key("rsa"), key("ed")] });
    let rule = Rule {
        allow: "header",
        parameters: "{ operation: dkimSign }",
        ..SIGN
    };
    let behind = Behind::one(SecureMail::from_config(&config)?, rule).await?;
    let said = behind.send(MAIL.as_bytes()).await?;
    ensure!(said.starts_with("250"), "{said}");
    let stranger = MAIL.replace("ann@example.org", "ann@example.net");
    let said = behind.send(stranger.as_bytes()).await?;
    ensure!(said.starts_with("250"), "{said}");
    let [signed, unsigned] = behind
        .delivered(["From: Ann <ann@example.org>", "From: Ann <ann@example.net>"])
        .await?;
    ensure!(
        signed.content.ends_with(MAIL.as_bytes()),
        "octets of the message differ"
    );
    ensure!(fields(&unsigned.content, "DKIM-Signature").is_empty());
    let judged = |mail: &[u8]| -> Result<String> {
        let keys = [
            format!("v=DKIM1; k=rsa; p={rsa}"),
            format!("v=DKIM1; k=ed25519; p={ed}"),
        ];
        let mut python = Command::new("/usr/bin/python3");
        let output = run(python.args(["-c", VERIFY]).args(keys), mail)?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let found = judged(&signed.content)?;
    ensure!(found == "[True, True]", "{found}");
    let text = String::from_utf8(signed.content)?;
    for (from, to) in [
        ("world", "wOrld"),
        ("Subject: a", "Subject: b"),
        ("To: bob", "Cc: eve@example.org\r\nTo: bob"),
    ] {
        let found = judged(text.replacen(from, to, 1).as_bytes())?;
        ensure!(found == "[False, False]", "{from}: {found}");
    }
    Ok(())
}
