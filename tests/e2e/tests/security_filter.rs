//! A real clamd behind the security filter behind a real edge (RFC 4496 §4.1): its six actions, and archives.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use opes_e2e::behind::{ANN, BOB, Behind, Rule};
use opes_e2e::embedded::service;
use opes_e2e::{eventually, need};
use opes_edge::config::WebhookConfig;
use opes_security_filter::SecurityFilter;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};

/// clamd compiles its signatures when it starts.
const START: Duration = Duration::from_mins(2);
/// What only clamd knows.
const MARKER: &str = "opes-marker-7f3a";
/// The EICAR test file, in two pieces so that no scanner takes this program for it; and its MD5.
const EICAR: [&str; 2] = [
    "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD",
    "-ANTIVIRUS-TEST-FILE!$H+H*",
];
const EICAR_MD5: &str = "44d88612fea8a8f36de82e1278abb02f";

const ALL: &str = "replacePart, header, subject, body, reject, quarantine, notify, report";

struct Clamd {
    main: Child,
    folder: tempfile::TempDir,
}

impl Drop for Clamd {
    fn drop(&mut self) {
        let _gone = self.main.kill();
        let _reaped = self.main.wait();
    }
}

impl Clamd {
    /// With two signatures of the test's own.
    async fn start() -> Result<Self> {
        need("clamd");
        let folder = tempfile::tempdir()?;
        let place = folder.path().display();
        let signatures = folder.path().join("signatures");
        std::fs::create_dir(&signatures)?;
        std::fs::write(
            signatures.join("test.hdb"),
            format!("{EICAR_MD5}:68:Test.Eicar\n"),
        )?;
        let hex: Vec<_> = MARKER.bytes().map(|octet| format!("{octet:02x}")).collect();
        let hex = hex.concat();
        std::fs::write(
            signatures.join("test.ndb"),
            format!("Test.Marker:0:*:{hex}\n"),
        )?;
        let config = format!(
            "LocalSocket {place}/clamd\nDatabaseDirectory {place}/signatures\nTemporaryDirectory {place}\nForeground yes\nStreamMaxLength 1M\nMaxThreads 4\n"
        );
        std::fs::write(folder.path().join("clamd.conf"), config)?;
        let main = Command::new("/usr/sbin/clamd")
            .arg(format!("--config-file={place}/clamd.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("clamd")?;
        let clamd = Self { main, folder };
        let listens = async {
            while UnixStream::connect(clamd.folder.path().join("clamd"))
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(START, listens)
            .await
            .context("clamd does not listen")?;
        Ok(clamd)
    }

    /// Connections to its socket, beside the one that listens (proc(5)).
    fn connections(&self) -> usize {
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let path = self.folder.path().join("clamd").display().to_string();
        let ours = sockets.lines().filter(|line| line.ends_with(&path));
        ours.count().saturating_sub(1)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.main.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("a process id")?, signal)?)
    }

    fn config(&self) -> Value {
        json!({ "address": format!("unix:{}/clamd", self.folder.path().display()), "sizeMax": 1_000_000 })
    }
}

fn rule(on_failure: &str) -> Rule<'_> {
    Rule {
        allow: ALL,
        on_failure,
        ..Rule::default()
    }
}

async fn behind(config: &Value, on_failure: &str) -> Result<Behind> {
    Behind::one(SecurityFilter::from_config(config)?, rule(on_failure)).await
}

/// Archives as another program writes them: `script` has `data`, and prints octets.
fn python(script: &str, data: &[u8]) -> Result<Vec<u8>> {
    need("python3");
    let folder = tempfile::tempdir()?;
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    std::fs::write(&input, data)?;
    let script = format!(
        "import io, sys, tarfile, zipfile\ndef zipped(name, data):\n  out = io.BytesIO()\n  with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as archive: archive.writestr(name, data)\n  return out.getvalue()\n\
         def tarred(name, data):\n  out = io.BytesIO()\n  with tarfile.open(fileobj=out, mode='w:gz') as archive:\n    info = tarfile.TarInfo(name); info.size = len(data); archive.addfile(info, io.BytesIO(data))\n  return out.getvalue()\n\
         data = open(sys.argv[1], 'rb').read()\nopen(sys.argv[2], 'wb').write({script})\n"
    );
    let status = Command::new("python3")
        .args(["-c", &script])
        .arg(&input)
        .arg(&output)
        .status()?;
    ensure!(status.success(), "python3: {status}");
    Ok(std::fs::read(output)?)
}

const FIRST: &str = "The first part stays as it is.\r\n";
const LAST: &str = "--frontier\r\nContent-Type: text/plain\r\n\r\nThe last\tpart stays, too. \r\n--frontier--\r\nepilogue\r\n";

/// A message with an attachment between two texts.
fn message(subject: &str, fields: &str, encoded: &str) -> Vec<u8> {
    format!(
        "From: Ann <{ANN}>\r\nTo: {BOB}\r\nSUBJECT:  {subject}\r\nX-Odd:  spaced \r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=frontier\r\n\r\npreamble\r\n--frontier\r\n\r\n{FIRST}--frontier\r\n\
         Content-Disposition: attachment; {fields}\r\n\r\n{encoded}\r\n{LAST}"
    )
    .into_bytes()
}

fn attached(subject: &str, name: &str, content: &[u8]) -> Vec<u8> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(content);
    let lines: Vec<_> = encoded
        .as_bytes()
        .chunks(76)
        .map(String::from_utf8_lossy)
        .collect();
    let fields = format!("filename=\"{name}\"\r\nContent-Transfer-Encoding: base64");
    message(subject, &fields, &lines.join("\r\n"))
}

fn eicar() -> String {
    EICAR.concat()
}

/// Without what the edge put on top.
fn from_top<'c>(content: &'c str, field: &str) -> Result<&'c str> {
    let at = content.find(field).with_context(|| content.to_owned())?;
    content.get(at..).context("a boundary")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forbidden_or_infected_is_replaced_wherever_it_is() -> Result<()> {
    let clamd = Clamd::start().await?;
    let (test, marker) = (
        eicar().into_bytes(),
        format!("hello {MARKER} world").into_bytes(),
    );
    let mail = |content: &[u8]| attached("inner", "t.txt", content);
    let both = json!({ "clamd": clamd.config() });
    // Nothing is forbidden: whatever is found, clamd has found.
    let clamd_only = json!({ "clamd": clamd.config(), "blockTypes": [], "blockNames": [] });
    let filter_only = json!({ "virusScan": false, "clamd": clamd.config() });
    for (config, name, content, place) in [
        (
            &filter_only,
            "plain.txt",
            test.clone(),
            "\"plain.txt\" was removed",
        ),
        (
            &filter_only,
            "a.zip",
            python("zipped('t.txt', data)", &test)?,
            "\"a.zip/t.txt\" was removed",
        ),
        (
            &filter_only,
            "m.zip",
            python("zipped('m.eml', data)", &mail(&test))?,
            "\"m.zip/m.eml/t.txt\" was removed",
        ),
        (
            &filter_only,
            "m.tgz",
            python("tarred('m.eml', data)", &mail(&test))?,
            "\"m.tgz/m.tar/m.eml/t.txt\" was removed",
        ),
        (
            &filter_only,
            "n.zip",
            python("zipped('i.zip', zipped('t.txt', data))", &test)?,
            "\"n.zip/i.zip/t.txt\" was removed",
        ),
        (
            &clamd_only,
            "plain.txt",
            test.clone(),
            "\"plain.txt\" was removed",
        ),
        (
            &clamd_only,
            "a.zip",
            python("zipped('t.txt', data)", &test)?,
            "infected with Test.Eicar",
        ),
        (&both, "m.txt", marker.clone(), "infected with Test.Marker"),
        (
            &both,
            "m.zip",
            python("zipped('t.txt', data)", &marker)?,
            "infected with Test.Marker",
        ),
    ] {
        let behind = behind(config, "tempfail").await?;
        let sent = attached("s", name, &content);
        let said = behind.send(&sent).await?;
        ensure!(said.starts_with("250"), "{name}: {said}");
        let [arrival] = behind
            .delivered(["SUBJECT:  [attachment removed] s"])
            .await?;
        let received = String::from_utf8(arrival.content)?;
        ensure!(received.contains(place), "{name}: {received}");
        ensure!(
            received.contains("X-Opes-Security: replaced; count=1; cause="),
            "{name}: {received}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_mail_passes_unchanged() -> Result<()> {
    let clamd = Clamd::start().await?;
    let clean = behind(&json!({ "clamd": clamd.config() }), "tempfail").await?;
    let sent = attached(
        "fine",
        "a.zip",
        &python("zipped('t.txt', data)", b"hello world")?,
    );
    ensure!(clean.send(&sent).await?.starts_with("250"), "clean");
    let [arrival] = clean.delivered(["SUBJECT:  fine"]).await?;
    ensure!(arrival.content.ends_with(&sent), "clean mail changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_replaced_part_and_one_mark_every_other_octet_is_identical() -> Result<()> {
    let clamd = Clamd::start().await?;
    let behind = behind(
        &json!({ "clamd": clamd.config(), "header": "" }),
        "tempfail",
    )
    .await?;
    let sent = attached("s", "m.txt", MARKER.as_bytes());
    ensure!(behind.send(&sent).await?.starts_with("250"), "refused");
    let [arrival] = behind
        .delivered(["SUBJECT:  [attachment removed] s"])
        .await?;
    let (sent, got) = (
        String::from_utf8(sent)?,
        String::from_utf8(arrival.content)?,
    );
    let got = from_top(&got, "From: Ann")?;
    let (before, after) = got.split_once("[attachment removed] ").context("no mark")?;
    ensure!(sent.starts_with(before), "before the mark: {before}");
    let part = "--frontier\r\n\r\nThe first part stays as it is.\r\n--frontier\r\n";
    let start = sent.find(part).context("no part")? + part.len();
    let between = sent.get(before.len()..start).context("a boundary")?;
    ensure!(after.starts_with(between), "up to the part: {after}");
    ensure!(after.ends_with(LAST), "behind the part: {after}");
    let new = after
        .get(between.len()..after.len() - LAST.len())
        .context("a boundary")?;
    ensure!(
        new.contains("was removed from this message") && !new.contains("--frontier"),
        "{new}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_clamd_the_failure_policy_decides() -> Result<()> {
    let clamd = Clamd::start().await?;
    let config = json!({ "clamd": clamd.config() });
    let strict = behind(&config, "tempfail").await?;
    let lenient = behind(&config, "accept").await?;
    let infected = attached("s", "m.txt", MARKER.as_bytes());
    ensure!(
        strict.send(&infected).await?.starts_with("250"),
        "with clamd"
    );
    // It takes the question, and is gone before it has answered.
    clamd.signal(Signal::STOP)?;
    let asked = strict.send(&infected);
    let killed = async {
        eventually("clamd has a connection", || clamd.connections() > 0).await;
        drop(clamd);
    };
    let (said, ()) = tokio::join!(asked, killed);
    let said = said?;
    ensure!(said.starts_with("451"), "{said}");
    let said = strict.send(&infected).await?;
    ensure!(said.starts_with("451"), "{said}");
    let said = lenient.send(&infected).await?;
    ensure!(said.starts_with("250"), "{said}");
    let [passed] = lenient.delivered(["SUBJECT:  s"]).await?;
    ensure!(passed.content.ends_with(&infected), "octets differ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_refused_quickly() -> Result<()> {
    let clamd = Clamd::start().await?;
    let behind = behind(&json!({ "clamd": clamd.config() }), "tempfail").await?;
    for (name, content, reply) in [
        (
            "z.zip",
            python("zipped('z', bytes(100 << 20))", b"")?,
            "550 5.6.0 \"z.zip/z\" cannot be looked at completely",
        ),
        (
            "cut.zip",
            python("zipped('x', bytes(range(256)) * 99)[:300]", b"")?,
            "550 5.6.0 \"cut.zip/x\" cannot be looked at completely: it is damaged",
        ),
        // More than clamd is sent.
        (
            "big.bin",
            vec![b'x'; 1_200_000],
            "552 5.3.4 \"big.bin\" cannot be looked at completely",
        ),
    ] {
        let start = Instant::now();
        let said = behind.send(&attached("s", name, &content)).await?;
        ensure!(said.starts_with(reply), "{name}: {said}");
        ensure!(
            start.elapsed() < Duration::from_secs(18),
            "{name}: {:?}",
            start.elapsed()
        );
    }
    Ok(())
}

/// A tool that takes incidents: their JSON as it came, after a refusal of the first attempt.
async fn tool() -> Result<(String, Arc<Mutex<Vec<String>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/incidents", listener.local_addr()?);
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut answer = "503 Later";
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"}}") {
                let mut part = [0; 4096];
                let octets = stream.read(&mut part).await?;
                anyhow::ensure!(octets > 0, "cut off");
                request.extend_from_slice(part.get(..octets).unwrap_or_default());
            }
            let text = String::from_utf8(request)?;
            let body = text.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
            if answer.starts_with('2') {
                kept.lock().expect("no test panics there").push(body);
            }
            let reply =
                format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(reply.as_bytes()).await?;
            answer = "202 Accepted";
        }
        anyhow::Ok(())
    });
    Ok((url, seen))
}

/// A filter that does everything it can, and an edge with which it may.
async fn acting(clamd: &Clamd, url: String) -> Result<Behind> {
    let config = json!({
        "clamd": clamd.config(), "bodyMark": "Something was removed.", "notify": ["sender", "recipients", "administrator"],
        "policies": [{ "recipients": ["held@*"], "set": { "quarantine": true, "notify": [], "report": false } }],
    });
    let target = service(SecurityFilter::from_config(&config)?).await?;
    let rules = rule("tempfail").objects("scan", &target);
    Behind::configured(&rules, |edge| {
        edge.relay_networks = vec!["127.0.0.1/32".parse().expect("a network")];
        edge.domains.push("example.org".into());
        edge.notifications.administrator = Some("admin@example.com".into());
        edge.incidents.webhook = Some(WebhookConfig {
            url,
            ca_file: None,
            insecure_plaintext: false,
            bearer_token_file: None,
            timeout: Duration::from_secs(10),
        });
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_six_actions() -> Result<()> {
    let clamd = Clamd::start().await?;
    let (url, incidents) = tool().await?;
    let behind = acting(&clamd, url).await?;
    let sent = attached("s", "m.txt", MARKER.as_bytes());
    let mut dialog = behind.dialog().await?;
    let said = dialog
        .message(ANN, &[BOB, "held@example.com"], &sent)
        .await?;
    ensure!(said.starts_with("250"), "{said}");
    // The message for one recipient, and three notifications; the other recipient's is held.
    eventually("four deliveries", || behind.hop.arrivals().len() >= 4).await;
    let arrivals = behind.hop.arrivals();
    let told: Vec<_> = arrivals
        .iter()
        .filter(|arrival| arrival.from.is_empty())
        .collect();
    let mut to: Vec<_> = told.iter().flat_map(|arrival| arrival.to.clone()).collect();
    to.sort();
    ensure!(to == ["admin@example.com", ANN, BOB], "{to:?}");
    for notification in told {
        let text = String::from_utf8_lossy(&notification.content);
        ensure!(text.contains("infected with Test.Marker"), "{text}");
    }
    let delivered: Vec<_> = arrivals
        .iter()
        .filter(|arrival| arrival.from == ANN)
        .collect();
    let [delivered] = delivered.as_slice() else {
        anyhow::bail!("{} deliveries", delivered.len());
    };
    ensure!(delivered.to == [BOB], "{:?}", delivered.to);
    let text = String::from_utf8_lossy(&delivered.content);
    for expected in [
        "SUBJECT:  [attachment removed] s\r\n",
        "Something was removed.",
        "The attachment \"m.txt\" was removed",
        "X-Opes-Security: replaced; count=1; cause=virus\r\n",
    ] {
        ensure!(text.contains(expected), "{expected}: {text}");
    }
    let outcomes = behind
        .edge
        .reports()
        .into_iter()
        .flat_map(|report| report.outcomes);
    let held = outcomes
        .filter(|outcome| matches!(outcome, opes_edge::report::MessageOutcome::Quarantined(_)));
    ensure!(held.count() == 1, "the other recipient's message is held");
    let told = || incidents.lock().expect("no test panics there").clone();
    eventually("the incident is told, at the second attempt", || {
        !told().is_empty()
    })
    .await;
    let incident: Value = serde_json::from_str(&told().remove(0))?;
    ensure!(
        incident["rule"] == "default/scan" && incident["id"].is_string(),
        "{incident}"
    );
    ensure!(
        incident["incident"]["parts"][0]["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("Test.Marker")),
        "{incident}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sub_policies_by_sender_and_recipient() -> Result<()> {
    let config = json!({
        "policies": [
            { "senders": ["*@partner.example.net"], "set": { "blockNames": [], "blockTypes": [] } },
            { "recipients": ["lab@*"], "set": { "onViolation": "reject" } },
            { "recipients": ["dev-*"], "set": { "subjectMark": "[dev] " } },
        ],
    });
    let behind = behind(&config, "tempfail").await?;
    let sent = attached("s", "tool.exe", b"MZ");
    let mut dialog = behind.dialog().await?;
    let said = dialog.message(ANN, &["lab@example.com"], &sent).await?;
    ensure!(said.starts_with("550 5.7.1"), "{said}");
    let said = dialog
        .message("bob@PARTNER.example.net", &["lab@example.com"], &sent)
        .await?;
    ensure!(said.starts_with("250"), "{said}");
    let said = dialog
        .message(ANN, &[BOB, "dev-1@example.com"], &sent)
        .await?;
    ensure!(said.starts_with("250"), "{said}");
    let fields = [
        "SUBJECT:  s",
        "SUBJECT:  [attachment removed] s",
        "SUBJECT:  [dev] s",
    ];
    let [partner, bob, dev] = behind.delivered(fields).await?;
    ensure!(
        partner.content.ends_with(&sent) && partner.to == ["lab@example.com"],
        "{:?}",
        partner.to
    );
    ensure!(
        bob.to == [BOB] && dev.to == ["dev-1@example.com"],
        "{:?} {:?}",
        bob.to,
        dev.to
    );
    Ok(())
}
