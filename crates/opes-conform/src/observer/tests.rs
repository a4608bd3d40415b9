use opes_proto::ocp::ApplicationMessageEnd;
use opes_proto::smtp::verdict::Action;
use opes_proto::smtp::{Outcome, Verdict};
use prost::Message as _;

use super::*;
use crate::messages::{ame, ams, cs, dum, dwm, te, ts};

fn id(fault: Result<(), Fault>) -> &'static str {
    match fault {
        Err(Fault::Broken { id, .. }) => id,
        other => panic!("{other:?}"),
    }
}

/// Transaction 0 over an original of five octets; S has started its flow.
fn running() -> Observer {
    let mut observer = Observer {
        offered: ProfileOffer {
            initial_credit: 10,
            ..ProfileOffer::default()
        },
        ..Observer::default()
    };
    observer.received(&cs()).unwrap();
    for kind in [
        ts(0, 0),
        ams(0, bytes::Bytes::new(), Some(5)),
        dum(0, 0, 2, "12345"),
        ame(0, None),
    ] {
        observer.sent(&kind);
    }
    observer
        .received(&ams(0, bytes::Bytes::new(), None))
        .unwrap();
    observer
}

fn ame_206(original_offset: Option<u64>) -> Kind {
    Kind::ApplicationMessageEnd(ApplicationMessageEnd {
        xid: 0,
        result: Some(crate::messages::result(206)),
        original_offset,
        profile: bytes::Bytes::new(),
    })
}

#[test]
fn what_is_right_is_let_pass() {
    let mut observer = running();
    for kind in [
        dum(0, 0, 0, "abcde"),
        dum(0, 5, 0, ""),
        ame_206(Some(5)),
        te(0, None),
    ] {
        observer.received(&kind).unwrap();
    }
}

#[test]
fn each_broken_rule_has_its_row() {
    for (row, messages) in [
        ("C-30", vec![dum(0, 1, 0, "a")]),
        ("C-31", vec![ams(0, bytes::Bytes::new(), None)]),
        ("C-31", vec![ame_206(Some(0)), dum(0, 0, 0, "a")]),
        ("C-41", vec![te(0, None)]),
        ("C-42", vec![ame_206(Some(6))]),
        ("C-42", vec![ame_206(None)]),
        ("C-22", vec![ame_206(Some(0)), te(0, None), dwm(0, None)]),
        (
            "C-29",
            vec![ame_206(Some(0)), te(0, Some(crate::messages::result(206)))],
        ),
        ("C-53", vec![dum(0, 0, 3, "a"), dum(0, 1, 2, "a")]),
        ("A5", vec![dum(0, 0, 0, "12345678901")]),
        ("A5", vec![dwm(0, Some(9)), dwm(0, Some(8))]),
        ("C-24", vec![te(1, None)]),
        (
            "C-50",
            vec![Kind::ProgressAnswer(
                opes_proto::ocp::ProgressAnswer::default(),
            )],
        ),
        ("C-51", vec![crate::messages::aa()]),
    ] {
        let mut observer = running();
        let mut last = Ok(());
        for kind in &messages {
            assert_eq!(last, Ok(()), "{row}");
            last = observer.received(kind);
        }
        assert_eq!(id(last), row);
    }
}

/// What S says of a command of five octets, to which it gives a new line.
fn renamed(action: Action) -> Result<(), Fault> {
    let mut observer = Observer::default();
    observer.offered.initial_credit = 10;
    observer.received(&cs()).unwrap();
    for kind in [
        ts(0, 0),
        ams(0, bytes::Bytes::new(), Some(5)),
        dum(0, 0, 1, "QUIT!"),
        ame(0, None),
    ] {
        observer.sent(&kind);
    }
    let start = ams(0, bytes::Bytes::new(), None);
    observer.received(&start).unwrap();
    observer.received(&dum(0, 0, 1, "NOOP")).unwrap();
    let outcome = Outcome {
        verdict: Some(Verdict {
            action: action.into(),
            reply: None,
        }),
        ..Outcome::default()
    };
    let end = observer.received(&Kind::ApplicationMessageEnd(ApplicationMessageEnd {
        profile: outcome.encode_to_vec().into(),
        ..ApplicationMessageEnd::default()
    }));
    assert!(end.is_err() || observer.exercised.contains("C-54"));
    end
}

#[test]
fn a_new_line_and_a_refusal_contradict_each_other() {
    assert_eq!(renamed(Action::Accept), Ok(()));
    assert_eq!(id(renamed(Action::Reject)), "C-54");
}

#[test]
fn what_may_have_crossed_is_not_held_against_it() {
    let mut observer = running();
    observer.sent(&te(0, None));
    observer.received(&dum(0, 7, 0, "a")).unwrap();
}
