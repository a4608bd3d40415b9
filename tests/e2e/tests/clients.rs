//! Clients that we did not write are served without a protocol error, and a Postfix next hop gets every message once.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Result, ensure};
use opes_e2e::postfix::Postfix;
use opes_e2e::{Daemon, eventually, need, opes, opes_program};

fn dev(next_hop: &str, state: &std::path::Path) -> Result<Daemon> {
    opes([
        "dev",
        "--next-hop",
        next_hop,
        "--state",
        &state.display().to_string(),
        "--smtp",
        "127.0.0.1:0",
        "--submission",
        "127.0.0.1:0",
        "--lmtp",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--links",
        "127.0.0.1:0",
    ])
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{command:?}\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn smtp_source_to_a_postfix_next_hop_every_message_once() -> Result<()> {
    need("smtp-source");
    let (state, postfix) = (tempfile::tempdir()?, Postfix::start("")?);
    let edge = dev(&postfix.address.to_string(), state.path())?;
    let server = edge.address("mx").to_string();
    run(Command::new("/usr/sbin/smtp-source").args([
        "-s",
        "20",
        "-m",
        "2000",
        "-l",
        "4096",
        "-f",
        "steve@example.org",
        "-t",
        "paul@example.com",
        &server,
    ]))?;
    eventually("2000 messages in the Maildir of Postfix", || {
        postfix.mail().len() >= 2000
    })
    .await;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for path in postfix.mail() {
        let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
        let id = text
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with("message-id:"));
        *seen.entry(id.unwrap_or("none").to_owned()).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count != 1).collect();
    ensure!(
        twice.is_empty(),
        "not exactly once: {twice:?}\n{}",
        postfix.log()
    );
    ensure!(seen.len() == 2000, "{} different messages", seen.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn swaks_over_starttls_and_auth_and_lmtp() -> Result<()> {
    need("swaks");
    let (state, sink) = (tempfile::tempdir()?, opes_e2e::sink::Sink::start().await?);
    let edge = dev(&sink.address.to_string(), state.path())?;
    let to = ["--from", "steve@example.org", "--to", "paul@example.com"];
    let submission = edge.address("submission").to_string();
    let (mx, lmtp) = (
        edge.address("mx").to_string(),
        edge.address("lmtp").to_string(),
    );
    let dialogs: [(&str, Vec<&str>); 5] = [
        ("plain", vec!["--server", &mx]),
        ("pipelined", vec!["--server", &mx, "--pipeline"]),
        ("TLS", vec!["--server", &mx, "--tls"]),
        (
            "submission",
            vec![
                "--server",
                &submission,
                "--tls",
                "--auth",
                "PLAIN",
                "--auth-user",
                "dev",
                "--auth-password",
                "dev",
            ],
        ),
        ("LMTP", vec!["--server", &lmtp, "--protocol", "LMTP"]),
    ];
    for (name, arguments) in &dialogs {
        let transcript = run(Command::new("swaks").args(to).args(arguments))?;
        ensure!(
            !transcript.contains("<** "),
            "{name}: refused\n{transcript}"
        );
    }
    let login = [
        "--server",
        &submission,
        "--tls",
        "--auth",
        "LOGIN",
        "--auth-user",
        "dev",
        "--auth-password",
        "wrong",
    ];
    let refused = Command::new("swaks").args(to).args(login).output()?;
    let transcript = String::from_utf8_lossy(&refused.stdout);
    ensure!(
        !refused.status.success() && transcript.contains(" 535 5.7.8"),
        "wrong password\n{transcript}"
    );
    eventually("five messages at the next hop", || {
        sink.count() >= dialogs.len()
    })
    .await;
    ensure!(sink.count() == dialogs.len());
    Ok(())
}

/// Refuses what is for example.org, once its content is there.
const REFUSE_SOME: &str = "
apiVersion: opes.dev/v1alpha1
kind: OpesRule
metadata: { name: not-for-example-org }
spec:
  at: [content]
  match: { recipientDomains: [example.org] }
  action: { reject: { text: not for example.org } }
";

#[tokio::test(flavor = "multi_thread")]
async fn swaks_gets_a_reply_for_each_recipient_by_prdr() -> Result<()> {
    need("swaks");
    let (state, sink) = (tempfile::tempdir()?, opes_e2e::sink::Sink::start().await?);
    let rules = state.path().join("rules.yaml");
    std::fs::write(&rules, REFUSE_SOME)?;
    let mut command = Command::new(opes_program());
    command
        .args(["dev", "--next-hop", &sink.address.to_string(), "--state"])
        .arg(state.path().join("state"))
        .arg("-f")
        .arg(&rules)
        .args(["--smtp", "127.0.0.1:0", "--submission", "127.0.0.1:0"])
        .args(["--lmtp", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let edge = Daemon::start(command, |line| line == "ready")?;
    let server = edge.address("mx").to_string();
    let swaks = |to: &str| {
        let mut swaks = Command::new("swaks");
        swaks.args([
            "--server",
            &server,
            "--prdr",
            "--from",
            "steve@example.net",
            "--to",
            to,
        ]);
        run(&mut swaks)
    };
    let mixed = swaks("paul@example.com,ann@example.org")?;
    let replies: Vec<&str> = mixed
        .lines()
        .skip_while(|line| !line.contains("-> ."))
        .filter_map(|line| line.strip_prefix("<"))
        .map(|line| line.trim_start_matches(['-', '*', ' ']))
        .filter_map(|line| line.get(..3))
        .collect();
    ensure!(
        replies == ["353", "250", "550", "250", "221"],
        "{replies:?}\n{mixed}"
    );
    let same = swaks("paul@example.com,mary@example.com")?;
    ensure!(!same.contains(" 353 "), "one reply for all\n{same}");
    eventually("both messages at the next hop", || sink.count() >= 2).await;
    ensure!(sink.count() == 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn python_smtplib() -> Result<()> {
    need("python3");
    let (state, sink) = (tempfile::tempdir()?, opes_e2e::sink::Sink::start().await?);
    let edge = dev(&sink.address.to_string(), state.path())?;
    let script = r#"
import smtplib, sys
from email.message import EmailMessage
host, port = sys.argv[1].split(":")
with smtplib.SMTP(host, int(port)) as client:
    client.set_debuglevel(0)
    for number in range(20):
        message = EmailMessage()
        message["From"], message["To"] = "steve@example.org", "paul@example.com"
        message["Subject"] = f"number {number}"
        message.set_content(".a line with a dot\n.\nCaf\u00e9\n")
        refused = client.send_message(message)
        assert refused == {}, refused
    assert client.noop()[0] == 250
    try:
        client.sendmail("spammer@example.net", ["paul@example.com"], "Subject: x\r\n\r\nx")
        sys.exit("the denied sender was accepted")
    except smtplib.SMTPSenderRefused as refusal:
        assert refusal.smtp_code == 550, refusal
"#;
    run(Command::new("python3").args(["-c", script, &edge.address("mx").to_string()]))?;
    eventually("twenty messages at the next hop", || sink.count() >= 20).await;
    let arrivals = sink.arrivals();
    ensure!(arrivals.len() == 20, "{} messages", arrivals.len());
    for arrival in arrivals {
        let text = String::from_utf8_lossy(&arrival.content).into_owned();
        ensure!(
            text.contains("\r\n.a line with a dot\r\n.\r\n"),
            "dots: {text}"
        );
    }
    Ok(())
}
