//! Any context a processor may send: what is kept is bounded, and the same each time.

use std::collections::BTreeMap;

use opes_proto::smtp::{Address, Answer, Auth, Delivery, Reply};
use proptest::prelude::*;

use super::*;

fn reader() -> Reader {
    Reader {
        addresses: Addresses::Full,
        outbound_listeners: vec!["submission".into()],
    }
}

fn to(address: &str) -> Address {
    Address {
        address: address.into(),
        parameters: Vec::new(),
    }
}

fn answered(context: &Context) -> Answered {
    match reader().event(Point::Answered, context, 7).unwrap().what {
        What::Answered(answered) => *answered,
        What::Attempt(_) => panic!("no attempt"),
    }
}

#[test]
fn a_message_with_two_fates_and_what_ran() {
    let fate = |kind: Kind, id: &str, recipients, code| smtp::Fate {
        kind: kind.into(),
        id: id.into(),
        recipients,
        code,
        enhanced: String::new(),
    };
    let context = Context {
        event_id: "e1".into(),
        dialog_id: "d1".into(),
        listener: "mx".into(),
        mail_from: Some(to("ann@example.org")),
        recipients: vec![
            to("b@Example.com"),
            to("c@example.net"),
            to("b@Example.com"),
        ],
        size: Some(77),
        answer: Some(Answer {
            at: Point::Content.into(),
            fates: vec![
                fate(Kind::Queued, "q1", 2, 250),
                fate(Kind::Refused, "", 1, 550),
                fate(Kind::Refused, "", 1, 451),
            ],
            steps: vec![smtp::Step {
                rule: "default/scan".into(),
                service: "default/scanner".into(),
                result: StepResult::Tempfail.into(),
                elapsed_us: 1500,
                failure: "timeout".into(),
            }],
            elapsed_us: 9000,
        }),
        ..Context::default()
    };
    let told = answered(&context);
    let fates: Vec<_> = told.fates.iter().map(|fate| fate.kind).collect();
    assert_eq!(fates, ["queued", "rejected", "tempfailed"]);
    assert!(told.accepted);
    assert_eq!((told.octets, told.recipients_total()), (77, 3));
    assert_eq!(
        told.recipients.len(),
        2,
        "the same recipient twice is a row"
    );
    assert_eq!(told.recipients[0].0.domain, "example.com");
    assert_eq!((told.direction, told.point), ("inbound", "content"));
    assert_eq!(
        (told.steps[0].result, told.steps[0].failure.as_str()),
        ("tempfail", "timeout")
    );
}

#[test]
fn outbound_is_what_was_submitted() {
    let by_listener = Context {
        listener: "submission".into(),
        ..Context::default()
    };
    let by_auth = Context {
        auth: Some(Auth::default()),
        ..Context::default()
    };
    for (context, direction) in [
        (by_listener, "outbound"),
        (by_auth, "outbound"),
        (Context::default(), "inbound"),
    ] {
        assert_eq!(answered(&context).direction, direction);
    }
}

#[test]
fn more_recipients_than_rows_are_counted_all_the_same() {
    let recipients = (0..RECIPIENTS_MAX + 5).map(|n| to(&format!("r{n}@example.com")));
    let context = Context {
        recipients: recipients.collect(),
        ..Context::default()
    };
    let told = answered(&context);
    assert_eq!(told.recipients.len(), RECIPIENTS_MAX + 1);
    assert_eq!(told.recipients_total(), 1005);
}

#[test]
fn only_points_for_observers_are_reported() {
    let known: BTreeMap<i32, bool> = (0..=20)
        .filter_map(|number| Point::try_from(number).ok())
        .map(|point| {
            (
                point.into(),
                reader().event(point, &Context::default(), 0).is_some(),
            )
        })
        .collect();
    let reported: Vec<i32> = known
        .iter()
        .filter(|(_, is)| **is)
        .map(|(n, _)| *n)
        .collect();
    assert_eq!(reported, [10, 11, 12, 13]);
}

prop_compose! {
    fn any_fate()(kind in any::<i32>(), id in ".{0,300}", recipients in any::<u32>(), code in any::<u32>(), enhanced in ".{0,20}") -> smtp::Fate {
        smtp::Fate { kind, id, recipients, code, enhanced }
    }
}

prop_compose! {
    fn any_step()(rule in ".{0,300}", service in ".{0,300}", result in any::<i32>(), elapsed_us in any::<u64>(), failure in ".{0,300}") -> smtp::Step {
        smtp::Step { rule, service, result, elapsed_us, failure }
    }
}

prop_compose! {
    fn any_context()(
        texts in prop::array::uniform5(".{0,300}"),
        addresses in prop::collection::vec(".{0,400}", 0..30),
        size in any::<Option<u64>>(),
        at in any::<i32>(),
        fates in prop::collection::vec(any_fate(), 0..5),
        steps in prop::collection::vec(any_step(), 0..5),
        numbers in any::<(u64, u32)>(),
    ) -> Context {
        let [event_id, dialog_id, listener, queue_id, enhanced] = texts;
        Context {
            event_id, dialog_id, listener, size,
            mail_from: addresses.first().map(|address| to(address)),
            recipients: addresses.iter().map(|address| to(address)).collect(),
            answer: Some(Answer { at, fates, steps, elapsed_us: numbers.0 }),
            delivery: Some(Delivery {
                queue_id, elapsed_ms: numbers.0,
                reply: Some(Reply { code: numbers.1, enhanced, lines: Vec::new() }),
                ..Delivery::default()
            }),
            ..Context::default()
        }
    }
}

fn texts(event: &Event) -> Vec<String> {
    let mut texts = vec![event.id.clone(), event.dialog.clone()];
    match &event.what {
        What::Attempt(attempt) => {
            texts.extend([attempt.queue_id.clone(), attempt.enhanced.clone()]);
            texts.extend([
                attempt.recipient.address.clone(),
                attempt.recipient.domain.clone(),
            ]);
        }
        What::Answered(answered) => {
            texts.push(answered.listener.clone());
            for (kept, _) in &answered.recipients {
                texts.extend([kept.address.clone(), kept.domain.clone()]);
            }
            for fate in &answered.fates {
                texts.extend([fate.queue_id.clone(), fate.enhanced.clone()]);
            }
            for step in &answered.steps {
                texts.extend([
                    step.rule.clone(),
                    step.service.clone(),
                    step.failure.clone(),
                ]);
            }
        }
    }
    texts
}

proptest! {
    #[test]
    fn whatever_is_told_is_bounded_and_the_same_each_time(context in any_context(), at_ms in any::<u64>()) {
        for point in [Point::Answered, Point::Delivered, Point::Deferred, Point::Bounced] {
            let event = reader().event(point, &context, at_ms).unwrap();
            let again = reader().event(point, &context, at_ms);
            prop_assert_eq!(Some(&event), again.as_ref());
            prop_assert!(event.weight() < 100_000 && event.rows() < 1 + 31 + 10);
            prop_assert!(event.id.len() <= NAME_OCTETS_MAX && event.at_ms >= 0);
            let control = texts(&event).into_iter().find(|text| text.chars().any(char::is_control));
            prop_assert_eq!(control, None, "PostgreSQL takes no NUL");
        }
    }
}
