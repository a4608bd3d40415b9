//! What rules in shadow mode leave behind: metrics and a line in the log, and nothing else.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Once;

use prometheus_client::encoding::text::encode;

use super::*;

const SHADOW: &str = ", rollout: { mode: shadow }";

thread_local! {
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Sink;

impl Write for Sink {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|text| text.extend_from_slice(octets));
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Of this test's thread, which its tasks share. One subscriber for all threads: those of single threads race for what the log macros
/// remember of them.
fn capture_log() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(|| Sink)
            .init();
    });
    LOG.with_borrow_mut(Vec::clear);
}

/// Lines about shadow rules.
fn logged() -> Vec<String> {
    let text = LOG.with_borrow(|text| String::from_utf8_lossy(text).into_owned());
    let lines = text.lines().filter(|line| line.contains(" shadow "));
    lines.map(str::to_owned).collect()
}

impl Played {
    /// Lines of `opes_shadow_outcomes`, in order.
    fn shadows(&self) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("opes_shadow_outcomes_total"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

#[tokio::test(start_paused = true)]
async fn shadow_changes_nothing_and_is_not_waited_for() {
    let world = World::new()
        .rule("judge", "analyze", SHADOW, saying(500, refusal(550)))
        .rule("editor", "adapt", SHADOW, saying(500, heading("X-Shadow")))
        .action("would", "reject: {}", SHADOW);
    let played = world.run(&TO).await;
    assert_eq!(played.elapsed, Duration::ZERO);
    assert!(
        played
            .fates
            .iter()
            .all(|fate| fate.verdict == Verdict::Accept)
    );
    assert!(played.fates[0].text.starts_with("Subject"));
}

#[tokio::test(start_paused = true)]
async fn what_shadow_rules_would_have_done_is_recorded_when_they_have_answered() {
    capture_log();
    let mut broken = after(7);
    broken.fails = true;
    let apart = saying_apart(heading("X-All"), &[("d@example.com", holding())]);
    let world = World::new()
        .rule("judge", "analyze", SHADOW, saying(500, refusal(550)))
        .rule("editor", "adapt", SHADOW, saying(300, heading("X-Shadow")))
        .rule("fine", "analyze", SHADOW, after(20))
        .rule("broken", "analyze", SHADOW, broken)
        .rule("apart", "adapt", SHADOW, apart)
        .rule("watch", "observe", "", after(5))
        .action("would", "reject: {}", SHADOW)
        .action(
            "drop",
            "discard: { acknowledgeLoss: true }",
            ", priority: 200, rollout: { mode: shadow }",
        );
    let played = world.run(&TO).await;
    // What the edge does itself needs no answer.
    let actions = [
        "{rule=\"default/drop\",would=\"discard\"} 1",
        "{rule=\"default/would\",would=\"reject\"} 1",
    ];
    assert_eq!(played.shadows(), actions);
    sleep(Duration::from_millis(400)).await;
    assert!(
        !played.shadows().concat().contains("judge"),
        "it has not answered"
    );
    sleep(Duration::from_millis(200)).await;
    let expected = [
        // The gravest of what it says of anybody.
        "{rule=\"apart\",would=\"quarantine\"} 1",
        "{rule=\"broken\",would=\"tempfail\"} 1",
        actions[0],
        actions[1],
        "{rule=\"editor\",would=\"change\"} 1",
        "{rule=\"fine\",would=\"accept\"} 1",
        "{rule=\"judge\",would=\"reject\"} 1",
    ];
    assert_eq!(played.shadows(), expected);
    let lines = logged();
    for (rule, elapsed) in [
        ("judge", 500),
        ("editor", 300),
        ("fine", 20),
        ("broken", 7),
        ("apart", 10),
    ] {
        let name = format!("rule=\"{rule}\" ");
        let of_rule: Vec<&String> = lines.iter().filter(|line| line.contains(&name)).collect();
        let [line] = of_rule[..] else {
            panic!("{rule}: {lines:?}");
        };
        assert!(line.ends_with(&format!("elapsed_ms={elapsed}")), "{line}");
    }
    assert_eq!(lines.len(), 7, "an observer is nobody's shadow: {lines:?}");
    assert!(
        played
            .fates
            .iter()
            .all(|fate| fate.text.starts_with("Subject") && !fate.held)
    );
}

#[tokio::test(start_paused = true)]
async fn a_share_of_no_dialogs_is_recorded_for_none() {
    let none = ", rollout: { mode: shadow, percent: 0 }";
    let world = World::new()
        .rule("judge", "analyze", none, saying(5, refusal(550)))
        .action("would", "reject: {}", none);
    let played = world.run(&TO).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(played.shadows(), [""; 0]);
    assert!(played.calls("judge").is_empty());
}
