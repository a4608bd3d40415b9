//! Recipients of one transaction do not get in each other's way.

use crate::harness::{Bench, act, call};

const COM: &str = ", match: { recipientDomains: [example.com] }";

#[tokio::test]
async fn a_refused_recipient_does_not_fix_the_plan_for_the_others() {
    let rules = [
        act("gone", "rcptTo", "reject: {}", COM),
        act(
            "mark",
            "content",
            "addHeader: { name: X-Com, value: yes-it-is }",
            COM,
        ),
    ];
    let bench = Bench::start(&rules.concat()).await;
    let mut client = bench.client().await;
    let codes = client
        .codes(&[
            "MAIL FROM:<a@example.net>",
            "RCPT TO:<x@example.com>",
            "RCPT TO:<b@example.org>",
            "DATA",
        ])
        .await;
    assert_eq!(codes, ["250", "550", "250", "354"]);
}

#[tokio::test]
async fn other_plans_are_split_off_also_if_they_wait_for_the_size() {
    let mark = act(
        "mark",
        "content",
        "addHeader: { name: X-Com, value: yes-it-is }",
        ", match: { recipientDomains: [example.com], sizeUnder: 1Mi }",
    );
    let bench = Bench::start(&mark).await;
    let mut client = bench.client().await;
    let commands = [
        "MAIL FROM:<a@example.net>",
        "RCPT TO:<b@example.org>",
        "RCPT TO:<b@example.com>",
        "DATA",
    ];
    assert_eq!(client.codes(&commands).await, ["250", "250", "452", "354"]);
    assert_eq!(
        client.command("Subject: a\r\n\r\n.").await.get(..3),
        Some("250")
    );
    assert!(!bench.delivered("example.org", "b").await.contains("X-Com"));
}

#[tokio::test]
async fn the_plan_is_that_of_the_address_as_a_service_left_it() {
    let rules = [
        call("rename", "rcptTo", "editor", "rename", ""),
        act(
            "mark",
            "content",
            "addHeader: { name: X-Org, value: yes-it-is }",
            ", match: { recipientDomains: [example.org] }",
        ),
    ];
    let bench = Bench::start(&rules.concat()).await;
    let mut client = bench.client().await;
    let commands = [
        "MAIL FROM:<a@example.net>",
        "RCPT TO:<b@example.org>",
        "RCPT TO:<c@alias.example>",
        "RCPT TO:<d@example.com>",
    ];
    assert_eq!(client.codes(&commands).await, ["250", "250", "250", "452"]);
}

#[tokio::test]
async fn a_refused_recipient_leaves_its_next_hop_to_nobody() {
    let broken = call("broken", "rcptTo", "editor", "break", COM);
    let bench = Bench::start(&broken).await;
    let mut client = bench.client().await;
    let commands = [
        "MAIL FROM:<a@example.net>",
        "RCPT TO:<x@example.com>",
        "RCPT TO:<b@example.org>",
        "DATA",
    ];
    assert_eq!(client.codes(&commands).await, ["250", "451", "250", "354"]);
    client.command("Subject: a\r\n\r\n.").await;
    // With the next hop of the other it would be on its way to 192.0.2.25.
    bench.delivered("example.org", "b").await;
}
