use opes_k8s::status::{condition, reason};
use serde_json::json;

use super::conditions::Truth;
use super::*;

fn said(type_: &'static str, truth: Truth) -> Said {
    Said::new(type_, truth, "Why", "message")
}

#[test]
fn a_condition_that_nothing_is_said_of_stays_and_a_stranger_goes() {
    let now = Timestamp::UNIX_EPOCH;
    let programmed = said(condition::PROGRAMMED, Truth::True).after(None, 1, now);
    let stranger = said("Stranger", Truth::True).after(None, 1, now);
    let after = desired(
        &[programmed.clone(), stranger],
        &[said(condition::ACCEPTED, Truth::True)],
        2,
        now,
    );
    assert_eq!(after.len(), 2);
    assert_eq!(find(&after, condition::PROGRAMMED), Some(&programmed));
    assert_eq!(
        find(&after, condition::ACCEPTED).and_then(|accepted| accepted.observed_generation),
        Some(2)
    );
}

#[test]
fn what_is_said_already_is_not_written_again() {
    let now = Timestamp::UNIX_EPOCH;
    let conditions = desired(&[], &[said(condition::ACCEPTED, Truth::True)], 1, now);
    let status = json!({ "observedGeneration": 1, "conditions": conditions, "lastAccepted": { "generation": 1, "spec": { "a": 1 } } });
    let mut there = status.clone();
    there["certificateNotAfter"] = json!("2026-01-01T00:00:00Z");
    there["lastAccepted"]["spec"] = json!({ "a": 1, "defaulted": true });
    assert!(is_said(&status, &there));
    for (pointer, value) in [
        ("/observedGeneration", json!(2)),
        ("/conditions/0/reason", json!("Other")),
        ("/conditions/0/message", json!("other")),
        ("/lastAccepted/generation", json!(0)),
    ] {
        let mut other = there.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        assert!(!is_said(&status, &other), "{pointer}");
    }
    assert!(!is_said(&status, &Value::Null));
}

#[test]
fn every_reason_fits_the_schema() {
    let reasons = [
        reason::ACCEPTED,
        reason::INVALID,
        reason::CONFLICTED,
        reason::NOT_PERMITTED,
        rule::STAND_IN,
        rule::LAST_ACCEPTED,
        service::APPLY_FAILED,
        service::NAME_TAKEN,
        service::KEDA_MISSING,
    ];
    for reason in reasons {
        assert!(
            reason.chars().all(|c| c.is_ascii_alphanumeric())
                && reason.starts_with(|c: char| c.is_ascii_uppercase()),
            "{reason}"
        );
    }
}
