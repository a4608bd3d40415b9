//! What becomes of a message as a whole.

use crate::harness::{Bench, act, call, files};

#[tokio::test]
async fn a_message_that_goes_in_circles_is_refused() {
    let bench = Bench::start("").await;
    let mut client = bench.client().await;
    for (hops, code) in [(99, "250"), (100, "554")] {
        let trace = "Received: from a.example by b.example; Thu, 1 Jan 1970 00:00:00 +0000\r\n";
        let content = format!("{}Subject: a\r\n\r\nx", trace.repeat(hops));
        let reply = client.send("b@example.org", &content).await;
        assert!(reply.starts_with(code), "{hops} hops: {reply}");
    }
}

#[tokio::test]
async fn a_quarantined_message_is_a_pair_of_files_and_is_not_delivered() {
    let hold = act("hold", "content", "quarantine: { reason: looks odd }", "");
    let bench = Bench::start(&hold).await;
    let mut client = bench.client().await;
    let reply = client.send("b@example.org", "Subject: a\r\n\r\nx").await;
    assert!(reply.starts_with("250"), "{reply}");
    let pair = files(&bench.dir.path().join("spool/quarantine"));
    assert_eq!(pair.len(), 2, "{pair:?}");
    assert!(files(&bench.dir.path().join("mail")).is_empty());
}

#[tokio::test]
async fn edits_that_do_not_fit_are_a_failure_of_the_service_and_none_is_made() {
    for edits in ["splice-outside", "splice-overlap"] {
        for (policy, code) in [("accept", "250"), ("tempfail", "451"), ("reject", "554")] {
            let rule = call("edit", "content", "editor", edits, "");
            let rule = rule.replace("allow:", &format!("onFailure: {policy}, allow:"));
            let bench = Bench::start(&rule).await;
            let mut client = bench.client().await;
            let reply = client.send("b@example.org", "Subject: a\r\n\r\nx").await;
            assert!(reply.starts_with(code), "{edits}, {policy}: {reply}");
            if policy == "accept" {
                let message = bench.delivered("example.org", "b").await;
                assert!(message.ends_with("Subject: a\r\n\r\nx\r\n"), "{message}");
                assert!(!message.contains("X-Probe"), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn a_listener_may_take_larger_messages_than_the_store_does_by_default() {
    let bench = Bench::start_with("", |config| config.listeners[0].size_max = 60 << 20).await;
    let mut client = bench.client().await;
    let line = format!("{}\r\n", "x".repeat(998));
    let content = format!("Subject: a\r\n\r\n{}", line.repeat(53 << 10));
    assert!(content.len() > 50 << 20);
    let reply = client.send("b@example.org", content.trim_end()).await;
    assert!(reply.starts_with("250"), "{reply}");
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_session_whose_sender_was_refused() {
    let refuse = act("refuse", "mailFrom", "reject: {}", "");
    let bench = Bench::start(&refuse).await;
    let mut client = bench.client().await;
    assert_eq!(client.codes(&["MAIL FROM:<a@example.net>"]).await, ["550"]);
    let (farewell, ()) = tokio::join!(client.reply(), bench.drain());
    assert!(farewell.starts_with("421"), "{farewell}");
}

#[tokio::test]
async fn a_slow_service_slows_its_client_and_no_neighbour() {
    let slow = ", match: { recipientDomains: [slow.example] }";
    let rules = call("sleep", "content", "editor", "sleep", slow)
        + &call("header", "content", "editor", "header", "");
    let mut bench = Bench::start(&rules).await;
    let (mut waits, mut neighbour) = (bench.client().await, bench.client().await);
    let commands = [
        "MAIL FROM:<a@example.net>",
        "RCPT TO:<b@slow.example>",
        "DATA",
    ];
    assert_eq!(waits.codes(&commands).await, ["250", "250", "354"]);
    waits.say("Subject: a\r\n\r\nx\r\n.").await;
    bench.begun(1).await;
    let reply = tokio::select! {
        biased;
        reply = waits.reply() => panic!("before its service has answered: {reply}"),
        reply = async {
            let mut last = String::new();
            for _ in 0..5 {
                last = neighbour.send("b@example.org", "Subject: a\r\n\r\nx").await;
                assert!(last.starts_with("250"), "{last}");
            }
            last
        } => reply,
    };
    assert!(reply.starts_with("250"), "{reply}");
}
