//! A recipient that fails after our 250 is told to the sender: once, readable for others, also across `kill -9`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use opes_e2e::hop::{Arrival, Hop, Manners};
use opes_e2e::smtp::{Dialog, sample, stuffed};
use opes_e2e::{Daemon, eventually, need, opes};
use serde_json::Value;

/// Kills, each at another moment between our first 250 and the last report.
const ROUNDS: usize = 8;
/// Messages of a round, each with a sender of its own.
const MESSAGES: usize = 25;

const REFUSAL: &str = "550-5.1.1 No such user\r\n550 5.1.1 here, ask paul@example.com";

/// What Python's standard library makes of a report.
const READER: &str = r#"
import email, email.policy, json, sys
report = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
human, status, returned = report.iter_parts()
groups = [dict(group.items()) for group in status.get_payload()]
print(json.dumps({
    "headers": dict(report.items()), "type": report.get_content_type(), "reportType": report["Content-Type"].params["report-type"],
    "kinds": [part.get_content_type() for part in (human, status, returned)], "human": human.get_content(), "message": groups[0],
    "recipients": groups[1:], "returned": returned.get_content(),
    "defects": [str(defect) for part in report.walk() for defect in part.defects],
}))
"#;

fn refusing() -> Manners {
    let refused = ["gone@example.com", "lost@example.com"];
    Manners {
        recipients: BTreeMap::from(refused.map(|to| (to.to_owned(), REFUSAL.to_owned()))),
        ..Manners::default()
    }
}

fn start(folder: &Path, delivery: &str, more: &str) -> Result<Daemon> {
    let config = folder.join("edge.yaml");
    let text = format!(
        "hostname: mail.example.com\nsystem: https://mail.example.com/opes\nspool: {0}/spool\ndomains: [example.com, example.org]\n\
         delivery: {delivery}\n{more}listeners:\n  - {{ name: mx, address: '127.0.0.1:0', dsn: true }}\n",
        folder.display()
    );
    std::fs::write(&config, text)?;
    opes([
        "edge".to_owned(),
        "--config".to_owned(),
        config.display().to_string(),
    ])
}

fn read(report: &[u8]) -> Result<Value> {
    use std::io::Write as _;
    use std::process::Stdio;
    need("python3");
    let mut python = Command::new("python3")
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    python.stdin.take().context("no input")?.write_all(report)?;
    let output = python.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(report)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Sends one message with these commands, and its content; 250 is expected.
async fn send(edge: &Daemon, commands: &[&str], name: &str) -> Result<()> {
    let mut dialog = Dialog::open(edge.address("mx"), false).await?;
    for command in commands {
        let reply = dialog.command(command).await?;
        ensure!(reply.starts_with("250"), "{command}: {reply}");
    }
    dialog.command("DATA").await?;
    dialog.send(&stuffed(&sample(name, 300))).await?;
    dialog.send(b".\r\n").await?;
    let reply = dialog.reply().await?;
    ensure!(reply.starts_with("250"), "{reply}");
    Ok(())
}

/// Stops the edge when all it had to do is done, and gives what the next hop took.
async fn finish(edge: Daemon, folder: &Path, hop: &Hop, arrivals: usize) -> Result<Vec<Arrival>> {
    eventually("everything at the next hop", || {
        hop.arrivals().len() >= arrivals
    })
    .await;
    edge.terminate()?;
    // Whatever was still to be done would be done by the next one.
    let edge = start(folder, &format!("{{ nextHop: '{}' }}", hop.address), "")?;
    let marker = ["MAIL FROM:<>", "RCPT TO:<marker@example.com>"];
    send(&edge, &marker, "marker").await?;
    eventually("the marker at the next hop", || {
        hop.arrivals().len() > arrivals
    })
    .await;
    edge.terminate()?;
    let mut arrived = hop.arrivals();
    arrived.retain(|arrival| arrival.to != ["marker@example.com"]);
    Ok(arrived)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_gets_one_report_and_the_other_recipient_one_message() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let hop = Hop::start(refusing()).await?;
    let edge = start(
        folder.path(),
        &format!("{{ nextHop: '{}' }}", hop.address),
        "",
    )?;
    let commands = [
        "MAIL FROM:<steve@example.org> RET=HDRS ENVID=QQ+3D1",
        "RCPT TO:<paul@example.com>",
        "RCPT TO:<gone@example.com> NOTIFY=FAILURE ORCPT=rfc822;old+2Bgone@example.com",
        "RCPT TO:<lost@example.com>",
    ];
    send(&edge, &commands, "one").await?;
    let arrived = finish(edge, folder.path(), &hop, 2).await?;
    let [message, report] = arrived.as_slice() else {
        anyhow::bail!("{} arrivals: {arrived:?}", arrived.len());
    };
    ensure!(message.to == ["paul@example.com"] && message.from == "steve@example.org");
    ensure!(
        report.to == ["steve@example.org"] && report.from.is_empty(),
        "{report:?}"
    );
    let read = read(&report.content)?;
    assert_eq!(read["defects"], serde_json::json!([]));
    assert_eq!(read["type"], "multipart/report");
    assert_eq!(read["reportType"], "delivery-status");
    assert_eq!(read["headers"]["Auto-Submitted"], "auto-replied");
    assert_eq!(read["headers"]["To"], "steve@example.org");
    assert_eq!(
        read["kinds"],
        serde_json::json!([
            "text/plain",
            "message/delivery-status",
            "text/rfc822-headers"
        ])
    );
    assert_eq!(read["message"]["Original-Envelope-Id"], "QQ=1");
    assert_eq!(read["message"]["Reporting-MTA"], "dns; mail.example.com");
    let system = read["message"]["X-OPES-System"].to_string();
    ensure!(
        system.contains("https://mail.example.com/opes; id="),
        "{system}"
    );
    let recipients = read["recipients"].as_array().context("no recipients")?;
    assert_eq!(recipients.len(), 2);
    let gone = &recipients[0];
    assert_eq!(gone["Original-Recipient"], "rfc822; old+gone@example.com");
    assert_eq!(gone["Final-Recipient"], "rfc822; gone@example.com");
    assert_eq!(
        (&gone["Action"], &gone["Status"]),
        (&"failed".into(), &"5.1.1".into())
    );
    assert_eq!(
        gone["Diagnostic-Code"],
        "smtp; 550 5.1.1 No such user here, ask paul@example.com"
    );
    assert_eq!(recipients[1]["Final-Recipient"], "rfc822; lost@example.com");
    let human = read["human"].as_str().unwrap_or_default();
    for said in [
        "<gone@example.com>",
        "No such user",
        "https://mail.example.com/opes",
    ] {
        ensure!(human.contains(said), "{human}");
    }
    ensure!(
        read["returned"].to_string().contains("Subject: one"),
        "{read}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_without_sender_or_against_its_wish() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let hop = Hop::start(refusing()).await?;
    let edge = start(
        folder.path(),
        &format!("{{ nextHop: '{}' }}", hop.address),
        "",
    )?;
    for (from, to) in [
        ("<>", "<gone@example.com>"),
        ("<steve@example.org>", "<gone@example.com> NOTIFY=NEVER"),
    ] {
        let commands = [format!("MAIL FROM:{from}"), format!("RCPT TO:{to}")];
        send(&edge, &commands.each_ref().map(String::as_str), "none").await?;
    }
    let arrived = finish(edge, folder.path(), &hop, 0).await?;
    ensure!(arrived.is_empty(), "{arrived:?}");
    Ok(())
}

fn reports(folder: &Path, sender: &str) -> Vec<PathBuf> {
    let mailbox = folder.join("mail/example.org").join(sender);
    ["new", "cur"]
        .into_iter()
        .flat_map(|name| opes_e2e::postfix::files(&mailbox.join(name)))
        .collect()
}

/// Sends until all is sent or the edge is gone; gives whom a 250 was said to, and counts them as they come.
async fn load(server: std::net::SocketAddr, round: usize, count: Arc<AtomicUsize>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let Ok(mut dialog) = Dialog::open(server, false).await else {
        return acknowledged;
    };
    for number in 0..MESSAGES {
        let name = format!("s{round}-{number}");
        let message = sample(&name, 300);
        let sender = format!("{name}@example.org");
        let sent = dialog
            .message(&sender, &["gone@example.com"], &message)
            .await;
        match sent {
            Ok(reply) if reply.starts_with("250") => {
                acknowledged.push(name);
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) | Err(_) => break,
        }
    }
    acknowledged
}

/// Reports go to Maildirs, where a second copy of one cannot hide behind RFC 1047; what fails goes to the next hop of a rule.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_neither_loses_a_report_nor_makes_two() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let hop = Hop::start(refusing()).await?;
    std::fs::create_dir(folder.path().join("mail"))?;
    std::fs::create_dir(folder.path().join("rules"))?;
    let rule = format!(
        "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: away }}\nspec:\n  at: [rcptTo]\n  match: {{ recipientDomains: [example.com] }}\n  \
         action: {{ route: {{ host: 127.0.0.1, port: {} }} }}\n",
        hop.address.port()
    );
    std::fs::write(folder.path().join("rules/away.yaml"), rule)?;
    let start = || {
        let shown = folder.path().display();
        start(
            folder.path(),
            &format!("{{ maildir: {shown}/mail }}"),
            &format!("rules: {shown}/rules\n"),
        )
    };
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut edge = start()?;
        let count = Arc::<AtomicUsize>::default();
        let loading = tokio::spawn(load(edge.address("mx"), round, Arc::clone(&count)));
        tokio::time::sleep(Duration::from_millis(15 + 23 * round as u64)).await;
        // However slow the machine is, in the last round there is something to lose.
        if round + 1 == ROUNDS {
            eventually("a 250", || count.load(Ordering::Relaxed) > 0).await;
        }
        edge.kill();
        acknowledged.extend(loading.await?);
    }
    ensure!(!acknowledged.is_empty(), "nothing was acknowledged");
    let edge = start()?;
    eventually("a report for every acknowledged message", || {
        let told = |sender: &String| !reports(folder.path(), sender).is_empty();
        acknowledged.iter().all(told)
    })
    .await;
    edge.terminate()?;
    for sender in &acknowledged {
        let found = reports(folder.path(), sender);
        ensure!(found.len() == 1, "{sender}: {found:?}");
    }
    ensure!(hop.arrivals().is_empty(), "{:?}", hop.arrivals());
    println!(
        "{} acknowledged in {ROUNDS} rounds, each reported once",
        acknowledged.len()
    );
    Ok(())
}
