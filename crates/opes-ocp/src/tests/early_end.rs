//! DWSR, DWSS, DSS, AME 206, the standing stop (RFC 4037 §8).

use bytes::Bytes;

use super::support::*;
use crate::{AdaptedEnd, CallError, Extensions, OriginalEnd, ProcessorEvent, Rule, ServerEvent};

const STANDING: Extensions = Extensions {
    standing_stop: true,
    ..KEEPS
};

fn rest(from: u64) -> AdaptedEnd {
    AdaptedEnd::Rest { from }
}

#[test]
fn c_40_dwsr_p_sends_at_least_n_octets_and_ends_with_206() {
    let mut p = working_processor(PLAIN);
    p.data(0, 0, "ab".into()).expect("open");
    feed(&mut p, [dwsr(0, 5)]);
    assert_eq!(
        events(&mut p),
        [ProcessorEvent::StopReceiving { xid: 0, size: 5 }]
    );
    assert_eq!(p.sendable(0), 3);
    p.data(0, 0, "cde".into()).expect("open");
    assert_eq!(p.sendable(0), 0);
    p.finish(0, false).expect("enough was sent");
    assert_eq!(sent(&mut p), ["DUM", "DUM", "AME 206"]);
    feed(&mut p, [dwsr(0, 9)]);
    assert_eq!(events(&mut p), [], "too late for that");
}

#[test]
fn c_41_s_sends_a_whole_message_after_206_of_p() {
    let (mut p, mut s) = (working_processor(KEEPS), working_server(KEEPS));
    feed(&mut p, [ams(0)]);
    p.data(0, 0, "ab".into()).expect("open");
    p.finish(0, false).expect("open");
    feed(&mut s, out(&mut p));
    assert_eq!(
        events(&mut s).pop(),
        Some(ServerEvent::OriginalEnd {
            xid: 0,
            end: OriginalEnd::Partial
        })
    );
    s.use_original(0, 0, 2).expect("kept");
    s.adapted_data(0, 0, "more".into(), None, None)
        .expect("open");
    assert_eq!(
        s.adapted_end(0, rest(2), Bytes::new()),
        Err(CallError::StopNotGranted(2))
    );
    s.adapted_end(0, AdaptedEnd::Complete, Bytes::new())
        .expect("open");
    s.end(0, Ok(())).expect("ended");
    feed(&mut p, out(&mut s));
    assert_eq!(ending_of_p(&events(&mut p), 0), Some(Ok(())));
}

#[test]
fn c_42_206_of_s_without_dss_is_a_violation() {
    for messages in [vec![ams(0), ame_from(0, 0)], vec![ams(0), ame(0, 206)]] {
        assert_eq!(
            p_refuses(&mut working_processor(KEEPS), messages),
            Rule::StopNotGranted
        );
    }
    // Asked for, but not granted: P keeps nothing.
    let mut p = working_processor(PLAIN);
    feed(&mut p, [ams(0), dwss(0)]);
    assert_eq!(p_refuses(&mut p, [ame_from(0, 0)]), Rule::StopNotGranted);
}

#[test]
fn c_43_p_answers_dwss_as_soon_as_it_can_rebuild() {
    let mut p = working_processor(KEEPS);
    p.data(0, 0, "abc".into()).expect("open");
    out(&mut p);
    feed(&mut p, [ams(0), dwss(0), dwss(0)]);
    assert_eq!(out(&mut p), [dss(0, 3)]);
    // Keeps nothing: when the original has gone out completely, no octet is missing.
    let mut p = working_processor(PLAIN);
    feed(&mut p, [ams(0), dwss(0)]);
    assert!(events(&mut p).contains(&ProcessorEvent::StopSendingWanted { xid: 0 }));
    p.data(0, 0, "abc".into()).expect("open");
    p.finish(0, true).expect("open");
    assert_eq!(sent(&mut p), ["DUM", "AME 200", "DSS"]);
    // Or when P begins to keep the rest, or says so.
    let mut p = working_processor(PLAIN);
    feed(&mut p, [ams(0), dwss(0)]);
    p.keep(0, 0, (1 << 31) - 1).expect("first");
    assert_eq!(sent(&mut p), ["DUM", "DSS"]);
    let mut p = working_processor(PLAIN);
    assert_eq!(
        p.stop_sending(0),
        Err(CallError::StopImpossible),
        "nobody asked"
    );
    feed(&mut p, [ams(0), dwss(0)]);
    p.stop_sending(0).expect("asked for");
    assert_eq!(sent(&mut p), ["DSS"]);
}

#[test]
fn c_43_dwss_needs_an_open_adapted_flow() {
    assert_eq!(
        p_refuses(&mut working_processor(KEEPS), [dwss(0)]),
        Rule::FlowNotStarted
    );
    let mut s = server(KEEPS);
    feed(&mut s, [ts(0, 0)]);
    assert_eq!(s.want_stop_sending(0), Err(CallError::FlowNotStarted));
}

#[test]
fn c_44_s_answers_dss_with_206_at_once() {
    let mut s = working_server(PLAIN);
    feed(&mut s, [dum(0, 0, "abc")]);
    s.want_stop_sending(0).expect("open");
    s.want_stop_sending(0).expect("no second message");
    assert_eq!(sent(&mut s), ["DWSS"]);
    events(&mut s);
    feed(&mut s, [dss(0, 3), dum(0, 3, "def")]);
    assert_eq!(
        events(&mut s).first(),
        Some(&ServerEvent::StopSending { xid: 0, from: 3 })
    );
    s.adapted_data(0, 0, "ABC".into(), None, None)
        .expect("what it owes");
    assert_eq!(
        s.adapted_end(0, AdaptedEnd::Complete, Bytes::new()),
        Err(CallError::StopGranted(3))
    );
    assert_eq!(
        s.adapted_end(0, rest(4), Bytes::new()),
        Err(CallError::StopNotGranted(4))
    );
    out(&mut s);
    s.adapted_end(0, rest(3), Bytes::new()).expect("granted");
    assert_eq!(out(&mut s), [ame_from(0, 3)]);
}

#[test]
fn c_44_s_ignores_dss_after_its_ame() {
    let mut s = working_server(PLAIN);
    s.want_stop_sending(0).expect("open");
    s.adapted_end(0, AdaptedEnd::Complete, Bytes::new())
        .expect("not granted yet");
    feed(&mut s, [dss(0, 0)]);
    assert_eq!(sent(&mut s), ["DWSS", "AME 200"]);
    assert_eq!(events(&mut s), []);
    // And P accepts the AME 200 that crossed its DSS.
    let mut p = working_processor(KEEPS);
    feed(&mut p, [ams(0), dwss(0), ame(0, 200), te(0, 200)]);
    assert_eq!(ending_of_p(&events(&mut p), 0), Some(Ok(())));
}

#[test]
fn c_44_unsolicited_dss_is_a_violation() {
    assert_eq!(
        s_refuses(&mut working_server(PLAIN), [dss(0, 0)]),
        Rule::StopUnsolicited
    );
    let mut s = working_server(PLAIN);
    s.want_stop_sending(0).expect("open");
    out(&mut s);
    assert_eq!(
        s_refuses(&mut s, [dss(0, 0), dss(0, 0)]),
        Rule::StopUnsolicited
    );
}

#[test]
fn c_45_206_of_p_never_precedes_dss() {
    let mut p = working_processor(PLAIN);
    feed(&mut p, [ams(0), dwss(0), dwsr(0, 0)]);
    assert_eq!(p.finish(0, false), Err(CallError::StopPending));
    assert_eq!(sent(&mut p), [""; 0]);
    p.stop_sending(0).expect("asked for");
    p.finish(0, false).expect("granted");
    assert_eq!(sent(&mut p), ["DSS", "AME 206"]);
}

#[test]
fn c_45_no_dss_after_206_of_p() {
    let mut p = working_processor(KEEPS);
    feed(&mut p, [ams(0), dwsr(0, 0)]);
    p.finish(0, false).expect("enough");
    feed(&mut p, [dwss(0)]);
    assert_eq!(sent(&mut p), ["AME 206"]);
    assert_eq!(p.stop_sending(0), Err(CallError::StopImpossible));
    let mut s = working_server(PLAIN);
    s.want_stop_sending(0).expect("open");
    out(&mut s);
    assert_eq!(
        s_refuses(&mut s, [ame(0, 206), dss(0, 0)]),
        Rule::StopOffset
    );
}

#[test]
fn c_46_the_joint_is_what_p_had_sent() {
    for wrong in [0, 2, 4] {
        let mut s = working_server(PLAIN);
        s.want_stop_sending(0).expect("open");
        out(&mut s);
        assert_eq!(
            s_refuses(&mut s, [dum(0, 0, "abc"), dss(0, wrong)]),
            Rule::StopOffset
        );
        let mut p = working_processor(KEEPS);
        p.data(0, 0, "abc".into()).expect("open");
        feed(&mut p, [ams(0), dwss(0)]);
        out(&mut p);
        assert_eq!(p_refuses(&mut p, [ame_from(0, wrong)]), Rule::StopOffset);
    }
    // A peer that knows only the RFC does not repeat J.
    let mut p = working_processor(KEEPS);
    p.data(0, 0, "abc".into()).expect("open");
    feed(&mut p, [ams(0), dwss(0), dum(0, 0, "ABC"), ame(0, 206)]);
    let end = ProcessorEvent::AdaptedEnd {
        xid: 0,
        end: rest(3),
        profile: Bytes::new(),
    };
    assert_eq!(events(&mut p).pop(), Some(end));
}

#[test]
fn c_46_out_of_the_loop_in_one_batch() {
    let (mut p, mut s) = (working_processor(KEEPS), working_server(KEEPS));
    s.want_stop_sending(0).expect("open");
    s.want_stop_receiving(0, 0).expect("open");
    feed(&mut p, [ams(0)]);
    feed(&mut p, out(&mut s));
    p.finish(0, false).expect("DSS has gone out");
    let answer = out(&mut p);
    assert_eq!(names(&answer), ["DSS", "AME 206"]);
    feed(&mut s, answer);
    s.adapted_end(0, rest(0), Bytes::new()).expect("granted");
    s.end(0, Ok(())).expect("ended");
    feed(&mut p, out(&mut s));
    assert_eq!(ending_of_p(&events(&mut p), 0), Some(Ok(())));
}

#[test]
fn standing_stop_s_states_the_joint_by_itself() {
    for joint in [0, 2, 3, 7] {
        let mut p = working_processor(STANDING);
        p.data(0, 0, "abc".into()).expect("open");
        out(&mut p);
        feed(
            &mut p,
            [ams(0), dum(0, 0, "X"), ame_from(0, joint), te(0, 200)],
        );
        assert_eq!(sent(&mut p), [""; 0]);
        let events = events(&mut p);
        let end = ProcessorEvent::AdaptedEnd {
            xid: 0,
            end: rest(joint),
            profile: Bytes::new(),
        };
        assert!(events.contains(&end));
    }
    assert_eq!(
        p_refuses(&mut working_processor(STANDING), [ams(0), ame(0, 206)]),
        Rule::StopOffset
    );
}

#[test]
fn standing_stop_the_joint_lies_in_the_original() {
    let mut p = working_processor(STANDING);
    p.data(0, 0, "abc".into()).expect("open");
    p.finish(0, true).expect("open");
    out(&mut p);
    assert_eq!(
        p_refuses(&mut p, [ams(0), ame_from(0, 4)]),
        Rule::StopOffset
    );
    let mut s = working_server(STANDING);
    feed(&mut s, [dum(0, 0, "abc"), ame(0, 200)]);
    assert_eq!(
        s.adapted_end(0, rest(4), Bytes::new()),
        Err(CallError::OffsetTooLarge)
    );
    s.adapted_end(0, rest(3), Bytes::new())
        .expect("nothing is left to add");
}
