//! Debian's opendkim signs behind the bridge; dkimpy, which shares no line with it, verifies what was delivered.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use opes_e2e::behind::{Behind, Rule};
use opes_e2e::{eventually, need};
use opes_milter_bridge::MilterBridge;
use serde_json::json;

/// Reads a message; the public key is an argument, no DNS is asked.
const VERIFY: &str = r#"
import sys, dkim
key = b"v=DKIM1; k=rsa; p=" + sys.argv[1].encode()
ask = lambda name, timeout=5: key if name in (b"test._domainkey.example.org.", "test._domainkey.example.org.") else None
print(dkim.verify(sys.stdin.buffer.read(), dnsfunc=ask))
"#;

struct Opendkim {
    process: Child,
    folder: tempfile::TempDir,
    /// As in DNS.
    public_key: String,
}

impl Drop for Opendkim {
    fn drop(&mut self) {
        // Already gone is fine.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl Opendkim {
    async fn start(canonicalization: &str) -> Result<Self> {
        need("opendkim");
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let key = path("key.pem");
        openssl(&["genrsa", "-out", &key.display().to_string(), "2048"])?;
        let public_key = openssl(&["rsa", "-in", &key.display().to_string(), "-pubout"])?;
        let public_key = public_key.lines().filter(|line| !line.starts_with("---"));
        let config = format!(
            "Mode s\nSyslog no\nBackground no\nAutoRestart no\nRequireSafeKeys no\nDomain example.org\nSelector test\nKeyFile {}\n\
             Socket local:{}\nCanonicalization {canonicalization}\nInternalHosts 127.0.0.1\nOversignHeaders From\nPidFile {}\n",
            key.display(),
            path("socket").display(),
            path("pid").display(),
        );
        std::fs::write(path("opendkim.conf"), config)?;
        let process = Command::new("/usr/sbin/opendkim")
            .args(["-f", "-x"])
            .arg(path("opendkim.conf"))
            .stdin(Stdio::null())
            .spawn()
            .context("opendkim")?;
        let started = Self {
            process,
            public_key: public_key.collect(),
            folder,
        };
        let socket = started.socket();
        eventually("opendkim listens", || UnixStream::connect(&socket).is_ok()).await;
        Ok(started)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn verifies(&self, message: &[u8]) -> Result<bool> {
        let mut child = Command::new(super::PYTHON)
            .args(["-c", VERIFY, &self.public_key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no stdin")?.write_all(message)?;
        let said = child.wait_with_output()?;
        match said.stdout.trim_ascii() {
            b"True" => Ok(true),
            b"False" => Ok(false),
            other => anyhow::bail!("dkimpy: {}", String::from_utf8_lossy(other)),
        }
    }
}

fn openssl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("openssl").args(arguments).output()?;
    ensure!(output.status.success(), "openssl {arguments:?}");
    Ok(String::from_utf8(output.stdout)?)
}

async fn behind(socket: &Path) -> Result<Behind> {
    let bridge = MilterBridge::from_config(&json!({
        "endpoint": format!("unix:{}", socket.display()),
        "hostname": "mail.example.com",
    }))?;
    let rule = Rule {
        class: "sign",
        allow: "header",
        ..Rule::default()
    };
    Behind::one(bridge, rule).await
}

/// What simple canonicalization is strict about: spaces after colons, folding, dots, 8 bits, empty lines at the end.
fn message(subject: &str) -> Vec<u8> {
    let text =
        "From:  \"Ann  B.\" <ann@example.org>\r\nTo:bob@example.com,\r\n\t carol@example.com\r\n";
    let text = format!("{text}Subject: {subject}\r\nDate: Tue, 24 Nov 2026 05:05:30 +0000\r\n\r\n");
    let mut message = text.into_bytes();
    message.extend_from_slice(b".dot\r\n..two  dots \r\n\tcaf\xe9\r\n");
    message.extend_from_slice(
        &b"a line of a message that is longer than one piece of the body\r\n".repeat(3000),
    );
    message.extend_from_slice(b"\r\n\r\n");
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn what_opendkim_signs_verifies_elsewhere() -> Result<()> {
    for canonicalization in ["simple/simple", "relaxed/relaxed"] {
        let opendkim = Opendkim::start(canonicalization).await?;
        let behind = behind(&opendkim.socket()).await?;
        let said = behind.send(&message("signed")).await?;
        ensure!(said.starts_with("250"), "{said}");
        let [signed] = behind.delivered(["Subject: signed"]).await?;
        let text = String::from_utf8_lossy(&signed.content);
        ensure!(
            text.contains(&format!("c={canonicalization}; d=example.org; s=test")),
            "{text:.2000}"
        );
        ensure!(opendkim.verifies(&signed.content)?, "{text:.2000}");
        ensure!(
            signed.content.ends_with(&message("signed")),
            "octets differ"
        );
        for (octets, other) in [
            (&b"two  dots "[..], &b"two  dots! "[..]),
            (b"Subject: signed", b"Subject: forged"),
        ] {
            let forged = replaced(&signed.content, octets, other)?;
            ensure!(!opendkim.verifies(&forged)?, "a forged message verifies");
        }
    }
    Ok(())
}

fn replaced(message: &[u8], octets: &[u8], other: &[u8]) -> Result<Vec<u8>> {
    let at = message
        .windows(octets.len())
        .position(|window| window == octets);
    let (before, after) = message.split_at(at.context("not found")?);
    let after = after.get(octets.len()..).unwrap_or_default();
    Ok([before, other, after].concat())
}
