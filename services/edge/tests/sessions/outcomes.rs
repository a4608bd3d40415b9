//! What services and rules have done with a message besides accepting and refusing it.

use crate::harness::{Bench, act};

const CONTENT: &str = "Subject: a\r\n\r\nx";

/// A rule for one of the harness's services. `callout`: further keys of the callout.
fn rule(name: &str, at: &str, service: &str, what: &str, callout: &str) -> String {
    format!(
        "---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec: {{ at: [{at}], callout: {{ \
         serviceRef: {{ name: {service} }}, parameters: {{ do: {what} }}, {callout} }} }}\n"
    )
}

async fn accepted(bench: &Bench) {
    let mut client = bench.client().await;
    let reply = client.send("b@example.org", CONTENT).await;
    assert!(reply.starts_with("250"), "{reply}");
}

#[tokio::test]
async fn what_is_discarded_is_answered_250_counted_and_delivered_to_nobody() {
    for rules in [
        rule("drop", "content", "judge", "discard", "allow: [discard]"),
        rule("drop", "routing", "editor", "discard", "allow: [discard]"),
        act("drop", "content", "discard: { acknowledgeLoss: true }", ""),
    ] {
        let bench = Bench::start(&rules).await;
        accepted(&bench).await;
        bench.expect_metric("opes_messages_total{outcome=\"Discarded\"} 1");
        assert_eq!(bench.held(), 0);
        bench.drain_and_expect_no_mail().await;
    }
}

#[tokio::test]
async fn what_the_rule_does_not_allow_is_not_done_and_counted() {
    let rules = rule("edit", "content", "editor", "too-much", "allow: [header]");
    let bench = Bench::start(&rules).await;
    accepted(&bench).await;
    // Verdict, splice and advice; the field is allowed.
    bench.expect_metric("opes_permissions_refused_total{rule=\"default/edit\"} 3");
    assert_eq!(bench.held(), 0);
    let message = bench.delivered("example.org", "b").await;
    assert!(message.contains("X-Probe: seen\r\n"), "{message}");
    assert!(!message.contains("X-Spliced"), "{message}");
    let rules = rule("drop", "content", "judge", "discard", "allow: [reject]");
    let bench = Bench::start(&rules).await;
    accepted(&bench).await;
    bench.expect_metric("opes_permissions_refused_total{rule=\"default/drop\"} 1");
    bench.delivered("example.org", "b").await;
}

#[tokio::test]
async fn a_service_names_the_queue_in_which_a_message_is_held() {
    let rules = rule("score", "content", "judge", "spam", "allow: [quarantine]");
    let bench = Bench::start(&rules).await;
    accepted(&bench).await;
    bench.expect_metric("opes_messages_total{outcome=\"Quarantined\"} 1");
    let [entry] = bench.entries().try_into().unwrap();
    for (key, value) in [
        ("queue", "spam"),
        ("reason", "scored 9"),
        ("rule", "default/score"),
        ("service", "default/judge"),
    ] {
        assert_eq!(entry[key], value, "{entry}");
    }
    assert_eq!(
        entry["envelope"]["recipients"][0]["address"],
        "b@example.org"
    );
    bench.drain_and_expect_no_mail().await;
}

#[tokio::test]
async fn a_service_that_fails_has_the_message_held_where_the_policy_says_so() {
    let gone = "---\napiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: { name: gone }\nspec: { class: adapt, endpoint: \
                'unix:/nowhere/gone.sock' }\n";
    let hold = "onFailure: quarantine";
    let late = "onFailure: quarantine, timeout: 50ms";
    for (service, rules) in [
        ("judge", rule("hold", "content", "judge", "fail", hold)),
        ("editor", rule("hold", "content", "editor", "fail", hold)),
        ("editor", rule("hold", "routing", "editor", "fail", hold)),
        ("judge", rule("hold", "content", "judge", "sleep", late)),
        (
            "gone",
            gone.to_owned() + &rule("hold", "content", "gone", "", hold),
        ),
        // One that says what cannot be done has failed as well.
        (
            "editor",
            rule(
                "hold",
                "content",
                "editor",
                "splice-outside",
                "allow: [header, body], onFailure: quarantine",
            ),
        ),
    ] {
        let bench = Bench::start(&rules).await;
        accepted(&bench).await;
        bench.expect_metric("opes_messages_total{outcome=\"Quarantined\"} 1");
        let [entry] = bench.entries().try_into().unwrap();
        let reason = format!("default/{service} failed: ");
        let said = entry["reason"].as_str().unwrap();
        assert!(said.starts_with(&reason), "{rules}\n{entry}");
        assert_eq!(entry["rule"], "default/hold");
        assert_eq!(entry["queue"], "");
        bench.drain_and_expect_no_mail().await;
    }
}

#[tokio::test]
async fn services_put_recipients_in_and_take_them_out_at_rcpt() {
    let com = "match: { recipientDomains: [example.com] }";
    let out = rule("out", "rcptTo", "editor", "remove", "allow: [recipients]");
    let out = out.replace("spec: {", &format!("spec: {{ {com},"));
    let rules = rule("in", "rcptTo", "editor", "archive", "allow: [recipients]");
    let bench = Bench::start(&(rules + &out)).await;
    let mut client = bench.client().await;
    let commands = [
        "MAIL FROM:<a@example.net>",
        "RCPT TO:<b@example.org>",
        "RCPT TO:<c@example.com>",
        "RCPT TO:<d@example.org>",
        "RCPT TO:<Archive@example.org>",
        "DATA",
    ];
    let codes = client.codes(&commands).await;
    assert_eq!(codes, ["250", "250", "250", "250", "250", "354"]);
    let reply = client.command(&format!("{CONTENT}\r\n.")).await;
    assert!(reply.starts_with("250"), "{reply}");
    // The archive is put in four times, named once, and gets it once; who is taken out gets nothing.
    let expected = ["Archive", "b", "d"].map(|to| (format!("example.org/{to}"), 1));
    assert_eq!(bench.mailboxes().await, expected);
}

#[tokio::test]
async fn a_message_of_which_all_recipients_are_taken_out_is_handled() {
    let rules = rule("out", "rcptTo", "editor", "remove", "allow: [recipients]");
    let bench = Bench::start(&rules).await;
    accepted(&bench).await;
    bench.expect_metric("opes_messages_total{outcome=\"Discarded\"} 1");
    bench.drain_and_expect_no_mail().await;
}
