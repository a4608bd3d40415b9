//! Rules that ask: what is asked when, and what answers do.

use std::sync::Arc;

use opes_directory::{Answer, Entry, Inputs};

use super::*;
use crate::lookup::{Question, Uses};

fn directories() -> Directories {
    let uses = |inputs: &[&str], attributes: Option<&[&str]>| Uses {
        inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
        attributes: attributes.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
    };
    let all = [
        ("members", uses(&["s"], Some(&[]))),
        ("access", uses(&["s"], None)),
        ("pairs", uses(&["sender", "recipient_domain"], None)),
        ("who", uses(&["auth", "tls", "helo", "client"], None)),
        ("ldap", uses(&["d"], Some(&["mailAccess"]))),
    ];
    Directories(
        all.into_iter()
            .map(|(name, uses)| (name.to_owned(), uses))
            .collect(),
    )
}

fn bound(text: &str) -> Result<Policy, PolicyError> {
    Policy::from_yaml(Path::new("access.yaml"), text, &directories())
}

/// Evaluates to the end; `directory` says what it knows. Also returns what was asked.
fn run(
    policy: &Policy,
    facts: &Facts<'_>,
    directory: impl Fn(&Question) -> Answer,
) -> (String, Vec<Question>) {
    let (mut answers, mut asked) = (Answers::new(), Vec::new());
    loop {
        match policy.decide(facts, &answers).unwrap() {
            Step::Decided(decision) => {
                let said = match decision {
                    Decision::Undecided => "undecided".to_owned(),
                    Decision::Allow(rule) => rule.map_or("default", |rule| &rule.name).to_owned(),
                    Decision::Deny(denial) => format!(
                        "no: {} ({:?})",
                        denial.rule.map_or("default", |rule| &rule.name),
                        denial.cause
                    ),
                };
                return (said, asked);
            }
            Step::Ask(question) => {
                assert!(
                    !answers.contains_key(&question),
                    "asked twice: {question:?}"
                );
                answers.insert(question.clone(), Arc::new(directory(&question)));
                asked.push(question);
            }
        }
    }
}

fn known(word: &str) -> Answer {
    let entries = vec![Entry::new("row 1").with("verdict", [word.to_owned()])];
    Answer { entries }
}

fn question(directory: &str, inputs: Inputs) -> Question {
    let directory = directory.to_owned();
    Question { directory, inputs }
}

#[test]
fn a_question_waits_for_its_facts_and_for_the_other_conditions() {
    let policy = bound(
        "{default: allow, rules: [{name: list, action: deny, recipient: list@example.com,
          lookup: {in: members, key: sender, found: false}}]}",
    )
    .unwrap();
    let nobody = |_: &Question| Answer::default();
    let no_question: Vec<Question> = vec![];
    assert_eq!(
        run(&policy, &at_connect(), nobody),
        ("undecided".into(), no_question.clone())
    );
    assert_eq!(
        run(&policy, &at_mail("joe@example.org"), nobody),
        ("undecided".into(), no_question.clone())
    );
    // Another recipient: nobody is asked.
    let other = at_rcpt("joe@example.org", "ann@example.com");
    assert_eq!(
        run(&policy, &other, nobody),
        ("default".into(), no_question)
    );
    let list = at_rcpt("Joe@example.org", "list@example.com");
    let asked = vec![question(
        "members",
        Inputs::default().with("s", "joe@example.org"),
    )];
    assert_eq!(
        run(&policy, &list, nobody),
        ("no: list (Recipient)".into(), asked.clone())
    );
    assert_eq!(
        run(&policy, &list, |_| known("x")),
        ("default".into(), asked)
    );
}

#[test]
fn a_certain_refusal_by_a_directory_is_told_at_once() {
    let text = "{default: allow, rules: [{name: blocked, action: deny, lookup: {in: access, key: sender}}]}";
    let blocked = |question: &Question| {
        let bad = question.inputs == Inputs::default().with("s", "bad@example.net");
        if bad { known("x") } else { Answer::default() }
    };
    let policy = bound(text).unwrap();
    assert_eq!(
        run(&policy, &at_mail("bad@example.net"), blocked).0,
        "no: blocked (Sender)"
    );
    assert_eq!(
        run(&policy, &at_mail("joe@example.net"), blocked).0,
        "default"
    );
    // A rule above that may still allow holds it back, and nothing is asked before that is known.
    let text = text.replace(
        "rules: [",
        "rules: [{name: pm, action: allow, recipient: postmaster@}, ",
    );
    let policy = bound(&text).unwrap();
    assert_eq!(
        run(&policy, &at_mail("bad@example.net"), blocked),
        ("undecided".into(), vec![])
    );
    let to = |recipient| run(&policy, &at_rcpt("bad@example.net", recipient), blocked).0;
    assert_eq!(to("postmaster@example.com"), "pm");
    assert_eq!(to("joe@example.com"), "no: blocked (Sender)");
}

#[test]
fn the_word_decides() {
    let policy = bound(
        "{default: deny, rules: [{name: map, action: lookup, lookup: {in: access, key: recipient, verdict: verdict}},
          {name: rest, action: allow, recipient: '@example.com'}]}",
    )
    .unwrap();
    // It may allow, so a sender is not refused before the recipient is known.
    assert_eq!(
        run(&policy, &at_mail("a@example.org"), |_| known("OK")).0,
        "undecided"
    );
    let to = |word: &str, recipient: &str| {
        let answer = if word.is_empty() {
            Answer::default()
        } else {
            known(word)
        };
        run(&policy, &at_rcpt("a@example.org", recipient), |_| {
            answer.clone()
        })
        .0
    };
    assert_eq!(to("OK", "x@example.net"), "map");
    assert_eq!(to("REJECT", "x@example.com"), "no: map (Recipient)");
    assert_eq!(to("DUNNO", "x@example.com"), "rest");
    assert_eq!(to("", "x@example.com"), "rest");
    assert_eq!(to("", "x@example.net"), "no: default (Policy)");
    let facts = at_rcpt("a@example.org", "x@example.com");
    let Step::Ask(question) = policy.decide(&facts, &Answers::new()).unwrap() else {
        panic!("no question")
    };
    let answers = Answers::from([(question.clone(), Arc::new(known("450 4.2.0 later")))]);
    let Step::Decided(Decision::Deny(denial)) = policy.decide(&facts, &answers).unwrap() else {
        panic!("no denial")
    };
    assert_eq!(denial.reply.unwrap().code(), 450);
    let answers = Answers::from([(question, Arc::new(known("perhaps")))]);
    assert!(policy.decide(&facts, &answers).is_err());
}

#[test]
fn all_of_the_dialog_can_be_asked_about() {
    let policy = bound(
        "{default: allow, rules: [{name: who, action: deny, lookup: {in: who}},
          {name: pair, action: deny, lookup: {in: pairs}}]}",
    )
    .unwrap();
    assert!(policy.looks_at_client());
    let nobody = |_: &Question| Answer::default();
    let facts = Facts {
        auth: Auth::Identity("Joe"),
        helo: Some("MX.example.org."),
        ..at_rcpt("", "list@Example.com")
    };
    let who = Inputs::default()
        .with("auth", "joe")
        .with("tls", "false")
        .with("helo", "mx.example.org")
        .with("client", "192.0.2.1");
    let pair = Inputs::default()
        .with("sender", "<>")
        .with("recipient_domain", "example.com");
    let asked = vec![question("who", who), question("pairs", pair)];
    assert_eq!(run(&policy, &facts, nobody), ("default".into(), asked));
    // Nobody has authenticated: there is nothing to ask about, and nobody is found.
    let anonymous = Facts {
        auth: Auth::Anonymous,
        ..facts
    };
    assert_eq!(run(&policy, &anonymous, nobody).1.len(), 1);
}

#[test]
fn look_ups_that_make_no_sense_are_refused_by_name() {
    for (rule, said) in [
        (
            "action: deny, lookup: {in: nowhere, key: sender}",
            "there is no look-up `nowhere`",
        ),
        (
            "action: deny, lookup: {in: members}",
            "which needs a fitting `key`",
        ),
        (
            "action: deny, lookup: {in: ldap, key: client}",
            "uses `d`, which needs a fitting `key`",
        ),
        (
            "action: deny, lookup: {in: pairs, key: sender}",
            "`key` says nothing",
        ),
        (
            "action: deny, lookup: {in: access, key: sender, verdict: v}",
            "`action: lookup` only",
        ),
        (
            "action: lookup, lookup: {in: access, key: sender}",
            "needs `lookup` with `verdict`",
        ),
        ("action: lookup", "needs `lookup` with `verdict`"),
        (
            "action: lookup, lookup: {in: access, key: sender, verdict: v, found: true}",
            "not `found`",
        ),
        (
            "action: lookup, lookup: {in: ldap, key: sender, verdict: other}",
            "does not ask for the attribute `other`",
        ),
        (
            "action: deny, lookup: {in: access, keys: sender}",
            "unknown field `keys`",
        ),
    ] {
        let error = bound(&format!("{{default: allow, rules: [{{name: a, {rule}}}]}}"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(said), "{rule}: {error}");
    }
    bound("{default: allow, rules: [{name: a, action: lookup, lookup: {in: ldap, key: sender, verdict: mailaccess}}]}").unwrap();
    assert!(refused("{default: lookup}").contains("only a rule can look up"));
    let many: Vec<String> = (0..33)
        .map(|n| format!("{{name: r{n}, action: deny, lookup: {{in: access, key: sender}}}}"))
        .collect();
    let error = bound(&format!("{{default: allow, rules: [{}]}}", many.join(", ")))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("more than 32 rules with `lookup`"),
        "{error}"
    );
}
