//! Groups, ids, life and end of transactions.

use bytes::Bytes;
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{DataUseMine, ServiceGroupCreated, TransactionEnd};

use super::support::*;
use crate::{
    AdaptedEnd, CallError, Failure, Limits, OriginalEnd, ProcessorEvent, Rule, ServerEvent,
    StartTransaction,
};

#[test]
fn c_16_s_holds_at_least_one_group() {
    let mut s = server_with(
        PLAIN,
        Limits {
            groups_max: 0,
            ..limits()
        },
    );
    feed(&mut s, [ts(0, 0)]);
    assert_eq!(s.transactions_open(), 1);
}

#[test]
fn c_16_a_group_that_cannot_be_created_ends_the_connection() {
    let mut s = server(PLAIN);
    feed(&mut s, [sgc(1), sgc(2)]);
    assert_eq!(sent(&mut s), [""; 0]);
    feed(&mut s, [sgc(3)]);
    assert_eq!(sent(&mut s), ["CE 400"]);
}

#[test]
fn c_17_unknown_or_destroyed_group_ends_the_transaction() {
    let mut s = server(PLAIN);
    feed(&mut s, [ts(0, 7)]);
    assert_eq!(sent(&mut s), ["TE 400"]);
    feed(&mut s, [ts(1, 0), sgd(0), ts(2, 0)]);
    assert_eq!(sent(&mut s), ["TE 400"]);
    assert_eq!(s.transactions_open(), 1, "the running one goes on");
    let mut p = processor(PLAIN);
    p.destroy_group(0).expect("there");
    assert_eq!(
        p.start(StartTransaction::default()),
        Err(CallError::UnknownGroup(0))
    );
    assert_eq!(p.destroy_group(0), Err(CallError::UnknownGroup(0)));
}

#[test]
fn c_18_ids_strictly_increase() {
    let mut p = processor(PLAIN);
    assert_eq!(p.start(StartTransaction::default()), Ok(0));
    p.abort(0, "x").expect("open");
    assert_eq!(p.start(StartTransaction::default()), Ok(1));
    p.destroy_group(0).expect("there");
    assert_eq!(p.create_group(vec![]), Ok(1));
}

#[test]
fn c_18_reuse_and_decrease_are_invalid() {
    let mut s = server(PLAIN);
    feed(&mut s, [ts(5, 0), te(5, 400), ts(5, 0), ts(4, 0)]);
    assert_eq!(sent(&mut s), ["TE 400", "TE 400"]);
    assert_eq!(s.transactions_open(), 0);
    feed(&mut s, [ts(6, 0)]);
    assert_eq!(s.transactions_open(), 1);
    feed(&mut s, [sgc(2), sgc(1)]);
    assert_eq!(sent(&mut s), ["CE 400"]);
    let mut s = server(PLAIN);
    feed(&mut s, [sgd(0), sgc(0)]);
    assert_eq!(sent(&mut s), ["CE 400"]);
}

#[test]
fn c_18_reuse_of_a_live_id_ends_that_transaction() {
    let mut s = working_server(PLAIN);
    let rule = s_refuses(&mut s, [ts(0, 0)]);
    assert_eq!(rule, Rule::IdNotIncreasing { id: 0, highest: 0 });
}

#[test]
fn c_21_services_come_in_the_given_order() {
    let mut p = processor(PLAIN);
    let mut s = server(PLAIN);
    let services = vec![service("c"), service("a"), service("b")];
    p.create_group(services.clone()).expect("room");
    feed(&mut s, out(&mut p));
    assert_eq!(
        events(&mut s),
        [ServerEvent::GroupCreated { sg_id: 1, services }]
    );
}

#[test]
fn c_22_first_te_ends_the_transaction_and_neighbours_go_on() {
    let mut p = processor(PLAIN);
    for xid in 0..3 {
        assert_eq!(p.start(StartTransaction::default()), Ok(xid));
    }
    out(&mut p);
    feed(&mut p, [te(1, 400), te(1, 200)]);
    assert_eq!(events(&mut p).len(), 1);
    assert_eq!(sent(&mut p), [""; 0], "a TE is not answered");
    assert_eq!(
        p.data(1, 0, "x".into()),
        Err(CallError::UnknownTransaction(1))
    );
    assert_eq!(
        (p.data(0, 0, "x".into()), p.data(2, 0, "x".into())),
        (Ok(()), Ok(()))
    );
    assert_eq!(p.abort(0, "no"), Ok(()));
    assert_eq!(p.abort(0, "no"), Err(CallError::UnknownTransaction(0)));
}

#[test]
fn c_23_late_messages_change_nothing() {
    let mut p = working_processor(PLAIN);
    p.abort(0, "client left").expect("open");
    out(&mut p);
    events(&mut p);
    let late = [
        ams(0),
        dum(0, 0, "x"),
        dum(0, 9, "gap"),
        duy(0, 5, 5),
        dwss(0),
        ame(0, 206),
        te(0, 200),
    ];
    feed(&mut p, late);
    assert_eq!((sent(&mut p).len(), events(&mut p).len()), (0, 0));
    assert_eq!(p.counters().late_messages, 7);
    assert!(!p.has_ended());
}

#[test]
fn c_23_a_transaction_that_never_was_gets_one_te_400() {
    let (mut p, mut s) = (working_processor(PLAIN), working_server(PLAIN));
    feed(&mut p, [dum(7, 0, "x"), dum(7, 1, "x"), ams(6)]);
    feed(&mut s, [dum(7, 0, "x"), dum(7, 1, "x"), ams(6), te(9, 200)]);
    assert_eq!(
        (sent(&mut p), sent(&mut s)),
        (vec!["TE 400".to_owned()], vec!["TE 400".to_owned()])
    );
    assert_eq!(
        (p.counters().stray_messages, s.counters().stray_messages),
        (3, 4)
    );
    assert_eq!(
        p.start(StartTransaction::default()),
        Ok(1),
        "our ids are not the peer's to use up"
    );
}

#[test]
fn c_24_invalid_message_with_transaction_scope_ends_the_transaction_only() {
    let no_payload = kind(Kind::DataUseMine(DataUseMine::default()));
    assert_eq!(
        p_refuses(&mut working_processor(PLAIN), [no_payload.clone()]),
        Rule::Missing("DUM payload")
    );
    for message in [duy(0, 0, 0), dpi(0, 0, 0), dwsr(0, 0), dwss(0)] {
        let mut s = working_server(PLAIN);
        assert!(matches!(s_refuses(&mut s, [message]), Rule::WrongRole(_)));
        assert!(!s.has_ended());
    }
    for message in [ts(0, 0), dss(0, 0)] {
        let mut p = working_processor(PLAIN);
        assert!(matches!(p_refuses(&mut p, [message]), Rule::WrongRole(_)));
        assert!(!p.has_ended());
    }
    assert_eq!(
        s_refuses(&mut working_server(PLAIN), [no_payload]),
        Rule::Missing("DUM payload")
    );
}

#[test]
fn c_25_resource_limits_make_a_message_invalid() {
    let long = "x".repeat(65);
    let rule = s_refuses(&mut working_server(PLAIN), [dum(0, 0, &long)]);
    assert_eq!(
        rule,
        Rule::TooMany {
            what: "octets of payload",
            max: 64
        }
    );
    let rule = p_refuses(&mut working_processor(PLAIN), [ams(0), dum(0, 0, &long)]);
    assert_eq!(
        rule,
        Rule::TooMany {
            what: "octets of payload",
            max: 64
        }
    );
    let mut s = server(PLAIN);
    feed(&mut s, (0..5).map(|xid| ts(xid, 0)));
    assert_eq!(
        (sent(&mut s), s.transactions_open()),
        (vec!["TE 400".to_owned()], 4)
    );
    let services = vec![service("a"); 33];
    feed(
        &mut s,
        [kind(Kind::ServiceGroupCreated(ServiceGroupCreated {
            sg_id: 1,
            services,
        }))],
    );
    assert_eq!(sent(&mut s), ["CE 400"]);
    let mut p = processor(PLAIN);
    (0..4).for_each(|xid| assert_eq!(p.start(StartTransaction::default()), Ok(xid)));
    let full = CallError::TooMany {
        what: "transactions",
        max: 4,
    };
    assert_eq!(p.start(StartTransaction::default()), Err(full));
}

#[test]
fn c_27_absent_result_of_te_is_200_and_an_unknown_code_400() {
    let absent = || {
        kind(Kind::TransactionEnd(TransactionEnd {
            xid: 0,
            result: None,
        }))
    };
    for (end, fine) in [
        (absent(), true),
        (te(0, 200), true),
        (te(0, 299), false),
        (te(0, 0), false),
    ] {
        let mut p = working_processor(PLAIN);
        feed(&mut p, [ams(0), ame(0, 200), end]);
        let ended = ending_of_p(&events(&mut p), 0).expect("TE ends it");
        assert_eq!(ended.is_ok(), fine);
    }
    let mut s = working_server(PLAIN);
    feed(&mut s, [ame(0, 299)]);
    let end = OriginalEnd::Failed(String::new());
    assert_eq!(events(&mut s), [ServerEvent::OriginalEnd { xid: 0, end }]);
}

#[test]
fn c_28_after_400_nothing_of_the_adapted_message_is_used() {
    for last in [te(0, 400), ame(0, 400), ame(0, 777)] {
        let mut p = working_processor(PLAIN);
        feed(&mut p, [ams(0), dum(0, 0, "half"), last]);
        let events = events(&mut p);
        assert!(matches!(
            events.last(),
            Some(ProcessorEvent::Ended {
                xid: 0,
                result: Err(Failure::Peer { .. })
            })
        ));
        assert_eq!(p.transactions_open(), 0);
    }
    // A whole adapted message is worth nothing before TE 200 either.
    let mut p = working_processor(PLAIN);
    feed(&mut p, [ams(0), dum(0, 0, "all"), ame(0, 200), te(0, 400)]);
    assert!(ending_of_p(&events(&mut p), 0).is_some_and(|r| r.is_err()));
}

#[test]
fn c_28_te_200_before_the_end_of_the_adapted_flow_is_a_failure() {
    for before in [vec![], vec![ams(0)], vec![ams(0), dum(0, 0, "x")]] {
        let mut p = working_processor(PLAIN);
        feed(&mut p, before);
        feed(&mut p, [te(0, 200)]);
        assert_eq!(
            ending_of_p(&events(&mut p), 0),
            Some(Err(Failure::Unfinished))
        );
    }
    let mut s = working_server(PLAIN);
    assert_eq!(s.end(0, Ok(())), Err(CallError::AdaptedNotEnded));
    assert_eq!(
        working_processor(PLAIN).end(0),
        Err(CallError::AdaptedNotEnded)
    );
}

#[test]
fn c_29_206_outside_of_ame_is_a_failure() {
    let mut p = working_processor(PLAIN);
    feed(&mut p, [ams(0), ame(0, 200), te(0, 206)]);
    assert!(matches!(
        ending_of_p(&events(&mut p), 0),
        Some(Err(Failure::Peer { .. }))
    ));
    let mut s = working_server(PLAIN);
    s.adapted_end(0, AdaptedEnd::Complete, Bytes::new())
        .expect("open");
    feed(&mut s, [te(0, 206)]);
    assert!(matches!(
        ending_of_s(&events(&mut s), 0),
        Some(Err(Failure::Peer { .. }))
    ));
}

#[test]
fn c_58_one_adapted_message_for_each_transaction() {
    assert_eq!(
        p_refuses(&mut working_processor(PLAIN), [ams(0), ams(0)]),
        Rule::FlowStartedTwice
    );
    let after = p_refuses(&mut working_processor(PLAIN), [ams(0), ame(0, 200), ams(0)]);
    assert_eq!(after, Rule::FlowEnded);
    assert_eq!(
        s_refuses(&mut working_server(PLAIN), [ams(0)]),
        Rule::FlowStartedTwice
    );
    let mut s = working_server(PLAIN);
    assert_eq!(
        s.adapted_start(0, vec![], Bytes::new()),
        Err(CallError::FlowStartedTwice)
    );
}

#[test]
fn a_small_transaction_is_five_messages_out_and_three_back() {
    let (mut p, mut s) = (
        processor(crate::Extensions::ALL),
        server(crate::Extensions::ALL),
    );
    let xid = p
        .start(StartTransaction {
            am_el: Some(4),
            ..Default::default()
        })
        .expect("possible");
    p.data(xid, 2, "he".into()).expect("credit");
    p.data(xid, 3, "ad".into()).expect("credit");
    p.finish(xid, true).expect("open");
    let request = out(&mut p);
    assert_eq!(names(&request), ["TS", "AMS", "DUM", "DUM", "AME 200"]);
    feed(&mut s, request);
    s.adapted_start(xid, vec![], Bytes::new()).expect("open");
    s.adapted_end(xid, AdaptedEnd::Rest { from: 0 }, "outcome".into())
        .expect("standing stop");
    s.end(xid, Ok(())).expect("ended");
    let answer = out(&mut s);
    assert_eq!(names(&answer), ["AMS", "AME 206", "TE 200"]);
    feed(&mut p, answer);
    let expected = [
        ProcessorEvent::AdaptedStart {
            xid,
            services: vec![],
            profile: Bytes::new(),
        },
        ProcessorEvent::AdaptedEnd {
            xid,
            end: AdaptedEnd::Rest { from: 0 },
            profile: "outcome".into(),
        },
        ProcessorEvent::Ended {
            xid,
            result: Ok(()),
        },
    ];
    assert_eq!(events(&mut p), expected);
    assert_eq!((p.transactions_open(), s.transactions_open()), (0, 0));
}
