use opes_proto::smtp::verdict::Action;

use super::*;

fn rule(allow: &[Permission]) -> GroupParameters {
    GroupParameters {
        rule: "default/tested".to_owned(),
        allow: allow.to_vec(),
        ..GroupParameters::default()
    }
}

fn failed(failure: Failure) -> Finding {
    Finding {
        label: failure.label(),
        signature: None,
        failure: Some((failure, "why".to_owned())),
    }
}

fn policy(json: &str) -> Policy {
    Policy::from_json(json).unwrap()
}

const ALL: [Permission; 6] = [
    Permission::Header,
    Permission::Subject,
    Permission::Reject,
    Permission::Quarantine,
    Permission::Notify,
    Permission::Report,
];

#[test]
fn every_action_can_be_asked_for() {
    let policy = policy(
        r#"{"operation":"verify","onBadSignature":{"verdict":"quarantine","text":"look at it","subjectMark":"[?] ",
            "notify":["sender","recipients","administrator"],"report":true}}"#,
    );
    let answer = answer(&failed(Failure::BadSignature), &policy, "X-S", &rule(&ALL)).unwrap();
    let outcome = answer.outcome();
    assert_eq!(outcome.quarantine.as_ref().unwrap().reason, "look at it");
    assert_eq!(outcome.notifications.len(), 3);
    assert!(outcome.incident_json.contains("bad-signature"));
    assert_eq!(outcome.edits.len(), 2, "a mark and a field");
    assert_eq!(outcome.annotations["secure.result"], "bad-signature");
}

#[test]
fn what_the_rule_does_not_allow_fails_and_names_the_remedy() {
    let policy = policy(r#"{"operation":"encrypt","format":"openpgp"}"#);
    let finding = failed(Failure::MissingKey);
    let error = answer(&finding, &policy, "X-S", &rule(&[])).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("add reject to its callout.allow"), "{text}");
    let refused = answer(&finding, &policy, "X-S", &rule(&ALL)).unwrap();
    assert!(refuses(&refused));
    let verdict = refused.outcome().verdict.as_ref().unwrap();
    assert_eq!(verdict.action(), Action::Reject);
    assert_eq!(verdict.reply.as_ref().unwrap().enhanced, "5.7.5");
}

#[test]
fn fail_leaves_it_to_the_rule() {
    let policy = policy(r#"{"operation":"verify","onUnsigned":"fail"}"#);
    let error = answer(&failed(Failure::Unsigned), &policy, "", &rule(&ALL)).unwrap_err();
    assert_eq!(error.to_string(), "why (onUnsigned)");
}

#[test]
fn what_leaves_says_nothing_and_what_arrives_does() {
    let good = Finding {
        label: "verified",
        signature: Some(Signature::Good("ann@example.org".to_owned())),
        failure: None,
    };
    let verify = policy(r#"{"operation":"verify"}"#);
    let said = answer(&good, &verify, "X-S", &rule(&ALL)).unwrap();
    assert_eq!(said.outcome().edits.len(), 1);
    assert_eq!(
        said.outcome().annotations["secure.signer"],
        "ann@example.org"
    );
    assert_eq!(
        field(&good),
        "verified; signature=good; signer=ann@example.org"
    );
    let sign = policy(r#"{"operation":"sign","format":"openpgp"}"#);
    let silent = answer(&good, &sign, "X-S", &rule(&ALL)).unwrap();
    assert!(silent.outcome().edits.is_empty());
}
