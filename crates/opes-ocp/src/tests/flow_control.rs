//! Pauses and credit (RFC 4037 §11.15–11.17 and the credit extension).

use bytes::Bytes;

use super::support::*;
use crate::{CallError, Extensions, ProcessorEvent, Rule, ServerEvent};

const WITH_CREDIT: Extensions = Extensions {
    credit: true,
    ..KEEPS
};

#[test]
fn c_47_dwp_behind_the_flow_stops_it_at_once() {
    let mut p = working_processor(PLAIN);
    p.data(0, 0, "abc".into()).expect("open");
    feed(&mut p, [dwp(0, 1)]);
    assert_eq!(sent(&mut p), ["DUM", "DPM"]);
    assert_eq!(
        p.data(0, 0, "d".into()),
        Err(CallError::NotSendable {
            asked: 1,
            sendable: 0
        })
    );
    feed(&mut p, [dwp(0, 0)]);
    assert_eq!(sent(&mut p), [""; 0], "paused already");
    feed(&mut p, [dwm(0, None)]);
    assert_eq!(events(&mut p), [ProcessorEvent::Sendable { xid: 0 }]);
    p.data(0, 0, "d".into()).expect("resumed");
}

#[test]
fn c_47_dwp_ahead_of_the_flow_stops_it_there() {
    let mut s = working_server(KEEPS);
    feed(&mut s, [dwp(0, 4)]);
    assert_eq!(s.sendable(0), 4);
    s.adapted_data(0, 0, "abc".into(), None, None)
        .expect("before the pause");
    assert_eq!(
        s.use_original(0, 0, 2),
        Err(CallError::NotSendable {
            asked: 2,
            sendable: 1
        }),
        "DUY is data"
    );
    s.use_original(0, 0, 1).expect("up to the offset");
    s.adapted_data(0, 0, Bytes::new(), None, None)
        .expect("an empty DUM is no data");
    assert_eq!(sent(&mut s), ["DUM", "DUY", "DPM", "DUM"]);
    assert_eq!(s.sendable(0), 0);
    feed(&mut s, [dwm(0, None)]);
    assert_eq!(events(&mut s), [ServerEvent::Sendable { xid: 0 }]);
    assert!(s.sendable(0) > 0);
}

#[test]
fn c_48_data_in_spite_of_dpm_is_refused() {
    let mut s = working_server(PLAIN);
    s.pause(0, 0).expect("open");
    out(&mut s);
    feed(&mut s, [dpm(0), dum(0, 0, "")]);
    assert_eq!(s_refuses(&mut s, [dum(0, 0, "x")]), Rule::DataWhilePaused);
    let mut p = working_processor(KEEPS);
    feed(&mut p, [ams(0), dpm(0)]);
    assert_eq!(p_refuses(&mut p, [duy(0, 0, 1)]), Rule::DataWhilePaused);
}

#[test]
fn c_48_a_dpm_that_crossed_our_dwm_binds_nobody() {
    let mut s = working_server(PLAIN);
    s.pause(0, 0).expect("open");
    s.resume(0).expect("open");
    assert_eq!(sent(&mut s), ["DWP", "DWM"]);
    feed(&mut s, [dpm(0), dum(0, 0, "x")]);
    assert_eq!((sent(&mut s).len(), s.received(0)), (0, 1));
    // Nor does a further DWP tell whether the DPM that comes is older or younger than the DWM.
    s.pause(0, 0).expect("open");
    out(&mut s);
    feed(&mut s, [dpm(0), dum(0, 1, "y")]);
    assert_eq!((sent(&mut s).len(), s.received(0)), (0, 2));
}

#[test]
fn c_49_dwm_without_pause_is_accepted() {
    let (mut p, mut s) = (working_processor(PLAIN), working_server(PLAIN));
    feed(&mut p, [dwm(0, None), dwm(0, Some(3))]);
    feed(&mut s, [dwm(0, None), dwm(0, Some(3))]);
    assert_eq!((sent(&mut p).len(), sent(&mut s).len()), (0, 0));
    assert!(
        p.sendable(0) > 3,
        "without the extension the limit is an unknown parameter"
    );
}

#[test]
fn credit_limits_the_sender() {
    let mut p = working_processor(WITH_CREDIT);
    assert_eq!(p.sendable(0), CREDIT);
    assert_eq!(
        p.data(0, 0, Bytes::from(vec![0; 17])),
        Err(CallError::NotSendable {
            asked: 17,
            sendable: 16
        })
    );
    p.data(0, 0, Bytes::from(vec![0; 16])).expect("all of it");
    feed(&mut p, [dwm(0, Some(20))]);
    assert_eq!(
        (events(&mut p), p.sendable(0)),
        (vec![ProcessorEvent::Sendable { xid: 0 }], 4)
    );
    assert_eq!(p.sent(0), 16);
}

#[test]
fn credit_binds_the_peer() {
    let sixteen = "0123456789abcdef";
    let rule = s_refuses(
        &mut working_server(WITH_CREDIT),
        [dum(0, 0, sixteen), dum(0, 16, "x")],
    );
    assert_eq!(rule, Rule::BeyondCredit(16));
    let mut s = working_server(WITH_CREDIT);
    s.grant(0, 16).expect("the same");
    assert_eq!(sent(&mut s), [""; 0], "the same limit is no message");
    s.grant(0, 17).expect("grows");
    assert_eq!(
        out(&mut s),
        [kind(opes_proto::ocp::message::Kind::WantMoreData(
            opes_proto::ocp::WantMoreData {
                xid: 0,
                size_request: None,
                limit_offset: Some(17),
            }
        ))]
    );
    assert_eq!(s.grant(0, 16), Err(CallError::CreditShrinks(16)));
    feed(&mut s, [dum(0, 0, sixteen), dum(0, 16, "x")]);
    assert_eq!(s.received(0), 17);
}

#[test]
fn credit_only_grows() {
    let rule = p_refuses(&mut working_processor(WITH_CREDIT), [dwm(0, Some(15))]);
    assert_eq!(rule, Rule::CreditShrinks(15));
    assert_eq!(
        working_processor(PLAIN).grant(0, 99),
        Err(CallError::NoCredit)
    );
}

#[test]
fn duy_and_empty_dum_need_no_credit() {
    let mut s = working_server(WITH_CREDIT);
    s.use_original(0, 0, 1_000_000).expect("free of credit");
    assert_eq!(s.sendable(0), CREDIT);
    s.adapted_data(0, 0, "0123456789abcdef".into(), None, None)
        .expect("all credit");
    s.adapted_data(0, 0, Bytes::new(), None, Some(100))
        .expect("nothing to count");
    let mut p = working_processor(WITH_CREDIT);
    feed(
        &mut p,
        [
            ams(0),
            duy(0, 0, 1_000_000),
            dum(0, 1_000_000, "0123456789abcdef"),
        ],
    );
    assert_eq!(sent(&mut p), [""; 0]);
    assert_eq!(
        p_refuses(&mut p, [dum(0, 1_000_016, "x")]),
        Rule::BeyondCredit(16)
    );
}

#[test]
fn a_spent_transaction_does_not_stop_its_neighbour() {
    let mut p = working_processor(WITH_CREDIT);
    p.data(0, 0, Bytes::from(vec![0; 16])).expect("all of it");
    let next = p.start(crate::StartTransaction::default()).expect("room");
    assert_eq!((p.sendable(0), p.sendable(next)), (0, CREDIT));
}

#[test]
fn grants_after_the_end_of_a_flow_are_not_sent() {
    let mut s = working_server(WITH_CREDIT);
    feed(&mut s, [ame(0, 200)]);
    s.grant(0, 99).expect("harmless");
    assert_eq!(sent(&mut s), [""; 0]);
}
