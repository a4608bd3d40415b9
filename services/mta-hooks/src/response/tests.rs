use opes_proto::smtp::{Outcome, edit, verdict};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const MESSAGE: &[u8] =
    b"From: a@example.org\r\nX-Mailer: one\r\nSubject: hello\r\nx-mailer: two\r\n\r\nbody\r\n";

fn try_outcome(response: &Value, message: &[u8]) -> Result<Outcome, ResponseError> {
    let response = Response::parse(response.to_string().as_bytes())?;
    let structure = opes_mime::scan(message);
    let answer = response.answer(&Shown {
        octets: message,
        structure: &structure,
        recipients: &["Jane@example.com".to_owned()],
    })?;
    Ok(answer.into_outcome())
}

fn outcome(response: &Value) -> Outcome {
    try_outcome(response, MESSAGE).unwrap()
}

fn edits(modifications: &Value) -> Vec<edit::Kind> {
    let outcome = outcome(&json!({ "action": "accept", "modifications": modifications }));
    outcome
        .edits
        .into_iter()
        .filter_map(|edit| edit.kind)
        .collect()
}

#[test]
fn the_example_of_the_documentation() {
    let said = outcome(&json!({
        "action": "accept",
        "response": { "status": 250, "enhancedStatus": "2.0.0", "message": "Message accepted", "disconnect": false },
        "modifications": [
            { "type": "changeFrom", "value": "new@example.com", "parameters": { "size": 54321 } },
            { "type": "addRecipient", "value": "tom@example.com", "parameters": null },
            { "type": "deleteRecipient", "value": "jane@example.com" },
            { "type": "replaceContents", "value": "This is the new body\r\n" },
            { "type": "addHeader", "name": "X-Spam-Status", "value": "No" },
            { "type": "insertHeader", "index": 1, "name": "X-Filtered-By", "value": "Custom Filter v1.1" },
            { "type": "changeHeader", "index": 1, "name": "Subject", "value": "This is the new subject" },
            { "type": "deleteHeader", "index": 2, "name": "X-Mailer" },
        ],
    }));
    assert!(
        said.verdict.is_none()
            || said.verdict.as_ref().unwrap().action() == verdict::Action::Accept
    );
    let envelope = said.envelope.unwrap();
    assert_eq!(envelope.mail_from.as_deref(), Some("new@example.com"));
    let [added, removed] = &envelope.recipients[..] else {
        panic!("{:?}", envelope.recipients)
    };
    assert_eq!(
        (added.original.as_str(), added.address.as_str()),
        ("", "tom@example.com")
    );
    assert!(removed.remove && removed.original == "Jane@example.com");
    let kinds: Vec<_> = said
        .edits
        .into_iter()
        .filter_map(|edit| edit.kind)
        .collect();
    let [
        edit::Kind::Splice(body),
        edit::Kind::HeaderAdd(status),
        edit::Kind::HeaderAdd(filtered),
        edit::Kind::HeaderReplace(subject),
        edit::Kind::HeaderDelete(mailer),
    ] = &kinds[..]
    else {
        panic!("{kinds:?}")
    };
    let at = MESSAGE.len() - 6;
    assert_eq!((body.offset, body.size), (at as u64, 6));
    assert_eq!(body.replacement, "This is the new body\r\n");
    assert!(status.append && !filtered.append);
    assert_eq!(
        (subject.index, &subject.value[..]),
        (0, &b"This is the new subject"[..])
    );
    assert_eq!(
        (mailer.name.as_str(), mailer.index, mailer.all),
        ("X-Mailer", 1, false)
    );
}

#[test]
fn actions() {
    for (response, action, code) in [
        (
            json!({ "action": "discard" }),
            verdict::Action::Discard,
            None,
        ),
        (
            json!({ "action": "reject" }),
            verdict::Action::Reject,
            Some((550, "5.7.1", TEXT_DEFAULT)),
        ),
        (
            json!({ "action": "reject", "response": { "status": 554, "enhancedStatus": "5.6.0", "message": "Bad\r\nthing ✗" } }),
            verdict::Action::Reject,
            Some((554, "5.6.0", "Bad  thing ?")),
        ),
        (
            json!({ "action": "reject", "response": { "status": 451, "enhancedStatus": "5.6.0" } }),
            verdict::Action::Tempfail,
            Some((451, "4.7.1", TEXT_DEFAULT)),
        ),
    ] {
        let verdict = outcome(&response).verdict.unwrap();
        assert_eq!(verdict.action(), action, "{response}");
        let reply = verdict
            .reply
            .map(|reply| (reply.code, reply.enhanced, reply.lines.join("|")));
        let code = code.map(|(code, enhanced, text)| (code, enhanced.to_owned(), text.to_owned()));
        assert_eq!(reply, code, "{response}");
    }
    let held = outcome(&json!({ "action": "quarantine", "modifications": null }));
    assert!(held.quarantine.is_some());
}

#[test]
fn what_cannot_be_followed_is_an_error_and_no_half_of_it() {
    let many =
        vec![json!({ "type": "addHeader", "name": "X", "value": "1" }); MODIFICATIONS_MAX + 1];
    for (response, said) in [
        (json!({}), "missing field `action`"),
        (json!({ "action": "maybe" }), "unknown variant `maybe`"),
        (
            json!({ "action": "accept", "modifications": [{ "type": "addFooter" }] }),
            "unknown variant `addFooter`",
        ),
        (
            json!({ "action": "accept", "modifications": [{ "type": "addHeader", "name": "X" }] }),
            "missing field `value`",
        ),
        (
            json!({ "action": "reject", "response": { "status": 250 } }),
            "status 250",
        ),
        (
            json!({ "action": "accept", "modifications": many }),
            "1001 modifications",
        ),
    ] {
        let error = try_outcome(&response, MESSAGE).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn fields_that_are_not_there() {
    assert!(edits(&json!([{ "type": "deleteHeader", "index": 3, "name": "X-Mailer" }])).is_empty());
    let added =
        edits(&json!([{ "type": "changeHeader", "index": 1, "name": "X-New", "value": "1" }]));
    assert!(
        matches!(&added[..], [edit::Kind::HeaderAdd(add)] if add.append),
        "{added:?}"
    );
}

#[test]
fn lines_end_as_in_mail() {
    let kinds = edits(&json!([
        { "type": "replaceContents", "value": "one\ntwo\r\n" },
        { "type": "addHeader", "name": "X-Long", "value": "a\n b" },
    ]));
    let [edit::Kind::Splice(body), edit::Kind::HeaderAdd(field)] = &kinds[..] else {
        panic!("{kinds:?}")
    };
    assert_eq!(
        (&body.replacement[..], &field.value[..]),
        (&b"one\r\ntwo\r\n"[..], &b"a\r\n b"[..])
    );
}

#[test]
fn a_message_without_a_body_gets_one() {
    let message = b"Subject: a\r\n";
    let response = json!({ "action": "accept", "modifications": [{ "type": "replaceContents", "value": "new" }] });
    let outcome = try_outcome(&response, message).unwrap();
    let Some(edit::Kind::Splice(splice)) = &outcome.edits[0].kind else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (splice.offset, splice.size, &splice.replacement[..]),
        (12, 0, &b"\r\nnew"[..])
    );
}

#[test]
fn before_the_message_only_envelope_and_refusal() {
    let answer =
        |response: &Value| Response::parse(response.to_string().as_bytes())?.command_answer();
    let refused =
        answer(&json!({ "action": "reject", "response": { "status": 450, "message": "Later" } }));
    let (outcome, line) = refused.unwrap().into_parts();
    assert_eq!(outcome.verdict.unwrap().reply.unwrap().code, 450);
    assert!(line.is_none());
    let changed = answer(
        &json!({ "action": "accept", "modifications": [{ "type": "changeFrom", "value": "<new@example.com>" }] }),
    );
    let (outcome, _) = changed.unwrap().into_parts();
    assert_eq!(
        outcome.envelope.unwrap().mail_from.as_deref(),
        Some("new@example.com")
    );
    for response in [
        json!({ "action": "discard" }),
        json!({ "action": "quarantine" }),
        json!({ "action": "accept", "modifications": [{ "type": "addHeader", "name": "X", "value": "1" }] }),
    ] {
        let error = answer(&response).unwrap_err().to_string();
        assert!(error.contains("stage DATA only"), "{error}");
    }
}

proptest! {
    #[test]
    fn hostile_responses_and_messages_cannot_panic(body in ".{0,200}", message in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _refused = Response::parse(body.as_bytes());
        let all = json!({ "action": "accept", "modifications": [
            { "type": "replaceContents", "value": body },
            { "type": "changeHeader", "index": u32::MAX, "name": body, "value": body },
            { "type": "deleteHeader", "name": body },
            { "type": "deleteRcpt", "value": body },
        ] });
        let _outcome = try_outcome(&all, &message).unwrap();
    }
}
