use serde_json::json;

use super::*;
use crate::config::Config;
use opes_mime::Limit;

const ALL: Allowed = Allowed {
    header: true,
    subject: true,
    replace_part: true,
    body: true,
    reject: true,
    quarantine: true,
    notify: true,
    report: true,
};

#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
fn settings(json: serde_json::Value) -> Settings {
    Config::from_json(&json).unwrap().settings
}

fn finding(path: &str, name: &str) -> Finding {
    Finding {
        path: path.to_owned(),
        name: name.to_owned(),
        cause: Cause::Name("*.exe".to_owned()),
    }
}

#[test]
fn clean_mail_is_not_touched() {
    let decision = decide(&[], &settings(json!({})), ALL).unwrap();
    assert_eq!(
        (decision.action, decision.header, decision.label),
        (Action::Accept, None, "clean")
    );
    let with_header = decide(&[], &settings(json!({ "headerOnClean": true })), ALL).unwrap();
    assert_eq!(
        with_header.header,
        Some(("X-Opes-Security".to_owned(), "clean".to_owned()))
    );
}

#[test]
fn forbidden_parts_are_replaced_and_marked() {
    let findings = [finding("2", "a.exe"), finding("3", "b.exe")];
    let decision = decide(
        &findings,
        &settings(json!({ "bodyMark": "Parts are missing." })),
        ALL,
    )
    .unwrap();
    let Action::Replace(parts) = &decision.action else {
        panic!("{:?}", decision.action)
    };
    assert_eq!(
        parts
            .iter()
            .map(|(path, _)| path.as_str())
            .collect::<Vec<_>>(),
        ["2", "3"]
    );
    assert!(
        parts[0].1.contains("\"a.exe\"") && parts[0].1.contains("*.exe"),
        "{}",
        parts[0].1
    );
    assert_eq!(
        decision.subject_mark.as_deref(),
        Some("[attachment removed] ")
    );
    assert_eq!(decision.body_mark.as_deref(), Some("Parts are missing."));
    assert_eq!(decision.header.unwrap().1, "replaced; count=2; cause=name");
    let incident: serde_json::Value = serde_json::from_str(&decision.incident.unwrap()).unwrap();
    assert_eq!(incident["parts"][1]["path"], "3");
}

#[test]
fn a_policy_may_refuse_quarantine_and_notify() {
    let config = json!({ "onViolation": "reject", "quarantine": true, "notify": ["administrator", "sender"], "report": false });
    let decision = decide(&[finding("2", "ü\r\n\u{202e}.exe")], &settings(config), ALL).unwrap();
    let Action::Refuse(code, enhanced, text) = &decision.action else {
        panic!("{:?}", decision.action)
    };
    assert_eq!((*code, *enhanced), (550, "5.7.1"));
    assert!(
        text.bytes().all(|octet| (b' '..=b'~').contains(&octet)),
        "{text}"
    );
    assert!(
        decision.quarantine.is_some()
            && decision.incident.is_none()
            && decision.subject_mark.is_none()
    );
    assert_eq!(
        decision
            .notify
            .iter()
            .map(|(to, _)| *to)
            .collect::<Vec<_>>(),
        [NotifyTo::Administrator, NotifyTo::Sender]
    );
    assert!(!decision.notify[0].1.contains('\u{202e}'));
}

#[test]
fn what_the_rule_does_not_allow_is_not_done_but_nothing_forbidden_passes() {
    let (findings, none) = ([finding("2", "a.exe")], Allowed::default());
    let kind = |on_violation: &str, allowed| {
        let settings = settings(json!({ "onViolation": on_violation }));
        match decide(&findings, &settings, allowed).map(|decision| decision.action) {
            Ok(Action::Replace(_)) => "replace",
            Ok(Action::Refuse(..)) => "refuse",
            Ok(Action::Quarantine) => "quarantine",
            Ok(Action::Accept) => "accept",
            Err(_) => "fail",
        }
    };
    let reject = Allowed {
        reject: true,
        ..none
    };
    let replace = Allowed {
        replace_part: true,
        ..none
    };
    let both = Allowed {
        reject: true,
        ..replace
    };
    let quarantine = Allowed {
        quarantine: true,
        header: true,
        ..none
    };
    let marks = Allowed {
        header: true,
        subject: true,
        ..none
    };
    for (on_violation, allowed, expected) in [
        ("replace", reject, "refuse"),
        ("replace", both, "replace"),
        ("reject", replace, "replace"),
        ("reject", both, "refuse"),
        ("replace", quarantine, "quarantine"),
        ("replace", marks, "fail"),
        ("reject", none, "fail"),
    ] {
        assert_eq!(
            kind(on_violation, allowed),
            expected,
            "{on_violation} {allowed:?}"
        );
    }
    let only_replace = decide(
        &findings,
        &settings(json!({})),
        Allowed {
            replace_part: true,
            ..none
        },
    )
    .unwrap();
    assert_eq!(
        (
            only_replace.header,
            only_replace.subject_mark,
            only_replace.incident
        ),
        (None, None, None)
    );
}

#[test]
fn what_cannot_be_seen_is_refused_unless_configured() {
    let beyond = Finding {
        path: String::new(),
        name: String::new(),
        cause: Cause::Beyond(Limit::Parts),
    };
    for (policy, expected) in [
        ("reject", Some(550)),
        ("tempfail", Some(451)),
        ("accept", None),
    ] {
        let decision = decide(
            std::slice::from_ref(&beyond),
            &settings(json!({ "onUnscannable": policy })),
            ALL,
        )
        .unwrap();
        let code = match decision.action {
            Action::Refuse(code, ..) => Some(code),
            action => {
                assert_eq!(action, Action::Accept);
                None
            }
        };
        assert_eq!((code, decision.label), (expected, "unscannable"));
    }
    let too_large = unscannable(&Unscannable::TooLarge, &settings(json!({})), ALL).unwrap();
    assert!(matches!(too_large.action, Action::Refuse(552, "5.3.4", _)));
    assert!(
        unscannable(
            &Unscannable::TooLarge,
            &settings(json!({})),
            Allowed::default()
        )
        .is_err()
    );
}

#[test]
fn placeholders_in_names_stay_text() {
    let decision = decide(
        &[finding("1", "{reason}{name}.exe")],
        &settings(json!({ "replacementText": "{name}: {reason}" })),
        ALL,
    );
    let Action::Replace(parts) = decision.unwrap().action else {
        panic!("replaced")
    };
    assert_eq!(
        parts[0].1,
        "\"{reason}{name}.exe\": its name is of the kind *.exe"
    );
}

fn doubt(path: &str) -> Finding {
    Finding {
        path: path.to_owned(),
        name: "a.zip/b.zip".to_owned(),
        cause: Cause::Unseen(Unseen::Corrupt),
    }
}

/// What is forbidden beside something that was not looked at completely.
#[test]
fn a_doubt_hides_nothing_that_is_forbidden() {
    let both = [finding("2", "a.exe"), doubt("3")];
    let decided = |policy: &str, findings: &[Finding]| {
        let settings = settings(json!({ "onUnscannable": policy }));
        decide(findings, &settings, ALL).unwrap()
    };
    let replaced = |decision: &Decision| -> Vec<String> {
        let Action::Replace(parts) = &decision.action else {
            panic!("{:?}", decision.action)
        };
        parts.iter().map(|(path, _)| path.clone()).collect()
    };
    assert_eq!(replaced(&decided("accept", &both)), ["2"]);
    assert_eq!(replaced(&decided("replace", &both)), ["2", "3"]);
    assert_eq!(replaced(&decided("replace", &both[1..])), ["3"]);
    assert!(matches!(
        decided("replace", &[doubt("")]).action,
        Action::Refuse(550, "5.6.0", _)
    ));
    for policy in ["reject", "tempfail"] {
        let decision = decided(policy, &both);
        let Action::Refuse(_, _, text) = decision.action else {
            panic!("{:?}", decision.action)
        };
        assert_eq!(
            text,
            "\"a.zip/b.zip\" cannot be looked at completely: it is damaged"
        );
    }
}

#[test]
fn what_only_took_too_long_is_not_refused_for_good() {
    for (why, expected) in [
        (Unseen::Time(1500), (451, "4.3.1")),
        (Unseen::Scanner(1000), (552, "5.3.4")),
        (Unseen::Ratio(250), (550, "5.6.0")),
    ] {
        let late = Finding {
            cause: Cause::Unseen(why),
            ..doubt("2")
        };
        let decision = decide(&[late], &settings(json!({})), ALL).unwrap();
        let Action::Refuse(code, enhanced, _) = decision.action else {
            panic!("{:?}", decision.action)
        };
        assert_eq!((code, enhanced), expected);
    }
}

#[test]
fn of_a_long_way_start_and_end_are_shown() {
    let name = format!("{}/evil.exe", "deep.zip/".repeat(30));
    let decision = decide(&[finding("2", &name)], &settings(json!({})), ALL).unwrap();
    assert!(
        decision.reason.contains("\"deep.zip/") && decision.reason.contains("/evil.exe\""),
        "{}",
        decision.reason
    );
    assert!(decision.reason.len() < 200);
}
