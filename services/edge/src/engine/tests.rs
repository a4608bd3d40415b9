//! Plans in virtual time, with callouts that are a delay and a fixed answer.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use opes_callout_client::{Answer, AnswerCopy};
use opes_content::{Budget, Limits};
use opes_proto::smtp::verdict::Action;
use opes_rules::{Facts, Permission, PermissionSet, Point};
use opes_smtp::reply::Reply;
use tokio::time::{Instant, sleep};

use super::*;
use crate::outcome::permit;

mod shadow;

/// What one rule's service does.
#[derive(Clone, Default)]
struct Script {
    after: Duration,
    answer: Answer,
    fails: bool,
}

/// Callouts by rule name, and what happened.
#[derive(Default)]
struct Stage {
    scripts: HashMap<String, Script>,
    /// Rule, recipients, octets at the top of the message as the service saw it.
    calls: Mutex<Vec<(String, Vec<String>, String)>>,
    finished: Mutex<Vec<String>>,
}

impl Callouts for Stage {
    fn call<'a>(&'a self, rule: &'a Arc<Rule>, subject: Subject) -> BoxFuture<'a, StepResult> {
        Box::pin(async move {
            let name = rule.name.trim_start_matches("default/").to_owned();
            let to = subject.context.recipients.iter();
            let to = to.map(|recipient| recipient.address.clone()).collect();
            let top = match &subject.view {
                Some(view) => top(view).await,
                None => String::new(),
            };
            self.calls.lock().unwrap().push((name.clone(), to, top));
            let script = self.scripts.get(&name).cloned().unwrap_or_default();
            let started = Instant::now();
            sleep(script.after).await;
            self.finished.lock().unwrap().push(name.clone());
            let all: PermissionSet = Permission::ALL.into_iter().collect();
            let parts = if script.fails {
                vec![Part::for_all(Permitted::refusing(
                    Reply::SERVICE_UNAVAILABLE,
                ))]
            } else {
                permit(script.answer, all, subject.point).0
            };
            let report = StepReport {
                rule: name,
                service: String::new(),
                verdict: String::new(),
                reason: String::new(),
                elapsed: started.elapsed(),
                octets: 0,
                gravity: None,
                failure: None,
            };
            let failure = Permitted::refusing(Reply::SERVICE_UNAVAILABLE);
            StepResult {
                parts,
                report,
                failure,
            }
        })
    }
}

/// The first forty octets.
async fn top(view: &View) -> String {
    let mut octets = Vec::new();
    while octets.len() < 40 {
        let more = view.read_at(octets.len() as u64, 40 - octets.len());
        match more.await.unwrap() {
            more if more.is_empty() => break,
            more => octets.extend_from_slice(&more),
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// A world of rules, all at `content`, with the class of each one's service.
struct World {
    rules: String,
    stage: Stage,
}

impl World {
    fn new() -> Self {
        let mut rules = String::new();
        for class in ["observe", "analyze", "adapt", "sign"] {
            rules.push_str(&format!(
                "---\napiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: {class} }}\nspec: {{ class: {class}, endpoint: \
                 'http://127.0.0.1:9' }}\n"
            ));
        }
        let stage = Stage::default();
        Self { rules, stage }
    }

    fn rule(mut self, name: &str, class: &str, more: &str, script: Script) -> Self {
        let allow = match class {
            "analyze" => "allow: [reject, quarantine],",
            "adapt" => "allow: [header, body, recipients, reject],",
            "sign" => "allow: [header],",
            _ => "",
        };
        self.rules.push_str(&format!(
            "---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec: {{ at: [content], callout: {{ {allow} \
             serviceRef: {{ name: {class} }} }}{more} }}\n"
        ));
        self.stage.scripts.insert(name.into(), script);
        self
    }

    fn action(mut self, name: &str, action: &str, more: &str) -> Self {
        self.rules.push_str(&format!(
            "---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec: {{ at: [content], action: {{ {action} }}{more} }}\n"
        ));
        self
    }

    #[expect(clippy::too_many_lines, reason = "one world from start to end")]
    async fn run(self, to: &[&str]) -> Played {
        let table =
            opes_rules::load([("test.yaml", self.rules.as_str())]).unwrap_or_else(|wrong| {
                panic!(
                    "{}",
                    wrong.iter().map(ToString::to_string).collect::<String>()
                )
            });
        let routing = Routing::new(
            table,
            &crate::Endpoints::new(),
            "https://mail.example.com/opes",
        )
        .unwrap();
        let mut registry = prometheus_client::registry::Registry::default();
        let stage = Arc::new(self.stage);
        let run = Run {
            routing: Arc::new(routing),
            metrics: Arc::new(Metrics::register(&mut registry)),
            callouts: Arc::clone(&stage) as Arc<dyn Callouts>,
        };
        let dir = tempfile::tempdir().unwrap();
        let limits = Arc::new(Limits::in_dir(dir.path()));
        let (mut writer, content) = opes_content::create(&Budget::new(1 << 20), &limits);
        writer
            .append("Subject: a\r\n\r\nbody\r\n".into())
            .await
            .unwrap();
        writer.finish();
        let recipients: Vec<Recipient> = to.iter().map(|to| recipient(to)).collect();
        let shown = smtp::Context {
            recipients: to
                .iter()
                .map(|to| smtp::Address {
                    address: (*to).into(),
                    parameters: Vec::new(),
                })
                .collect(),
            ..smtp::Context::default()
        };
        let matter = Matter {
            point: smtp::Point::Content,
            context: Arc::new(shown),
        };
        let again = |said: &Annotations| {
            let to: Vec<opes_rules::Recipient<'_>> = to
                .iter()
                .map(|address| opes_rules::Recipient {
                    address,
                    parameters: &[],
                })
                .collect();
            let facts = Facts {
                recipients: &to,
                annotations: Some(said),
                ..Facts::at(Point::Content)
            };
            run.routing.table.plan(&facts)
        };
        let said = Annotations::new();
        let mut merged = Merged::new(recipients, Some(View::original(content)), said.clone());
        let started = Instant::now();
        run.plan(again(&said), &matter, &mut merged, &again).await;
        let elapsed = started.elapsed();
        let (recipients, groups) = merged.groups.joined();
        let mut fates = Vec::new();
        for (member, recipient) in recipients.iter().enumerate() {
            let group = groups.iter().find(|group| group.members.contains(&member));
            let fate = &group.unwrap().fate;
            let mut text = Vec::new();
            let view = &fate.version.as_ref().unwrap().view;
            view.write_to(&mut text).await.unwrap();
            fates.push(Seen {
                address: recipient.address.clone(),
                verdict: fate.verdict.clone(),
                held: fate.hold.is_some(),
                text: String::from_utf8(text).unwrap(),
            });
        }
        Played {
            elapsed,
            fates,
            groups: groups.len(),
            stage,
            registry,
        }
    }
}

#[derive(Debug)]
struct Seen {
    address: String,
    verdict: Verdict,
    held: bool,
    text: String,
}

struct Played {
    elapsed: Duration,
    fates: Vec<Seen>,
    groups: usize,
    stage: Arc<Stage>,
    registry: prometheus_client::registry::Registry,
}

impl Played {
    fn calls(&self, rule: &str) -> Vec<(Vec<String>, String)> {
        let calls = self.stage.calls.lock().unwrap();
        let of_rule = calls.iter().filter(|(name, ..)| name == rule);
        of_rule
            .map(|(_, to, top)| (to.clone(), top.clone()))
            .collect()
    }
}

fn recipient(address: &str) -> Recipient {
    Recipient {
        address: address.into(),
        ..Recipient::default()
    }
}

fn after(milliseconds: u64) -> Script {
    Script {
        after: Duration::from_millis(milliseconds),
        ..Script::default()
    }
}

fn saying(milliseconds: u64, outcome: smtp::Outcome) -> Script {
    let mut script = after(milliseconds);
    script.answer.outcome = outcome;
    script
}

fn refusal(code: u32) -> smtp::Outcome {
    let reply = smtp::Reply {
        code,
        enhanced: String::new(),
        lines: vec!["no".into()],
    };
    smtp::Outcome {
        verdict: Some(smtp::Verdict {
            action: Action::Reject.into(),
            reply: Some(reply),
        }),
        ..Default::default()
    }
}

fn holding() -> smtp::Outcome {
    smtp::Outcome {
        quarantine: Some(smtp::Quarantine::default()),
        ..Default::default()
    }
}

fn heading(name: &str) -> smtp::Outcome {
    let add = smtp::HeaderAdd {
        name: name.into(),
        value: "yes".into(),
        append: false,
        above: None,
    };
    smtp::Outcome {
        edits: vec![smtp::Edit {
            kind: Some(smtp::edit::Kind::HeaderAdd(add)),
        }],
        ..Default::default()
    }
}

fn saying_apart(outcome: smtp::Outcome, copies: &[(&str, smtp::Outcome)]) -> Script {
    let mut script = saying(10, outcome);
    let copy = |(to, outcome): &(&str, smtp::Outcome)| AnswerCopy {
        recipients: vec![(*to).into()],
        outcome: outcome.clone(),
        adapted: None,
    };
    script.answer.copies = copies.iter().map(copy).collect();
    script
}

fn said(key: &str, value: &str) -> smtp::Outcome {
    smtp::Outcome {
        annotations: [(key.to_owned(), value.to_owned())].into(),
        ..Default::default()
    }
}

const TO: [&str; 4] = [
    "a@example.com",
    "b@example.com",
    "c@example.com",
    "d@example.com",
];

#[tokio::test(start_paused = true)]
async fn three_analysers_take_as_long_as_the_slowest() {
    let world = World::new()
        .rule("one", "analyze", "", after(200))
        .rule("two", "analyze", "", after(200))
        .rule("three", "analyze", "", after(190));
    assert_eq!(world.run(&TO).await.elapsed, Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn adapters_take_the_sum_and_see_each_others_work() {
    let world = World::new()
        .rule(
            "second",
            "adapt",
            ", priority: 2",
            saying(150, heading("X-Second")),
        )
        .rule(
            "first",
            "adapt",
            ", priority: 1",
            saying(200, heading("X-First")),
        )
        .rule("signer", "sign", "", saying(50, heading("X-Signed")));
    let played = world.run(&TO).await;
    assert_eq!(played.elapsed, Duration::from_millis(400));
    assert!(played.calls("second")[0].1.starts_with("X-First: yes\r\n"));
    assert!(
        played.calls("signer")[0]
            .1
            .starts_with("X-Second: yes\r\nX-First")
    );
    let text = &played.fates[3].text;
    assert!(
        text.starts_with("X-Signed: yes\r\nX-Second: yes\r\nX-First: yes\r\nSubject"),
        "{text}"
    );
    assert_eq!(played.groups, 1);
}

#[tokio::test(start_paused = true)]
async fn observers_are_not_waited_for() {
    let world = World::new().rule("slow", "observe", "", after(10_000));
    assert_eq!(world.run(&TO).await.elapsed, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_first_refusal_in_rule_order_counts_not_the_fastest() {
    let world = World::new()
        .rule(
            "early",
            "analyze",
            ", priority: 1",
            saying(200, refusal(550)),
        )
        .rule("late", "analyze", ", priority: 2", saying(1, refusal(554)))
        .rule("idle", "analyze", ", priority: 3", after(60_000));
    let played = world.run(&TO).await;
    assert_eq!(played.elapsed, Duration::from_millis(200));
    let Verdict::Refuse(reply) = &played.fates[0].verdict else {
        panic!("{:?}", played.fates);
    };
    assert_eq!(reply.code(), 550);
    let finished = played.stage.finished.lock().unwrap();
    assert!(
        !finished.contains(&"idle".to_owned()),
        "it could change nothing and was dropped"
    );
}

#[tokio::test(start_paused = true)]
async fn four_recipients_four_fates() {
    let verdicts = saying_apart(
        smtp::Outcome::default(),
        &[
            ("b@example.com", refusal(550)),
            ("C@Example.com", holding()),
        ],
    );
    let adapted = saying_apart(
        smtp::Outcome::default(),
        &[("d@example.com", heading("X-D"))],
    );
    let world = World::new()
        .rule("judge", "analyze", "", verdicts)
        .rule("editor", "adapt", "", adapted);
    let played = world.run(&TO).await;
    let [a, b, c, d] = played.fates.as_slice() else {
        panic!("{:?}", played.fates);
    };
    assert_eq!((&a.verdict, a.held), (&Verdict::Accept, false));
    assert!(a.text.starts_with("Subject: a"));
    assert!(matches!(&b.verdict, Verdict::Refuse(reply) if reply.code() == 550));
    assert!(c.held && c.verdict == Verdict::Accept);
    assert!(d.text.starts_with("X-D: yes\r\nSubject: a"));
    assert_eq!(played.groups, 4);
    let asked = played.calls("editor");
    assert_eq!(asked.len(), 1, "one callout for all who see the same");
    assert_eq!(
        asked[0].0,
        ["a@example.com", "c@example.com", "d@example.com"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_rule_for_some_touches_nobody_else() {
    let com = ", match: { recipientDomains: [example.com] }";
    let world = World::new()
        .rule("com", "adapt", com, saying(10, heading("X-Com")))
        .action(
            "org",
            "reject: {}",
            ", match: { recipientDomains: [example.org] }",
        )
        .rule("after", "adapt", ", priority: 200", after(10));
    let played = world
        .run(&["a@example.com", "b@example.org", "c@example.net"])
        .await;
    assert!(played.fates[0].text.starts_with("X-Com"));
    assert!(matches!(played.fates[1].verdict, Verdict::Refuse(_)));
    assert!(played.fates[2].text.starts_with("Subject"));
    let after = played.calls("after");
    let to: Vec<_> = after.iter().map(|(to, _)| to.concat()).collect();
    assert_eq!(
        to,
        ["a@example.com", "c@example.net"],
        "two messages, two callouts"
    );
}

#[tokio::test(start_paused = true)]
async fn an_annotation_about_one_recipient_concerns_that_one() {
    let score = saying_apart(said("score", "1"), &[("b@example.com", said("score", "9"))]);
    let world = World::new().rule("score", "analyze", "", score).action(
        "mark",
        "markSubject: { text: '[SPAM]' }",
        ", match: { cel: 'annotation(\"score\") > 5' }",
    );
    let played = world.run(&TO).await;
    let marked: Vec<bool> = played
        .fates
        .iter()
        .map(|fate| fate.text.contains("[SPAM]"))
        .collect();
    assert_eq!(marked, [false, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_recipient_that_a_service_adds_is_there_once() {
    let add = smtp::Outcome {
        envelope: Some(smtp::EnvelopeChange {
            mail_from: None,
            recipients: vec![smtp::RecipientChange {
                address: "archive@example.com".into(),
                ..Default::default()
            }],
        }),
        ..Default::default()
    };
    let world = World::new()
        .rule(
            "split",
            "adapt",
            ", priority: 1",
            saying_apart(
                smtp::Outcome::default(),
                &[("a@example.com", heading("X-A"))],
            ),
        )
        .rule("add", "adapt", ", priority: 2", saying(10, add));
    let played = world.run(&TO).await;
    let archive = played
        .fates
        .iter()
        .filter(|fate| fate.address == "archive@example.com");
    assert_eq!(archive.count(), 1);
    assert_eq!(played.calls("add").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_recipient_that_a_service_adds_gets_what_that_answer_makes_of_the_message() {
    let added = smtp::RecipientChange {
        address: "archive@example.com".into(),
        ..Default::default()
    };
    let outcome = smtp::Outcome {
        envelope: Some(smtp::EnvelopeChange {
            mail_from: Some("archiver@example.com".into()),
            recipients: vec![added],
        }),
        ..heading("X-Archived")
    };
    let world = World::new().rule("add", "adapt", "", saying(10, outcome));
    let played = world.run(&TO).await;
    assert_eq!(played.fates.len(), TO.len() + 1);
    for fate in &played.fates {
        assert!(fate.text.starts_with("X-Archived"), "{}", fate.address);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_does_not_fit_applies_to_nobody() {
    let splice = smtp::Outcome {
        edits: vec![smtp::Edit {
            kind: Some(smtp::edit::Kind::Splice(smtp::Splice {
                offset: 1 << 40,
                size: 1,
                replacement: "x".into(),
            })),
        }],
        ..Default::default()
    };
    let world = World::new().rule(
        "broken",
        "adapt",
        "",
        saying_apart(heading("X-Fine"), &[("d@example.com", splice)]),
    );
    let played = world.run(&TO).await;
    for fate in &played.fates {
        assert_eq!(fate.verdict, Verdict::Refuse(Reply::SERVICE_UNAVAILABLE));
        assert!(fate.text.starts_with("Subject"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_the_policy_of_its_own_rule() {
    let mut broken = after(5);
    broken.fails = true;
    let com = ", match: { cel: 'rcpt == \"a@example.com\"' }";
    let world = World::new().rule("broken", "analyze", com, broken).rule(
        "fine",
        "adapt",
        "",
        saying(10, heading("X-Fine")),
    );
    let played = world.run(&TO).await;
    assert_eq!(
        played.fates[0].verdict,
        Verdict::Refuse(Reply::SERVICE_UNAVAILABLE)
    );
    assert!(
        played.fates[1..]
            .iter()
            .all(|fate| fate.text.starts_with("X-Fine"))
    );
}
