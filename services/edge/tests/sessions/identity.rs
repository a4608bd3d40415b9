//! Every refusal that rules and services caused says which system it comes from and where in its log to look (C-61, RFC 4902 §4). The one
//! exception, AUTH, is in `auth.rs`.

use opes_edge::config::{ListenerProtocol, MixedVerdicts};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;

use crate::harness::{Bench, act, call};

const CONTENT: &str = "Subject: a\r\n\r\nx\r\n.";
const MIXED: [&str; 4] = [
    "MAIL FROM:<a@example.net>",
    "RCPT TO:<accept@example.org>",
    "RCPT TO:<reject@example.org>",
    "DATA",
];

/// The reply is that one, with system and trace id.
#[track_caller]
fn identified(reply: &str, code: &str) {
    assert!(reply.starts_with(code), "{code}: {reply}");
    let (_, identity) = reply
        .split_once(" (https://mail.example.com/opes; id=")
        .unwrap_or_else(|| panic!("no identity: {reply}"));
    let id = identity.strip_suffix(')').unwrap();
    assert!(id.contains('-') && !id.contains(' '), "{reply}");
}

#[tokio::test]
async fn c_61_a_refusal_by_failure_policy_is_identified_at_every_point() {
    for (policy, code) in [("tempfail", "451"), ("reject", "554")] {
        let rule = call("fails", "content", "judge", "fail", "");
        let rule = rule.replace("allow:", &format!("onFailure: {policy}, allow:"));
        let bench = Bench::start(&rule).await;
        let mut client = bench.client().await;
        identified(
            &client.send("b@example.org", "Subject: a\r\n\r\nx").await,
            code,
        );
    }
    for (point, command) in ["helo", "mailFrom", "rcptTo", "data"].into_iter().zip([
        "EHLO client.example.org",
        "MAIL FROM:<a@example.net>",
        "RCPT TO:<b@example.org>",
        "DATA",
    ]) {
        let service = if point == "data" { "judge" } else { "editor" };
        let rule = call(
            "fails",
            point,
            service,
            "fail",
            ", match: { cel: 'helo == \"again\"' }",
        );
        let rule = rule.replace("[header, body, reject]", "[reject]");
        let bench = Bench::start(&rule).await;
        let mut client = bench.client().await;
        let before = match point {
            "helo" => &[][..],
            "mailFrom" => &["EHLO again"],
            "rcptTo" => &["EHLO again", "MAIL FROM:<a@example.net>"],
            _ => &[
                "EHLO again",
                "MAIL FROM:<a@example.net>",
                "RCPT TO:<b@example.org>",
            ],
        };
        for command in before {
            assert!(
                client.command(command).await.starts_with("250"),
                "{command}"
            );
        }
        let command = if point == "helo" {
            "EHLO again"
        } else {
            command
        };
        identified(&client.command(command).await, "451");
    }
}

#[tokio::test]
async fn c_61_who_is_refused_before_the_greeting_is_told_by_whom() {
    let bench = Bench::start(&act("closed", "connect", "reject: {}", "")).await;
    let stream = TcpStream::connect(bench.address()).await.unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    identified(line.trim_end(), "554");
}

#[tokio::test]
async fn c_61_recipients_that_are_split_off_are_told_by_whom() {
    let bench = Bench::start(&call("judge", "content", "judge", "apart", "")).await;
    let mut client = bench.client().await;
    client.codes(&MIXED).await;
    identified(&client.command(CONTENT).await, "451");
    // From now on this sender gets one recipient for each transaction.
    let codes = client.codes(&MIXED[..2]).await;
    assert_eq!(codes, ["250", "250"]);
    identified(&client.command(MIXED[2]).await, "452");
}

#[tokio::test]
async fn c_61_recipients_with_other_plans_are_told_by_whom() {
    let com = ", match: { recipientDomains: [example.com] }";
    let mark = act(
        "mark",
        "content",
        "addHeader: { name: X-Com, value: yes-it-is }",
        com,
    );
    let bench = Bench::start(&mark).await;
    let mut client = bench.client().await;
    client
        .codes(&["MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>"])
        .await;
    identified(&client.command("RCPT TO:<b@example.com>").await, "452");
}

#[tokio::test]
async fn c_61_one_refusal_for_all_and_one_for_each_are_identified() {
    let judge = call("judge", "content", "judge", "apart", "");
    let all = Bench::start_with(&judge, |config| {
        config.listeners[0].mixed_verdicts = MixedVerdicts::RejectAll;
    })
    .await;
    let mut client = all.client().await;
    client.codes(&MIXED).await;
    identified(&client.command(CONTENT).await, "550");
    let each = Bench::start_with(&judge, |config| {
        config.listeners[0].protocol = ListenerProtocol::Lmtp;
    })
    .await;
    let mut client = each.lmtp_client().await;
    client.codes(&MIXED).await;
    assert!(client.command(CONTENT).await.starts_with("250"));
    identified(&client.reply().await, "550");
}
