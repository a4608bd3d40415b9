//! `decisionTimeout`: the client's patience bounds every callout, whatever its rule would give it.

use std::time::{Duration, Instant};

use crate::harness::{Bench, PATIENCE, call};

/// The service sleeps for all of our patience, and its rule lets it.
async fn bench(at: &str, on_failure: &str) -> Bench {
    let rules = call("slow", at, "editor", "sleep", "");
    let rules = rules.replace(
        "callout: {",
        &format!("callout: {{ onFailure: {on_failure},"),
    );
    Bench::start_with(&rules, |config| {
        config.decision_timeout = Duration::from_millis(200);
    })
    .await
}

#[tokio::test]
async fn a_callout_that_began_while_the_client_was_sending_is_told() {
    let mut bench = bench("content", "accept").await;
    let mut client = bench.client().await;
    let commands = [
        "MAIL FROM:<a@example.net>",
        "RCPT TO:<b@example.org>",
        "DATA",
    ];
    assert_eq!(client.codes(&commands).await, ["250", "250", "354"]);
    client.say("Subject: a\r\n\r\nhalf").await;
    bench.begun(1).await;
    let complete = Instant::now();
    let reply = client.command("of it\r\n.").await;
    assert!(reply.starts_with("451 4.3.2"), "{reply}");
    let waited = complete.elapsed();
    assert!(
        waited < PATIENCE / 2,
        "the service was waited for: {waited:?}"
    );
    bench.drain_and_expect_no_mail().await;
}

#[tokio::test]
async fn a_command_has_a_deadline_too_and_then_the_failure_policy_holds() {
    for (policy, code) in [("tempfail", "451"), ("accept", "250")] {
        let bench = bench("rcptTo", policy).await;
        let mut client = bench.client().await;
        let asked = Instant::now();
        let codes = client
            .codes(&["MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>"])
            .await;
        assert_eq!(codes, ["250", code]);
        let waited = asked.elapsed();
        assert!(
            waited < PATIENCE / 2,
            "the service was waited for: {waited:?}"
        );
    }
}
