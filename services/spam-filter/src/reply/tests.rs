use opes_proto::smtp::{Outcome, edit, verdict};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{Config, EngineConfig};

/// `more`: fields beside `engine`; `onGreylist` belongs to the engine.
fn config(more: &Value) -> (Config, RspamdConfig) {
    let mut more = more.as_object().unwrap().clone();
    let mut rspamd = json!({ "url": "http://127.0.0.1:11333/checkv2" });
    if let Some(on) = more.remove("onGreylist") {
        rspamd["onGreylist"] = on;
    }
    let mut config = json!({ "engine": { "rspamd": rspamd } });
    config.as_object_mut().unwrap().extend(more);
    let config = Config::from_json(&config).unwrap();
    let EngineConfig::Rspamd(rspamd) = config.engine.clone() else {
        unreachable!()
    };
    (config, rspamd)
}

fn answer(reply: &Reply, more: &Value, forged: bool) -> Outcome {
    let (config, rspamd) = config(more);
    let judgement = reply.judgement(&rspamd);
    judgement.answer(&config, forged).into_outcome()
}

fn outcome(reply: &Value, more: &Value) -> Outcome {
    let reply = Reply::parse(reply.to_string().as_bytes()).unwrap();
    answer(&reply, more, false)
}

fn edits(outcome: Outcome) -> Vec<edit::Kind> {
    outcome
        .edits
        .into_iter()
        .filter_map(|edit| edit.kind)
        .collect()
}

#[test]
fn each_action_and_what_it_is_configured_to() {
    for (action, more, expected) in [
        ("reject", json!({}), (verdict::Action::Reject, 550)),
        (
            "reject",
            json!({ "onReject": "tempfail" }),
            (verdict::Action::Tempfail, 451),
        ),
        ("greylist", json!({}), (verdict::Action::Tempfail, 451)),
        ("soft reject", json!({}), (verdict::Action::Tempfail, 451)),
        ("discard", json!({}), (verdict::Action::Discard, 0)),
    ] {
        let verdict = outcome(&json!({ "action": action }), &more)
            .verdict
            .unwrap();
        let code = verdict.reply.as_ref().map_or(0, |reply| reply.code);
        assert_eq!((verdict.action(), code), expected, "{action} {more}");
    }
    for (action, more) in [
        ("no action", json!({})),
        ("greylist", json!({ "onGreylist": "accept" })),
        ("reject", json!({ "onReject": "mark" })),
        ("add header", json!({})),
        ("quarantine", json!({})),
    ] {
        let outcome = outcome(&json!({ "action": action }), &more);
        let action_of = outcome
            .verdict
            .as_ref()
            .map(opes_proto::smtp::Verdict::action);
        assert!(
            matches!(action_of, None | Some(verdict::Action::Accept)),
            "{action}"
        );
        assert_eq!(outcome.quarantine.is_some(), action == "quarantine");
        let kinds = edits(outcome);
        let marked = kinds
            .iter()
            .any(|kind| matches!(kind, edit::Kind::SubjectMark(_)));
        assert_eq!(
            marked,
            matches!(action, "reject" | "add header"),
            "{action}"
        );
    }
}

#[test]
fn fields_are_set_and_forged_ones_go() {
    let reply = json!({
        "action": "add header", "score": 7.5, "required_score": 15.0,
        "milter": {
            "add_headers": { "X-Spamd-Bar": { "value": "+++", "order": 0 }, "X-Two": ["a", { "value": "b" }] },
            "remove_headers": { "X-Spam": 0 },
        },
    });
    let reply = Reply::parse(reply.to_string().as_bytes()).unwrap();
    let kinds = edits(answer(&reply, &json!({ "subjectMark": "" }), true));
    let all: Vec<_> = kinds
        .iter()
        .map(|kind| match kind {
            edit::Kind::HeaderAdd(add) => {
                format!("+{}: {}", add.name, String::from_utf8_lossy(&add.value))
            }
            edit::Kind::HeaderDelete(delete) => format!("-{} {}", delete.name, delete.all),
            other => format!("{other:?}"),
        })
        .collect();
    let expected = [
        "-X-Spam-Status true",
        "+X-Spam-Status: Yes, score=7.50 required=15.00 action=\"add header\"",
        "-X-Spam true",
        "+X-Spamd-Bar: +++",
        "+X-Two: a",
        "+X-Two: b",
    ];
    assert_eq!(all, expected);
}

#[test]
fn a_queue_and_a_subject_of_rspamds_own() {
    let reply = json!({ "action": "rewrite subject", "subject": "[odd] café", "score": 9 });
    let outcome = outcome(&reply, &json!({ "spamQueue": "spam" }));
    assert_eq!(outcome.quarantine.as_ref().unwrap().queue, "spam");
    let kinds = edits(outcome);
    let Some(edit::Kind::HeaderReplace(subject)) = kinds.first() else {
        panic!("{kinds:?}")
    };
    assert!(subject.value.starts_with(b"=?"), "{:?}", subject.value);
}

#[test]
fn the_text_is_rspamds_own_if_it_has_one() {
    let text = |messages: Value| {
        let outcome = outcome(
            &json!({ "action": "reject", "messages": messages }),
            &json!({}),
        );
        outcome.verdict.unwrap().reply.unwrap().lines.join("|")
    };
    assert_eq!(
        text(json!({ "smtp_message": "Gtube\r\npattern" })),
        "Gtube  pattern"
    );
    assert_eq!(text(json!({})), "This message looks like spam");
    assert_eq!(text(json!([])), "This message looks like spam");
}

#[test]
fn what_cannot_be_followed() {
    for (reply, said) in [
        ("nonsense", "cannot be read"),
        (r#"{"error": "no memory"}"#, "rspamd failed: no memory"),
        (r#"{"action": "sing"}"#, "`sing` is not known"),
        (
            r#"{"action": "no action", "score": "high"}"#,
            "cannot be read",
        ),
    ] {
        let error = Reply::parse(reply.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

proptest! {
    #[test]
    fn hostile_replies_cannot_panic(body in ".{0,200}", score in any::<f64>()) {
        let _refused = Reply::parse(body.as_bytes());
        let reply = json!({
            "action": "rewrite subject", "subject": body, "score": score, "symbols": { &body: { "score": score } },
            "milter": { "add_headers": { &body: body } },
        });
        let reply = Reply::parse(reply.to_string().as_bytes()).unwrap();
        let _answer = answer(&reply, &json!({}), true);
    }
}
