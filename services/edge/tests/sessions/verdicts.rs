//! One message, four recipients, four verdicts: what each kind of client is told, and who gets what.

use opes_edge::config::{EdgeConfig, ListenerProtocol, MixedVerdicts};

use crate::harness::{Bench, Client, call, files};

const TO: [&str; 4] = ["accept", "reject", "quarantine", "adapt"];

/// `judge` refuses `reject@`, holds `quarantine@`; `editor` adds a field for `adapt@`.
fn rules() -> String {
    let judge = call("judge", "content", "judge", "apart", "");
    judge + &call("editor", "content", "editor", "apart", "")
}

async fn bench(change: impl FnOnce(&mut EdgeConfig)) -> Bench {
    Bench::start_with(&rules(), change).await
}

async fn offer(client: &mut Client, to: &[&str]) -> Vec<String> {
    let rcpt: Vec<String> = to
        .iter()
        .map(|to| format!("RCPT TO:<{to}@example.org>"))
        .collect();
    let mut commands = vec!["MAIL FROM:<a@example.net>"];
    commands.extend(rcpt.iter().map(String::as_str));
    commands.push("DATA");
    client.codes(&commands).await
}

async fn check_places(bench: &Bench) {
    let accepted = bench.delivered("example.org", "accept").await;
    assert!(!accepted.contains("X-Probe"), "{accepted}");
    let adapted = bench.delivered("example.org", "adapt").await;
    assert!(
        adapted.contains("\r\nX-Probe: seen\r\nOPES-System: ")
            && adapted.contains("\r\nSubject: a\r\n"),
        "{adapted}"
    );
    let mail = bench.dir.path().join("mail/example.org");
    let boxes: Vec<_> = files(&mail)
        .into_iter()
        .map(|path| path.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(boxes.len(), 2, "{boxes:?}");
}

#[tokio::test]
async fn lmtp_gives_four_replies() {
    let bench = bench(|config| config.listeners[0].protocol = ListenerProtocol::Lmtp).await;
    let mut client = bench.lmtp_client().await;
    let codes = offer(&mut client, &TO).await;
    assert_eq!(codes, ["250", "250", "250", "250", "250", "354"]);
    let mut replies = vec![client.command("Subject: a\r\n\r\nx\r\n.").await];
    for _ in 1..4 {
        replies.push(client.reply().await);
    }
    let codes: Vec<&str> = replies.iter().map(|reply| &reply[..3]).collect();
    assert_eq!(codes, ["250", "550", "250", "250"], "{replies:?}");
    check_places(&bench).await;
    assert_eq!(bench.held(), 1);
}

#[tokio::test]
async fn smtp_splits_when_the_client_comes_again() {
    let bench = bench(|_| ()).await;
    let mut client = bench.client().await;
    offer(&mut client, &TO).await;
    let reply = client.command("Subject: a\r\n\r\nx\r\n.").await;
    assert!(reply.starts_with("451 4.5.3"), "{reply}");
    assert_eq!(bench.held(), 0, "nothing is kept of what was not accepted");
    let mut left: Vec<&str> = TO.to_vec();
    let mut said = Vec::new();
    while !left.is_empty() {
        let codes = offer(&mut client, &left).await;
        assert_eq!(codes[1], "250");
        assert!(
            codes[2..=left.len()].iter().all(|code| code == "452"),
            "{codes:?}"
        );
        let reply = client.command("Subject: a\r\n\r\nx\r\n.").await;
        said.push(format!("{} {}", left.remove(0), &reply[..3]));
    }
    assert_eq!(
        said,
        ["accept 250", "reject 550", "quarantine 250", "adapt 250"]
    );
    check_places(&bench).await;
    assert_eq!(bench.held(), 1);
}

#[tokio::test]
async fn smtp_may_reject_all() {
    let bench = bench(|config| config.listeners[0].mixed_verdicts = MixedVerdicts::RejectAll).await;
    let mut client = bench.client().await;
    offer(&mut client, &TO).await;
    let reply = client.command("Subject: a\r\n\r\nx\r\n.").await;
    assert!(reply.starts_with("550"), "{reply}");
    assert_eq!(bench.held(), 0);
    bench.drain_and_expect_no_mail().await;
}

#[tokio::test]
async fn smtp_may_quarantine_the_rejected() {
    let mixed = MixedVerdicts::QuarantineRejected;
    let bench = bench(|config| config.listeners[0].mixed_verdicts = mixed).await;
    let mut client = bench.client().await;
    offer(&mut client, &TO).await;
    let reply = client.command("Subject: a\r\n\r\nx\r\n.").await;
    assert!(reply.starts_with("250"), "{reply}");
    check_places(&bench).await;
    assert_eq!(bench.held(), 2);
}

#[tokio::test]
async fn a_decision_that_comes_too_late_is_not_accepted() {
    let rules = call("slow", "content", "editor", "sleep", "");
    let rules = rules.replace("callout: {", "callout: { onFailure: accept,");
    let bench = Bench::start_with(&rules, |config| {
        config.decision_timeout = std::time::Duration::from_millis(200);
    })
    .await;
    let mut client = bench.client().await;
    let reply = client.send("b@example.org", "Subject: a\r\n\r\nx").await;
    assert!(reply.starts_with("451 4.3.2"), "{reply}");
    bench.drain_and_expect_no_mail().await;
}

#[tokio::test]
async fn what_is_said_of_the_session_is_known_in_its_transactions() {
    let rules = call("score", "helo", "judge", "score", "")
        + &crate::harness::act(
            "refuse",
            "mailFrom",
            "reject: {}",
            ", match: { cel: 'annotation(\"spam.score\") > 5' }",
        );
    let bench = Bench::start(&rules).await;
    let mut client = bench.client().await;
    for _ in 0..2 {
        assert_eq!(client.codes(&["MAIL FROM:<a@example.net>"]).await, ["550"]);
    }
}

#[tokio::test]
async fn a_refusal_at_data_concerns_its_recipients_only() {
    let com = ", match: { recipientDomains: [example.com] }";
    let rules = crate::harness::act("gone", "data", "reject: {}", com);
    let bench = Bench::start_with(&rules, |config| {
        config.listeners[0].protocol = ListenerProtocol::Lmtp;
    })
    .await;
    let mut client = bench.lmtp_client().await;
    let commands = [
        "MAIL FROM:<a@example.net>",
        "RCPT TO:<b@example.com>",
        "RCPT TO:<b@example.org>",
        "DATA",
    ];
    assert_eq!(client.codes(&commands).await, ["250", "250", "250", "354"]);
    assert!(
        client
            .command("Subject: a\r\n\r\nx\r\n.")
            .await
            .starts_with("550")
    );
    assert!(client.reply().await.starts_with("250"));
    bench.delivered("example.org", "b").await;
}

#[tokio::test]
async fn envelope_changes_at_commands_are_carried_out() {
    let rules = call("sender", "mailFrom", "editor", "sender", "")
        + &call("rcpt", "rcptTo", "editor", "address", "");
    let rules = rules.replacen("allow: [header, body, reject]", "allow: [sender]", 1);
    let bench = Bench::start(&rules).await;
    let mut client = bench.client().await;
    client
        .send("alias@example.org", "Subject: a\r\n\r\nx")
        .await;
    let message = bench.delivered("example.org", "real").await;
    assert!(
        message.starts_with("Return-Path: <other@example.net>\r\n"),
        "{message}"
    );
}

#[tokio::test]
async fn routing_rules_see_recipients_as_services_left_them() {
    let rules = call("rename", "content", "editor", "rename-content", "")
        .replace("allow: [header, body, reject]", "allow: [recipients]")
        + &crate::harness::act(
            "route",
            "routing",
            "addHeader: { name: X-Routed, value: 'yes' }",
            ", match: { recipientDomains: [fr.example.org] }",
        );
    let bench = Bench::start(&rules).await;
    let mut client = bench.client().await;
    client.send("joe@example.org", "Subject: a\r\n\r\nx").await;
    let message = bench.delivered("fr.example.org", "joe").await;
    assert!(message.contains("X-Routed: yes\r\n"), "{message}");
}

#[tokio::test]
async fn prdr_gives_four_replies_and_a_last_one() {
    let bench = bench(|_| ()).await;
    let mut client = bench.client().await;
    let mut commands = vec!["MAIL FROM:<a@example.net> PRDR".to_owned()];
    commands.extend(TO.iter().map(|to| format!("RCPT TO:<{to}@example.org>")));
    commands.push("DATA".into());
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let codes = client.codes(&commands).await;
    assert_eq!(codes, ["250", "250", "250", "250", "250", "354"]);
    let mut replies = vec![client.command("Subject: a\r\n\r\nx\r\n.").await];
    for _ in 0..5 {
        replies.push(client.reply().await);
    }
    let codes: Vec<&str> = replies.iter().map(|reply| &reply[..3]).collect();
    assert_eq!(
        codes,
        ["353", "250", "550", "250", "250", "250"],
        "{replies:?}"
    );
    check_places(&bench).await;
    assert_eq!(bench.held(), 1);
}
