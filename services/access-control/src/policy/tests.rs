use std::path::Path;

use super::{Action, Auth, Decision, Facts, Policy, PolicyError, Step};
use crate::address::Address;
use crate::lookup::{Answers, Directories};
use crate::verdict::Cause;

const POLICY: &str = r#"
default: allow
rules:
  - { name: postmaster, action: allow, recipient: postmaster@ }
  - { name: bad-net, action: deny, client: [198.51.100.0/24] }
  - { name: no-spam, action: deny, sender: ["@spam.example", .spam.example] }
  - { name: closed-list, action: deny, recipient: staff@example.com, authenticated: false }
  - { name: guests, action: deny, auth: guest, recipient: .example.net }
"#;

fn read(text: &str) -> Result<Policy, PolicyError> {
    Policy::from_yaml(Path::new("access.yaml"), text, &Directories::default())
}

fn decide<'p>(policy: &'p Policy, facts: &Facts<'_>) -> Decision<'p> {
    match policy.decide(facts, &Answers::new()).unwrap() {
        Step::Decided(decision) => decision,
        Step::Ask(question) => panic!("{question:?}"),
    }
}

fn refused(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

fn at_connect() -> Facts<'static> {
    Facts {
        client: "192.0.2.1".parse().ok(),
        ..Facts::default()
    }
}

fn at_mail(sender: &str) -> Facts<'static> {
    Facts {
        helo: Some("mx.example.org"),
        tls: Some(false),
        auth: Auth::Anonymous,
        sender: Some(Address::new(sender)),
        ..at_connect()
    }
}

fn at_rcpt(sender: &str, recipient: &str) -> Facts<'static> {
    Facts {
        recipient: Some(Address::new(recipient)),
        ..at_mail(sender)
    }
}

fn denied_by(policy: &Policy, facts: &Facts<'_>) -> Option<String> {
    match decide(policy, facts) {
        Decision::Deny(denial) => Some(
            denial
                .rule
                .map_or("default".to_owned(), |rule| rule.name.clone()),
        ),
        Decision::Allow(_) | Decision::Undecided => None,
    }
}

#[test]
fn first_match_wins_even_if_it_is_known_last() {
    let policy = read(POLICY).unwrap();
    // `postmaster` may still allow, so nothing below it is decided before RCPT.
    assert_eq!(decide(&policy, &at_connect()), Decision::Undecided);
    assert_eq!(
        decide(&policy, &at_mail("x@spam.example")),
        Decision::Undecided
    );
    let to = |sender, recipient| denied_by(&policy, &at_rcpt(sender, recipient));
    assert_eq!(to("x@spam.example", "postmaster@example.com"), None);
    assert_eq!(
        to("x@spam.example", "joe@example.com").as_deref(),
        Some("no-spam")
    );
    assert_eq!(
        to("x@a.spam.example", "joe@example.com").as_deref(),
        Some("no-spam")
    );
    assert_eq!(
        to("x@example.org", "staff@example.com").as_deref(),
        Some("closed-list")
    );
    assert_eq!(to("x@example.org", "joe@example.com"), None);
}

#[test]
fn a_certain_denial_is_told_at_once() {
    let without_exception = POLICY.replace("- { name: postmaster", "# ");
    let policy = read(&without_exception).unwrap();
    let bad_net = Facts {
        client: "198.51.100.7".parse().ok(),
        ..Facts::default()
    };
    assert_eq!(denied_by(&policy, &bad_net).as_deref(), Some("bad-net"));
    assert_eq!(
        denied_by(&policy, &at_mail("x@spam.example")).as_deref(),
        Some("no-spam")
    );
    assert_eq!(
        decide(&policy, &at_mail("x@example.org")),
        Decision::Undecided
    );
}

#[test]
fn an_identity_counts_only_once_it_is_known() {
    let policy =
        read("{default: deny, rules: [{name: users, action: allow, authenticated: true}]}")
            .unwrap();
    assert_eq!(decide(&policy, &at_connect()), Decision::Undecided);
    assert_eq!(
        denied_by(&policy, &at_mail("a@example.org")).as_deref(),
        Some("default")
    );
    let user = Facts {
        auth: Auth::Identity("joe"),
        ..at_mail("a@example.org")
    };
    assert!(matches!(decide(&policy, &user), Decision::Allow(Some(rule)) if rule.name == "users"));
}

#[test]
fn the_client_hears_of_the_most_telling_condition() {
    let policy = read(
        "{default: allow, rules: [{name: tls, action: deny, tls: false, sender: .example.org},
          {name: net, action: deny, client: 192.0.2.1, recipient: joe@}]}",
    )
    .unwrap();
    let cause = |facts: &Facts<'_>| match decide(&policy, facts) {
        Decision::Deny(denial) => Some(denial.cause),
        _ => None,
    };
    assert_eq!(
        cause(&at_mail("a@b.example.org")),
        Some(Cause::NotEncrypted)
    );
    assert_eq!(
        cause(&at_rcpt("a@example.org", "joe@example.com")),
        Some(Cause::Recipient)
    );
}

#[test]
fn overlong_addresses_are_refused_before_any_rule() {
    let policy = read("{default: allow, maxAddressOctets: 20}").unwrap();
    let cause = |facts: &Facts<'_>| match decide(&policy, facts) {
        Decision::Deny(denial) => Some(denial.cause),
        _ => None,
    };
    assert_eq!(
        cause(&at_mail("a-very-long-one@example.org")),
        Some(Cause::SenderTooLong)
    );
    assert_eq!(
        cause(&at_rcpt("", "a-very-long-one@example.org")),
        Some(Cause::RecipientTooLong)
    );
    assert_eq!(cause(&at_rcpt("", "joe@example.org")), None);
}

#[test]
fn an_empty_file_is_no_policy() {
    for text in ["", "# nothing", "rules: []"] {
        assert!(
            refused(text).starts_with("access.yaml"),
            "{text:?}: {}",
            refused(text)
        );
    }
    assert_eq!(read("default: deny").unwrap().default, Action::Deny);
}

#[test]
fn errors_name_the_line_and_the_remedy() {
    let unknown =
        refused("default: allow\nrules:\n  - name: a\n    action: deny\n    sendr: x@y\n");
    assert!(unknown.starts_with("access.yaml:5:"), "{unknown}");
    assert!(
        unknown.contains("sendr") && unknown.contains("sender"),
        "{unknown}"
    );
    let network = refused(
        "default: allow\nrules:\n  - name: a\n    action: deny\n    client: 192.0.2.0/33\n",
    );
    assert!(
        network.starts_with("access.yaml:5:") && network.contains("no network"),
        "{network}"
    );
    let twice =
        refused("{default: allow, rules: [{name: a, action: deny}, {name: a, action: deny}]}");
    assert!(twice.contains("two rules are called `a`"), "{twice}");
    let reply = refused("{default: allow, rules: [{name: a, action: allow, reply: {text: no}}]}");
    assert!(reply.contains("never sent"), "{reply}");
    let never = refused(
        "{default: allow, rules: [{name: a, action: deny, auth: joe, authenticated: false}]}",
    );
    assert!(never.contains("never matches"), "{never}");
}

#[test]
fn inline_errors_name_the_rule() {
    let json = serde_json::json!({ "default": "allow", "rules": [
        { "name": "a", "action": "deny" },
        { "name": "b", "action": "refuse" },
    ]});
    let error = Policy::from_json(&json, &Directories::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("policy: rules[1]: ") && error.contains("refuse"),
        "{error}"
    );
}

mod lookups;
