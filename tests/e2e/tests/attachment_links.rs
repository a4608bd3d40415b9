//! Attachments become links (RFC 4496 §4.9) behind a real edge, with a folder and with an S3-compatible server; Chromium and curl fetch them,
//! Python reads the mail.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opes_attachment_links::AttachmentLinks;
use opes_e2e::behind::{ANN, BOB, Behind, Rule};
use opes_e2e::s3::{BUCKET, CREDENTIALS, S3};
use opes_e2e::smtp::{Dialog, stuffed};
use opes_e2e::trace::without_trace;
use opes_e2e::{eventually, need, opes, ports};
use opes_host::Clock;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What the service moves here.
const SIZE: usize = 25 * 1024 * 1024;
const NAME: &str = "Pläne 2026.bin";

/// The texts and files that a reader finds.
const READ: &str = r#"
import json, sys
from email import message_from_bytes, policy
message = message_from_bytes(sys.stdin.buffer.read(), policy=policy.default)
parts = [part for part in message.walk() if not part.is_multipart()]
print(json.dumps({
    "defects": [type(d).__name__ for part in message.walk() for d in part.defects],
    "parts": [[part.get_content_type(), part.get_content() if part.get_content_maintype() == "text" else ""] for part in parts],
}))
"#;

/// Where links work, and the clock that says how long.
struct Site {
    behind: Behind,
    base: String,
    /// Seconds that have passed beyond the real ones.
    ahead: Arc<AtomicU64>,
}

async fn site(store: Value, key_file: Option<&Path>, on_failure: &str) -> Result<Site> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}/files", listener.local_addr()?);
    let mut config =
        json!({ "baseUrl": base, "store": store, "sizeMin": 1_000_000, "lifetime": "1h" });
    if let Some(path) = key_file {
        config["keyFile"] = json!(path);
    }
    let ahead = Arc::new(AtomicU64::new(0));
    let passed = Arc::clone(&ahead);
    let clock = Clock::Other(Arc::new(move || {
        let passed = Duration::from_secs(passed.load(Ordering::Relaxed));
        UNIX_EPOCH + Clock::System.since_epoch() + passed
    }));
    let service = AttachmentLinks::from_config(&config)?
        .serving_on(listener)
        .with_clock(clock);
    let rule = Rule {
        allow: "body, replacePart",
        on_failure,
        ..Rule::default()
    };
    let behind = Behind::one(service, rule).await?;
    Ok(Site {
        behind,
        base,
        ahead,
    })
}

/// Configuration for a server's bucket, with the files that it needs.
fn bucket(s3: &S3, folder: &Path) -> Result<(Value, PathBuf)> {
    let file = |name: &str, text: &str| -> Result<PathBuf> {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let store = json!({ "s3": {
        "endpoint": s3.url(), "bucket": BUCKET, "prefix": "mail",
        "accessKeyIdFile": file("id", CREDENTIALS.0)?, "secretAccessKeyFile": file("secret", CREDENTIALS.1)?,
    } });
    let key = file("keys", &format!("{}\n", STANDARD.encode([5; 32])))?;
    Ok((store, key))
}

/// Octets that do not compress and repeat late.
fn content() -> Vec<u8> {
    let mut state = 4496_u64;
    let words = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 24).to_le_bytes()
    });
    words.flatten().take(SIZE).collect()
}

/// What stays of a message around the places where something is written.
struct Mail {
    /// Up to the end of the plain text, up to `</body>`, up to the attachment, behind it.
    pieces: [Vec<u8>; 4],
    attachment: Vec<u8>,
}

impl Mail {
    fn new(subject: &str, content: &[u8]) -> Self {
        let lines = content
            .chunks(57)
            .map(|line| STANDARD.encode(line) + "\r\n");
        let disposition = "attachment; filename*=utf-8''Pl%C3%A4ne%202026.bin";
        let attachment = format!(
            "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: {disposition}\r\n\r\n{}",
            lines.collect::<String>()
        );
        let head = format!(
            "From: ann@example.org\r\nTo: bob@example.com\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\nDate: Sat, 28 Nov 2026 03:00:00 +0000\r\n\
             Content-Type: multipart/mixed; boundary=outer\r\n\r\npreamble\r\n--outer\r\nContent-Type: multipart/alternative; boundary=inner\r\n\r\n\
             --inner\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nSch=C3=B6ne Gr=\r\n=C3=BC=C3=9Fe \r\n.dot"
        );
        let html = "\r\n--inner\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n<html><body><p>hello</p>";
        let rest = "</body></html>\r\n--inner--\r\n--outer\r\n";
        let tail = "\r\n--outer\r\nContent-Type: application/pdf; name=small.pdf\r\n\r\nsmall\r\n--outer--\r\nepilogue\r\n";
        Self {
            pieces: [head, html.into(), rest.into(), tail.into()].map(String::into_bytes),
            attachment: attachment.into_bytes(),
        }
    }

    fn octets(&self) -> Vec<u8> {
        let [head, html, rest, tail] = &self.pieces;
        [head, html, rest, &self.attachment, tail]
            .map(Vec::as_slice)
            .concat()
    }

    /// What was written between the pieces, which must be there to the octet: in the plain text, in the HTML, in place of the attachment.
    fn written<'a>(&self, delivered: &'a [u8]) -> Result<[&'a str; 3]> {
        let mut rest = delivered
            .strip_prefix(self.pieces[0].as_slice())
            .context("the beginning was changed")?;
        let mut written = [""; 3];
        for (gap, piece) in written.iter_mut().zip(&self.pieces[1..]) {
            let at = rest.windows(piece.len()).position(|window| window == piece);
            let (before, after) =
                rest.split_at(at.context("octets outside the links were changed")?);
            *gap = std::str::from_utf8(before)?;
            rest = &after[piece.len()..];
        }
        ensure!(rest.is_empty(), "something was written behind the message");
        Ok(written)
    }
}

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

/// What Chromium makes of a link.
async fn browse(link: &str, folder: &Path) -> Result<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/download.py");
    let output = tokio::process::Command::new("timeout")
        .args(["300", "python3", script, link])
        .arg(folder)
        .output()
        .await?;
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).with_context(|| format!("no answer: {error}"))
}

/// Status and body.
async fn curl(arguments: &[&str]) -> Result<(String, Vec<u8>)> {
    let output = tokio::process::Command::new("curl")
        .args([
            "--silent",
            "--max-time",
            "60",
            "--write-out",
            "%{stderr}%{http_code}",
        ])
        .args(arguments)
        .output()
        .await?;
    Ok((String::from_utf8(output.stderr)?, output.stdout))
}

/// The link in a text.
fn link_in<'a>(text: &'a str, base: &str) -> Result<&'a str> {
    let start = text.find(base).context("no link")?;
    let end = text[start..]
        .find(['"', '\n', '\r', '<'])
        .map_or(text.len(), |end| start + end);
    Ok(&text[start..end])
}

/// Sends a message, and looks at what arrives. Gives the link.
async fn moved(site: &Site, content: &[u8]) -> Result<String> {
    let mail = Mail::new("plans", content);
    let said = site.behind.send(&mail.octets()).await?;
    ensure!(said.starts_with("250"), "{said}");
    let [arrival] = site.behind.delivered(["Subject: plans"]).await?;
    let delivered = without_trace(&arrival.content);
    ensure!(
        delivered.len() < 10_000,
        "{} octets were delivered",
        delivered.len()
    );
    mail.written(delivered)?;
    let found = read(delivered)?;
    ensure!(found["defects"] == json!([]), "{found}");
    let parts = found["parts"].as_array().context("no parts")?;
    let kinds: Vec<_> = parts
        .iter()
        .map(|part| part[0].as_str().unwrap_or_default())
        .collect();
    ensure!(
        kinds == ["text/plain", "text/html", "text/plain", "application/pdf"],
        "{found}"
    );
    let texts: Vec<_> = parts
        .iter()
        .map(|part| part[1].as_str().unwrap_or_default())
        .collect();
    let links = texts[..3].iter().map(|text| link_in(text, &site.base));
    let links = links
        .collect::<Result<Vec<_>>>()
        .with_context(|| found.to_string())?;
    ensure!(links.iter().all(|link| *link == links[0]), "{links:?}");
    // A slash and a token: nothing about anybody.
    ensure!(links[0].len() == site.base.len() + 51, "{links:?}");
    ensure!(
        texts[0].contains(NAME) && texts[2].contains("25.0 MiB"),
        "{found}"
    );
    ensure!(texts[1].contains("href="), "{found}");
    Ok(links[0].to_owned())
}

async fn identical_bytes_come_back(site: &Site, content: &[u8]) -> Result<()> {
    for program in ["chromium", "curl", "python3"] {
        need(program);
    }
    let link = moved(site, content).await?;
    let folder = tempfile::tempdir()?;
    let page = browse(&link, folder.path()).await?;
    ensure!(
        page["status"] == 200 && page["state"] == "completed",
        "{page}"
    );
    ensure!(page["name"] == NAME, "{page}");
    let text = page["text"].as_str().unwrap_or_default();
    ensure!(text.contains(NAME) && text.contains("25.0 MiB"), "{page}");
    let saved = std::fs::read(folder.path().join(NAME))?;
    ensure!(saved == content, "Chromium saved other octets");

    let file = format!("{link}/file");
    for (range, expected) in [
        ("0-9", &content[..10]),
        ("600000-5300000", &content[600_000..5_300_001]),
        ("-100", &content[SIZE - 100..]),
    ] {
        let (status, body) = curl(&["--range", range, &file]).await?;
        ensure!(status == "206" && body == expected, "{range}: {status}");
    }
    let (status, head) = curl(&["--head", &file]).await?;
    let head = String::from_utf8(head)?.to_ascii_lowercase();
    ensure!(
        status == "200" && head.contains(&format!("content-length: {SIZE}\r\n")),
        "{head}"
    );
    // A download that was broken off goes on.
    let half = folder.path().join("half");
    std::fs::write(&half, &content[..SIZE / 2])?;
    let path = half.to_str().context("no UTF-8")?;
    let (status, _) = curl(&["--continue-at", "-", "--output", path, &file]).await?;
    ensure!(
        status == "206" && std::fs::read(&half)? == content,
        "{status}"
    );

    // The last character has bits that no token has, the others are signed.
    for at in [0, 10, 25, 40, 48] {
        let (base, token) = link.rsplit_once('/').context("no token")?;
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        let tampered = format!("{base}/{}{other}{}", &token[..at], &token[at + 1..]);
        for url in [tampered.clone(), tampered + "/file"] {
            let (status, body) = curl(&[&url]).await?;
            ensure!(status == "404" && body.len() < 5000, "{url}: {status}");
        }
    }
    site.ahead.store(3601, Ordering::Relaxed);
    let page = browse(&link, folder.path()).await?;
    ensure!(
        page["status"] == 410 && page.get("state").is_none(),
        "{page}"
    );
    let (status, body) = curl(&[&file]).await?;
    ensure!(status == "410" && body.len() < 5000, "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_folder_chromium_downloads_the_identical_bytes_until_the_link_expires() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let site = site(json!({ "folder": folder.path() }), None, "tempfail").await?;
    identical_bytes_come_back(&site, &content()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_s3_server_chromium_downloads_the_identical_bytes_until_the_link_expires()
-> Result<()> {
    let (s3, folder) = (S3::start()?, tempfile::tempdir()?);
    let (store, key) = bucket(&s3, folder.path())?;
    let site = site(store, Some(&key), "tempfail").await?;
    identical_bytes_come_back(&site, &content()).await
}

/// Half of a message is in the store when its server dies. Gives the reply to the whole.
async fn cut_off(on_failure: &str) -> Result<(Site, Vec<u8>, String)> {
    let (mut s3, folder) = (S3::start()?, tempfile::tempdir()?);
    let (store, key) = bucket(&s3, folder.path())?;
    let site = site(store, Some(&key), on_failure).await?;
    let message = Mail::new("cut", &content()).octets();
    let stuffed = stuffed(&message);
    let (first, second) = stuffed.split_at(stuffed.len() / 2);
    let mut dialog = site.behind.dialog().await?;
    dialog.envelope(ANN, &[BOB]).await?;
    dialog.send(first).await?;
    eventually("a part of the upload is at the server", || {
        s3.octets() > 5_000_000
    })
    .await;
    s3.kill();
    dialog.send(second).await?;
    dialog.send(b".\r\n").await?;
    let said = dialog.reply().await?;
    Ok((site, message, said))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_loses_nothing_and_the_policy_decides() -> Result<()> {
    let (strict, _, said) = cut_off("tempfail").await?;
    ensure!(said.starts_with("451"), "{said}");
    ensure!(
        strict.behind.hop.arrivals().is_empty(),
        "it was delivered all the same"
    );
    let (lenient, message, said) = cut_off("accept").await?;
    ensure!(said.starts_with("250"), "{said}");
    let [passed] = lenient.behind.delivered(["Subject: cut"]).await?;
    ensure!(without_trace(&passed.content) == message, "octets differ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_leaves_nothing_in_the_store() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let site = site(json!({ "folder": folder.path() }), None, "tempfail").await?;
    let message = stuffed(&Mail::new("gone", &content()).octets());
    let incoming = || std::fs::read_dir(folder.path().join("incoming")).map_or(0, Iterator::count);
    let mut dialog = site.behind.dialog().await?;
    dialog.envelope(ANN, &[BOB]).await?;
    dialog.send(&message[..message.len() / 2]).await?;
    eventually("the attachment is being stored", || incoming() == 1).await;
    drop(dialog);
    eventually("the draft is gone", || incoming() == 0).await;
    let days = std::fs::read_dir(folder.path().join("objects"))?.count();
    ensure!(days == 0, "something was kept");
    Ok(())
}

/// A message in the Maildir of `opes dev`, as soon as it is there.
async fn in_maildir(state: &Path) -> Result<Vec<u8>> {
    let folder = state.join("mail");
    let find = || -> Option<PathBuf> {
        let domains = std::fs::read_dir(&folder).ok()?.flatten();
        let users = domains.filter_map(|domain| std::fs::read_dir(domain.path()).ok());
        let new = users
            .flatten()
            .flatten()
            .filter_map(|user| std::fs::read_dir(user.path().join("new")).ok());
        new.flatten().flatten().map(|file| file.path()).next()
    };
    eventually("it is in the Maildir", || find().is_some()).await;
    Ok(std::fs::read(find().context("gone")?)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn opes_dev_keeps_store_and_key_in_its_state_folder() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    need("curl");
    let folder = tempfile::tempdir()?;
    let example = include_str!("../../../examples/rules/attachment-links.yaml");
    let port = ports::free()?;
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, example.replace("2590", &port.to_string()))?;
    let state = folder.path().join("state");
    let paths = [&rules, &state].map(|path| path.display().to_string());
    let mut arguments = vec!["dev", "-f", &paths[0], "--state", &paths[1]];
    for listener in ["--smtp", "--submission", "--lmtp", "--admin"] {
        arguments.extend([listener, "127.0.0.1:0"]);
    }
    let dev = opes(arguments)?;
    let content = &content()[..6 * 1024 * 1024];
    let message = Mail::new("dev", content).octets();
    let mut dialog = Dialog::open(dev.address("mx"), false).await?;
    let said = dialog.message(ANN, &[BOB], &message).await?;
    ensure!(said.starts_with("250"), "{said}");
    let delivered = String::from_utf8(in_maildir(&state).await?)?;
    let base = format!("http://127.0.0.1:{port}/");
    let link = delivered.rfind(&base).context("no link")?;
    let link = link_in(&delivered[link..], &base)?;
    let (status, file) = curl(&[&format!("{link}/file")]).await?;
    ensure!(status == "200" && file == content, "{status}");
    let key = state.join("attachments/link.key").metadata()?;
    ensure!(key.permissions().mode() & 0o777 == 0o600, "{key:?}");
    Ok(())
}
