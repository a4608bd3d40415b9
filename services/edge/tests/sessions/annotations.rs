//! Rules that wait for what services of the same point say.

use crate::harness::{Bench, act, call};

const SCORED: &str = ", match: { cel: 'annotation(\"spam.score\") > 5' }";

#[tokio::test]
async fn an_action_waits_for_the_annotation_of_an_analyser() {
    let never = ", match: { cel: 'annotation(\"spam.score\") > 10' }";
    let rules = [
        call("score", "content", "judge", "score", ""),
        act("mark", "content", "markSubject: { text: '[SPAM]' }", SCORED),
        act("other", "content", "reject: {}", never),
    ];
    let bench = Bench::start(&rules.concat()).await;
    let mut client = bench.client().await;
    let reply = client.send("b@example.org", "Subject: a\r\n\r\nx").await;
    assert!(reply.starts_with("250"), "{reply}");
    let message = bench.delivered("example.org", "b").await;
    assert_eq!(
        message.matches("Subject: [SPAM] a\r\n").count(),
        1,
        "{message}"
    );
}

#[tokio::test]
async fn a_refusal_can_depend_on_an_annotation_and_the_header() {
    let both = ", match: { cel: 'annotation(\"spam.score\") > 5 && header(\"Subject\") == \"a\"' }";
    let rules = [
        call("score", "content", "judge", "score", ""),
        act("refuse", "content", "reject: {}", both),
    ];
    let bench = Bench::start(&rules.concat()).await;
    let mut client = bench.client().await;
    for (subject, code) in [("a", "550"), ("b", "250")] {
        let content = format!("Subject: {subject}\r\n\r\nx");
        let reply = client.send("b@example.org", &content).await;
        assert!(reply.starts_with(code), "{reply}");
    }
}

#[tokio::test]
async fn rules_at_helo_see_the_name_that_is_being_said() {
    let bad = ", match: { cel: 'helo == \"bad.example.org\"' }";
    let bench = Bench::start(&act("bad", "helo", "reject: {}", bad)).await;
    let mut client = bench.client().await;
    for (name, code) in [("good", "250"), ("bad", "550"), ("good", "250")] {
        let reply = client.command(&format!("EHLO {name}.example.org")).await;
        assert!(reply.starts_with(code), "{name}: {reply}");
    }
}

#[tokio::test]
async fn what_is_said_before_the_greeting_is_known_in_every_transaction() {
    let rules = [
        call("score", "connect", "judge", "score", ""),
        act("refuse", "mailFrom", "reject: {}", SCORED),
    ];
    let bench = Bench::start(&rules.concat()).await;
    let mut client = bench.client().await;
    for _ in 0..2 {
        assert_eq!(client.codes(&["MAIL FROM:<a@example.net>"]).await, ["550"]);
    }
    // And to a rule that looks for another score it is known, too.
    let less = ", match: { cel: 'annotation(\"spam.score\") < 5' }";
    let rules = [
        call("score", "connect", "judge", "score", ""),
        act("refuse", "mailFrom", "reject: {}", less),
    ];
    let bench = Bench::start(&rules.concat()).await;
    let mut client = bench.client().await;
    assert_eq!(client.codes(&["MAIL FROM:<a@example.net>"]).await, ["250"]);
}

#[tokio::test]
async fn adapters_run_once_and_those_that_waited_run_too() {
    let said = ", match: { cel: 'hasAnnotation(\"spam.score\") && size > 1' }";
    let rules = [
        call("score", "content", "judge", "score", ""),
        call("always", "content", "editor", "header", ""),
        call("waited", "content", "editor", "splice-end", said),
    ];
    let bench = Bench::start(&rules.concat()).await;
    let mut client = bench.client().await;
    client.send("b@example.org", "Subject: a\r\n\r\nx").await;
    let message = bench.delivered("example.org", "b").await;
    assert_eq!(message.matches("X-Probe: seen\r\n").count(), 1, "{message}");
    assert!(message.ends_with("x!\r\n"), "{message}");
}
