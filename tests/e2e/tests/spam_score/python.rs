//! Independent software as signer and reader: dkimpy and authres, from Debian's packages.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Debian's, which sees Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

const SIGN: &str = r#"
import sys, dkim
key, selector, domain, fields = sys.argv[1:5]
message = sys.stdin.buffer.read()
with open(key, "rb") as file:
    field = dkim.sign(message, selector.encode(), domain.encode(), file.read(),
                      canonicalize=(b"relaxed", b"relaxed"), include_headers=[f.encode() for f in fields.split(":")])
sys.stdout.buffer.write(field + message)
"#;

/// By hand, with the simple forms: dkimpy refuses to leave From open.
const SIGN_BY_HAND: &str = r#"
import sys, base64, hashlib, subprocess
key, selector, domain, fields = sys.argv[1:5]
message = sys.stdin.buffer.read()
head, body = message.split(b"\r\n\r\n", 1)
named = {line.split(b":")[0].lower(): line for line in head.split(b"\r\n")}
signed = b"".join(named[name.lower().encode()] + b"\r\n" for name in fields.split(":"))
digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
field = f"DKIM-Signature: v=1; a=rsa-sha256; d={domain}; s={selector}; h={fields}; bh={digest}; b=".encode()
made = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=signed + field, capture_output=True, check=True)
sys.stdout.buffer.write(field + base64.b64encode(made.stdout) + b"\r\n" + message)
"#;

const READ: &str = r#"
import sys, json, authres
from email import message_from_bytes
found = []
for value in message_from_bytes(sys.stdin.buffer.read()).get_all("Authentication-Results", []):
    field = authres.AuthenticationResultsHeader.parse("Authentication-Results: " + value.replace("\r\n", "").replace("\n", ""))
    results = {r.method: {"result": r.result, **{f"{p.type}.{p.name}": p.value for p in r.properties}} for r in field.results}
    found.append({"id": field.authserv_id, **results})
print(json.dumps(found))
"#;

fn run(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(PYTHON)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3")?;
    child.stdin.take().context("no stdin")?.write_all(input)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", output.status);
    Ok(output.stdout)
}

/// A key that signs, and its record.
pub(crate) struct Key {
    folder: tempfile::TempDir,
    pub(crate) record: String,
}

impl Key {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("key.pem");
        openssl(&["genrsa", "-traditional", "-out"], &file, &["2048"])?;
        let pem = openssl(&["rsa", "-pubout", "-in"], &file, &[])?;
        let pem = String::from_utf8(pem)?;
        let base64: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
        // A string of a record has 255 octets at most.
        let (head, tail) = base64.split_at(200);
        let record = format!("\"v=DKIM1; k=rsa; p={head}\" \"{tail}\"");
        Ok(Self { folder, record })
    }

    /// `fields`: with colons between.
    pub(crate) fn sign(&self, domain: &str, fields: &str, message: &[u8]) -> Result<Vec<u8>> {
        self.run(SIGN, domain, fields, message)
    }

    /// The same, whatever the fields are.
    pub(crate) fn sign_by_hand(&self, fields: &str, message: &[u8]) -> Result<Vec<u8>> {
        self.run(SIGN_BY_HAND, "example.org", fields, message)
    }

    fn run(&self, script: &str, domain: &str, fields: &str, message: &[u8]) -> Result<Vec<u8>> {
        let file = self.folder.path().join("key.pem");
        let file = file.to_str().context("no UTF-8")?;
        run(&["-c", script, file, "sel", domain, fields], message)
    }
}

fn openssl(before: &[&str], file: &Path, after: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new("openssl");
    let output = command.args(before).arg(file).args(after).output()?;
    ensure!(output.status.success(), "openssl: {output:?}");
    Ok(output.stdout)
}

/// The fields `Authentication-Results` of a message from the top, as authres reads them.
pub(crate) fn results(message: &[u8]) -> Result<Vec<Value>> {
    Ok(serde_json::from_slice(&run(&["-c", READ], message)?)?)
}
