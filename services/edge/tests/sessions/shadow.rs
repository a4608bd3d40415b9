//! Rules that are tried out: what they would have done is recorded, and nothing is done.

use crate::harness::{Bench, act, call};
use crate::log;

#[tokio::test]
async fn what_a_shadow_rule_would_have_done_is_recorded_with_its_time_and_not_done() {
    log::capture();
    let shadow = ", rollout: { mode: shadow }";
    let rules = [
        call("judge", "content", "judge", "reject-late", shadow),
        call("editor", "content", "editor", "header", shadow),
        call("broken", "content", "judge", "fail", shadow),
        act(
            "would",
            "content",
            "discard: { acknowledgeLoss: true }",
            shadow,
        ),
    ];
    let bench = Bench::start(&rules.concat()).await;
    let mut client = bench.client().await;
    let reply = client.send("b@example.org", "Subject: a\r\n\r\nx").await;
    assert!(reply.starts_with("250"), "{reply}");
    let message = bench.delivered("example.org", "b").await;
    assert!(!message.contains("X-Probe"), "{message}");
    for (rule, would) in [
        ("judge", "reject"),
        ("editor", "change"),
        ("broken", "tempfail"),
        ("would", "discard"),
    ] {
        let line =
            format!("opes_shadow_outcomes_total{{rule=\"default/{rule}\",would=\"{would}\"}} 1");
        bench.metric(&line).await;
    }
    let [line] = log::lines("rule=\"default/judge\"").try_into().unwrap();
    assert!(
        line.contains("would=\"reject 550\"") && line.contains("reason=\"as told\""),
        "{line}"
    );
    let (_, elapsed) = line.split_once("elapsed_ms=").unwrap();
    let elapsed: u64 = elapsed.split(' ').next().unwrap().parse().unwrap();
    assert!((100..10_000).contains(&elapsed), "{line}");
    bench.expect_metric("opes_messages_total{outcome=\"Queued\"} 1");
}
