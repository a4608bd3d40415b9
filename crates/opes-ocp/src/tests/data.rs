//! Sequence of data, As-is, Modp, parts, lengths.

use bytes::Bytes;
use opes_proto::ocp::DataUseMine;
use opes_proto::ocp::message::Kind;

use super::support::*;
use crate::{AdaptedEnd, CallError, ProcessorEvent, Rule, ServerEvent, StartTransaction};

fn message(dum: DataUseMine) -> opes_proto::ocp::Message {
    kind(Kind::DataUseMine(dum))
}

#[test]
fn c_30_no_gap_and_no_overlap() {
    for (offset, expected) in [(2, 3), (4, 3), (0, 3), (u64::MAX, 3)] {
        let mut s = working_server(PLAIN);
        let rule = s_refuses(&mut s, [dum(0, 0, "abc"), dum(0, offset, "d")]);
        assert_eq!(
            rule,
            Rule::Offset {
                expected,
                got: offset
            }
        );
        let mut p = working_processor(PLAIN);
        let rule = p_refuses(&mut p, [ams(0), dum(0, 0, "abc"), dum(0, offset, "d")]);
        assert_eq!(
            rule,
            Rule::Offset {
                expected,
                got: offset
            }
        );
    }
    let rule = s_refuses(&mut working_server(PLAIN), [dum(0, 1, "a")]);
    assert_eq!(
        rule,
        Rule::Offset {
            expected: 0,
            got: 1
        },
        "the first octet has offset 0"
    );
}

#[test]
fn c_30_duy_advances_the_adapted_flow() {
    let mut p = working_processor(KEEPS);
    feed(
        &mut p,
        [
            ams(0),
            dum(0, 0, "ab"),
            duy(0, 7, 3),
            dum(0, 5, "c"),
            ame(0, 200),
        ],
    );
    assert_eq!(sent(&mut p), [""; 0]);
    let rule = p_refuses(
        &mut working_processor(KEEPS),
        [ams(0), duy(0, 0, 3), dum(0, 0, "c")],
    );
    assert_eq!(
        rule,
        Rule::Offset {
            expected: 3,
            got: 0
        }
    );
}

#[test]
fn c_30_offsets_have_the_agreed_range() {
    let edge = (1 << 31) - 1;
    let mut p = working_processor(KEEPS);
    feed(&mut p, [ams(0), duy(0, 0, edge)]);
    assert_eq!(p_refuses(&mut p, [dum(0, edge, "x")]), Rule::OffsetTooLarge);
    assert_eq!(
        p_refuses(&mut working_processor(KEEPS), [ams(0), duy(0, edge + 1, 0)]),
        Rule::OffsetTooLarge
    );
    let large = crate::Extensions {
        large_offsets: true,
        ..KEEPS
    };
    let mut p = working_processor(large);
    feed(
        &mut p,
        [
            ams(0),
            duy(0, 0, edge),
            dum(0, edge, "x"),
            duy(0, edge, edge),
        ],
    );
    assert_eq!(sent(&mut p), [""; 0]);
    let mut p = working_processor(large);
    assert_eq!(
        p_refuses(&mut p, [ams(0), duy(0, u64::MAX, u64::MAX)]),
        Rule::OffsetTooLarge
    );
}

#[test]
fn c_31_empty_dum_is_accepted() {
    let (mut p, mut s) = (working_processor(PLAIN), working_server(PLAIN));
    feed(&mut s, [dum(0, 0, ""), dum(0, 0, "a"), dum(0, 1, "")]);
    feed(&mut p, [ams(0), dum(0, 0, ""), dum(0, 0, "a")]);
    assert_eq!((sent(&mut p).len(), sent(&mut s).len()), (0, 0));
    assert_eq!(s.received(0), 1);
}

#[test]
fn c_31_data_before_ams_or_after_ame_is_a_violation() {
    for early in [dum(0, 0, "x"), duy(0, 0, 0), ame(0, 200)] {
        assert_eq!(
            p_refuses(&mut working_processor(KEEPS), [early]),
            Rule::FlowNotStarted
        );
    }
    for late in [dum(0, 0, "x"), duy(0, 0, 0), ame(0, 200), ame(0, 400)] {
        assert_eq!(
            p_refuses(&mut working_processor(KEEPS), [ams(0), ame(0, 200), late]),
            Rule::FlowEnded
        );
    }
    let mut s = server(PLAIN);
    feed(&mut s, [ts(0, 0)]);
    assert_eq!(s_refuses(&mut s, [dum(0, 0, "x")]), Rule::FlowNotStarted);
    for late in [dum(0, 0, ""), ame(0, 200), ame(0, 206), ame(0, 400)] {
        assert_eq!(
            s_refuses(&mut working_server(PLAIN), [ame(0, 206), late]),
            Rule::FlowEnded
        );
    }
}

#[test]
fn c_31_local_calls_out_of_order_are_refused() {
    let mut p = working_processor(PLAIN);
    p.finish(0, true).expect("open");
    assert_eq!(p.data(0, 0, "x".into()), Err(CallError::FlowEnded));
    assert_eq!(p.finish(0, true), Err(CallError::FlowEnded));
    let mut s = server(KEEPS);
    feed(&mut s, [ts(0, 0)]);
    assert_eq!(
        s.adapted_data(0, 0, "x".into(), None, None),
        Err(CallError::FlowNotStarted)
    );
    assert_eq!(s.use_original(0, 0, 1), Err(CallError::FlowNotStarted));
    assert_eq!(
        s.adapted_end(0, AdaptedEnd::Complete, Bytes::new()),
        Err(CallError::FlowNotStarted)
    );
    assert_eq!(sent(&mut s), [""; 0], "a refused call sends nothing");
}

#[test]
fn c_32_invalid_as_is_is_ignored_and_a_valid_one_changes_nothing() {
    for (as_is, seen) in [
        (Some(0), Some(0)),
        (Some(1), Some(1)),
        (Some(2), None),
        (Some(u64::MAX), None),
        (None, None),
    ] {
        let mut p = working_processor(PLAIN);
        p.data(0, 0, "abc".into()).expect("open");
        out(&mut p);
        let dum = DataUseMine {
            as_is,
            ..data(0, 0, "bc")
        };
        feed(&mut p, [ams(0), message(dum)]);
        assert_eq!(sent(&mut p), [""; 0]);
        let payload = Bytes::from("bc");
        let expected = ProcessorEvent::AdaptedData {
            xid: 0,
            part: 0,
            payload,
            as_is: seen,
            modp: None,
        };
        assert_eq!(events(&mut p).pop(), Some(expected));
    }
}

fn modp(offset: u64, payload: &str, modp: u32) -> opes_proto::ocp::Message {
    message(DataUseMine {
        modp: Some(modp),
        ..data(0, offset, payload)
    })
}

#[test]
fn c_33_what_contradicts_modp_0_is_a_violation() {
    let with_original = || {
        let mut p = working_processor(KEEPS);
        p.data(0, 0, "abc".into()).expect("open");
        p.finish(0, true).expect("open");
        out(&mut p);
        p
    };
    let other_length = [ams(0), modp(0, "ab", 0), ame(0, 200)];
    assert_eq!(
        p_refuses(&mut with_original(), other_length),
        Rule::ModpBroken(0)
    );
    let other_statement = [ams(0), modp(0, "abc", 0), modp(3, "", 100)];
    assert_eq!(
        p_refuses(&mut with_original(), other_statement),
        Rule::ModpBroken(0)
    );
    assert_eq!(
        p_refuses(&mut with_original(), [ams(0), modp(0, "", 101)]),
        Rule::Modp(101)
    );
    let mut p = with_original();
    feed(&mut p, [ams(0), modp(0, "abc", 0), ame(0, 200), te(0, 200)]);
    assert_eq!(ending_of_p(&events(&mut p), 0), Some(Ok(())));
}

#[test]
fn c_33_s_cannot_contradict_itself() {
    let mut s = working_server(KEEPS);
    s.adapted_data(0, 0, "ab".into(), None, Some(0))
        .expect("first statement");
    assert_eq!(
        s.adapted_data(0, 0, "c".into(), None, Some(50)),
        Err(CallError::Modp(50))
    );
    s.adapted_data(0, 0, "c".into(), None, Some(0))
        .expect("the same again");
    let stated: Vec<_> = out(&mut s)
        .into_iter()
        .filter_map(|m| match m.kind {
            Some(Kind::DataUseMine(dum)) => Some(dum.modp),
            _ => None,
        })
        .collect();
    assert_eq!(stated, [Some(0), None], "a value is sent once");
    feed(&mut s, [dum(0, 0, "abcd"), ame(0, 200)]);
    assert_eq!(
        s.adapted_end(0, AdaptedEnd::Complete, Bytes::new()),
        Err(CallError::Modp(0))
    );
}

#[test]
fn c_53_parts_come_in_order() {
    let part = |offset, part, payload: &str| {
        message(DataUseMine {
            part,
            ..data(0, offset, payload)
        })
    };
    let mut s = working_server(PLAIN);
    feed(&mut s, [part(0, 2, "ab"), part(2, 2, "c"), part(3, 3, "d")]);
    assert_eq!(sent(&mut s), [""; 0]);
    let parts: Vec<_> = events(&mut s)
        .into_iter()
        .filter_map(|e| {
            if let ServerEvent::OriginalData { part, offset, .. } = e {
                Some((part, offset))
            } else {
                None
            }
        })
        .collect();
    assert_eq!(parts, [(2, 0), (2, 2), (3, 3)]);
    assert_eq!(
        s_refuses(&mut s, [part(4, 2, "e")]),
        Rule::PartOrder { last: 3, got: 2 }
    );
    let rule = p_refuses(
        &mut working_processor(PLAIN),
        [ams(0), part(0, 3, "a"), part(1, 2, "b")],
    );
    assert_eq!(rule, Rule::PartOrder { last: 3, got: 2 });
}

#[test]
fn c_53_no_part_is_sent_empty_as_a_stand_in() {
    let empty = message(DataUseMine {
        part: 3,
        ..data(0, 0, "")
    });
    assert_eq!(
        s_refuses(&mut working_server(PLAIN), [empty.clone()]),
        Rule::EmptyPart(3)
    );
    assert_eq!(
        p_refuses(&mut working_processor(PLAIN), [ams(0), empty]),
        Rule::EmptyPart(3)
    );
    let mut p = working_processor(PLAIN);
    assert_eq!(p.data(0, 2, Bytes::new()), Err(CallError::EmptyPart(2)));
    p.data(0, 3, "x".into()).expect("in order");
    assert_eq!(
        p.data(0, 2, "x".into()),
        Err(CallError::PartOrder { last: 3, got: 2 })
    );
}

#[test]
fn c_55_an_announced_length_is_exact() {
    for bad in [vec![dum(0, 0, "abc")], vec![dum(0, 0, "a"), ame(0, 200)]] {
        let mut s = server(PLAIN);
        feed(&mut s, [ts(0, 0), ams_of(0, 2)]);
        assert_eq!(s_refuses(&mut s, bad), Rule::Length(2));
    }
    let mut p = processor(PLAIN);
    p.start(StartTransaction {
        am_el: Some(2),
        ..Default::default()
    })
    .expect("possible");
    assert_eq!(p.data(0, 0, "abc".into()), Err(CallError::Length(2)));
    p.data(0, 0, "a".into()).expect("within");
    assert_eq!(p.finish(0, true), Err(CallError::Length(2)));
    assert_eq!(p.finish(0, false), Ok(()));
}
