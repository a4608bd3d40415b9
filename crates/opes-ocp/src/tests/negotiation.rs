//! Offers, responses, collisions, phases, scopes.

use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{NegotiationOffer, NegotiationResponse};

use super::support::*;
use crate::{CallError, Failure, ProcessorEvent, Rule, ServerEvent, StartTransaction};

const OTHER: &str = "https://example.com/ocp/other";

fn response(agent_out: Vec<opes_proto::ocp::Message>) -> NegotiationResponse {
    match agent_out.into_iter().next_back().and_then(|m| m.kind) {
        Some(Kind::NegotiationResponse(m)) => m,
        other => panic!("not NR: {other:?}"),
    }
}

#[test]
fn c_05_no_follows_cs_directly() {
    let first = out(&mut new_processor(PLAIN, limits()));
    assert_eq!(names(&first), ["CS", "NO"]);
    assert_eq!(first.get(1), Some(&no(&[PROFILE])));
}

#[test]
fn c_06_every_offer_gets_an_immediate_response() {
    let mut s = new_server(PLAIN, limits());
    feed(&mut s, [cs(), no(&[]), no(&[OTHER]), no(&[OTHER, PROFILE])]);
    assert_eq!(sent(&mut s), ["CS", "NR-", "NR-", "NR+"]);
    assert_eq!(
        events(&mut s),
        [ServerEvent::Negotiated {
            offer: feature(PROFILE)
        }]
    );
    let mut p = processor(PLAIN);
    feed(&mut p, [no(&[]), no(&[OTHER])]);
    assert_eq!(sent(&mut p), ["NR-", "NR-"]);
}

#[test]
fn c_06_unknown_and_impossible_features_are_told_apart() {
    let mut s = server(PLAIN);
    feed(&mut s, [no(&[OTHER, PROFILE])]);
    let nr = response(out(&mut s));
    assert_eq!(
        (nr.unknowns, nr.rejects),
        (vec![feature(OTHER)], vec![feature(PROFILE)])
    );
}

#[test]
fn c_07_collision_p_disregards_the_offer_of_s() {
    let mut p = new_processor(PLAIN, limits());
    out(&mut p);
    feed(&mut p, [cs(), no(&[OTHER])]);
    assert_eq!(sent(&mut p), [""; 0]);
    feed(&mut p, [nr(Some(PROFILE))]);
    assert_eq!(
        events(&mut p),
        [ProcessorEvent::Negotiated {
            feature: feature(PROFILE)
        }]
    );
}

#[test]
fn c_07_collision_s_drops_its_own_and_answers() {
    let mut s = server(PLAIN);
    s.offer(offer(&[OTHER])).expect("none outstanding");
    feed(&mut s, [no(&[])]);
    assert_eq!(sent(&mut s), ["NO", "NR-"]);
    assert_eq!(
        events(&mut s),
        [ServerEvent::OfferAnswered {
            selected: None,
            sg_id: None
        }]
    );
    feed(&mut s, [nr(None)]);
    assert_eq!(
        sent(&mut s),
        ["CE 400"],
        "the dropped offer is no longer there to be answered"
    );
}

#[test]
fn c_07_collision_between_two_agents_ends_in_agreement() {
    let (mut p, mut s) = (processor(PLAIN), server(PLAIN));
    p.offer(offer(&[OTHER])).expect("none outstanding");
    s.offer(offer(&[OTHER])).expect("none outstanding");
    let (from_p, from_s) = (out(&mut p), out(&mut s));
    feed(&mut s, from_p);
    feed(&mut p, from_s);
    feed(&mut p, out(&mut s));
    feed(&mut s, out(&mut p));
    assert_eq!(
        events(&mut p),
        [ProcessorEvent::OfferAnswered {
            selected: None,
            sg_id: None
        }]
    );
    assert!(!p.has_ended() && !s.has_ended());
    p.offer(offer(&[])).expect("settled");
    s.offer(offer(&[])).expect("settled");
}

#[test]
fn c_08_no_second_offer_while_one_is_unanswered() {
    let mut p = processor(PLAIN);
    p.offer(offer(&[OTHER])).expect("none outstanding");
    assert_eq!(p.offer(offer(&[])), Err(CallError::OfferOutstanding));
    let mut s = server(PLAIN);
    s.offer(offer(&[OTHER])).expect("none outstanding");
    assert_eq!(s.offer(offer(&[])), Err(CallError::OfferOutstanding));
    out(&mut p);
    feed(&mut p, [no(&[]), no(&[])]);
    assert_eq!(
        sent(&mut p),
        ["CE 400"],
        "S cannot have an answer to its first offer"
    );
    let last = events(&mut p).pop();
    let result = Err(Failure::Violation(Rule::OfferWhilePending));
    assert_eq!(last, Some(ProcessorEvent::ConnectionEnded { result }));
}

#[test]
fn c_09_response_repeats_the_scope_of_the_offer() {
    let scoped = |sg_id| NegotiationResponse {
        sg_id,
        ..Default::default()
    };
    for (asked, answered, fine) in [
        (None, None, true),
        (Some(0), Some(0), true),
        (None, Some(0), false),
        (Some(0), None, false),
        (Some(0), Some(1), false),
    ] {
        let mut p = processor(PLAIN);
        p.offer(NegotiationOffer {
            sg_id: asked,
            ..offer(&[OTHER])
        })
        .expect("group 0 is there");
        out(&mut p);
        feed(&mut p, [kind(Kind::NegotiationResponse(scoped(answered)))]);
        assert_eq!(sent(&mut p) == ["CE 400"], !fine);
    }
    let mut s = server(PLAIN);
    feed(
        &mut s,
        [kind(Kind::NegotiationOffer(NegotiationOffer {
            sg_id: Some(0),
            ..offer(&[OTHER])
        }))],
    );
    assert_eq!(response(out(&mut s)).sg_id, Some(0));
}

#[test]
fn c_09_offer_for_a_group_that_is_not_there_ends_the_connection() {
    let mut s = server(PLAIN);
    feed(
        &mut s,
        [kind(Kind::NegotiationOffer(NegotiationOffer {
            sg_id: Some(5),
            ..offer(&[OTHER])
        }))],
    );
    assert_eq!(sent(&mut s), ["CE 400"]);
    let mut p = processor(PLAIN);
    let refused = p.offer(NegotiationOffer {
        sg_id: Some(5),
        ..offer(&[OTHER])
    });
    assert_eq!(refused, Err(CallError::UnknownGroup(5)));
}

#[test]
fn c_10_selection_of_a_feature_that_was_not_offered_fails() {
    let mut p = new_processor(PLAIN, limits());
    out(&mut p);
    feed(&mut p, [cs(), nr(Some(OTHER))]);
    assert_eq!(sent(&mut p), ["CE 400"]);
    let events = events(&mut p);
    assert!(matches!(
        events.first(),
        Some(ProcessorEvent::NegotiationFailed { .. })
    ));
    let result = Err(Failure::Violation(Rule::FeatureNotOffered));
    assert_eq!(
        events.last(),
        Some(&ProcessorEvent::ConnectionEnded { result })
    );
}

#[test]
fn c_10_unusable_parameters_fail_the_negotiation() {
    let config = crate::ProcessorConfig {
        offer: feature(PROFILE),
        accept: Box::new(|_| None),
        adapted_credit: 0,
        extensions: PLAIN,
        limits: limits(),
    };
    let mut p = crate::Processor::new(config, 0);
    feed(&mut p, [cs(), nr(Some(PROFILE))]);
    assert_eq!(sent(&mut p), ["CS", "NO", "CE 400"]);
}

#[test]
fn c_11_only_phase_messages_are_sent_in_a_phase() {
    let mut p = working_processor(KEEPS);
    feed(&mut p, [ams(0), no_pending(&[OTHER])]);
    assert_eq!(sent(&mut p), ["NR-"]);
    assert_eq!(p.sendable(0), 0);
    assert_eq!(
        p.data(0, 0, "x".into()),
        Err(CallError::NotSendable {
            asked: 1,
            sendable: 0
        })
    );
    assert_eq!(
        p.start(StartTransaction::default()),
        Err(CallError::NotNegotiated)
    );
    // What has to be said is held back, in order.
    feed(&mut p, [dwss(0), pq(None), aq(PROFILE)]);
    p.abort(0, "enough").expect("open");
    assert_eq!(sent(&mut p), ["PA", "AA true"]);
    feed(&mut p, [no(&[])]);
    assert_eq!(sent(&mut p), ["NR-", "DSS", "TE 400"]);
}

#[test]
fn c_11_the_end_of_a_phase_lets_data_flow_again() {
    let mut s = working_server(PLAIN);
    feed(&mut s, [no_pending(&[OTHER])]);
    assert_eq!(s.sendable(0), 0);
    feed(&mut s, [dum(0, 0, "on its way"), no(&[])]);
    assert!(events(&mut s).contains(&ServerEvent::Sendable { xid: 0 }));
    assert!(s.sendable(0) > 0);
}

#[test]
fn c_12_phase_stays_open_exactly_if_the_pair_announced_an_offer() {
    let mut p = new_processor(PLAIN, limits());
    let pending = NegotiationResponse {
        offer_pending: true,
        feature: Some(feature(PROFILE)),
        ..Default::default()
    };
    feed(&mut p, [cs(), kind(Kind::NegotiationResponse(pending))]);
    assert_eq!(p.create_group(vec![]), Err(CallError::NotNegotiated));
    feed(&mut p, [no_pending(&[OTHER])]);
    assert_eq!(p.create_group(vec![]), Err(CallError::NotNegotiated));
    feed(&mut p, [no(&[])]);
    assert_eq!(p.create_group(vec![]), Ok(0));
}

#[test]
fn c_12_a_negative_response_with_an_announcement_does_not_end_the_connection() {
    let mut p = new_processor(PLAIN, limits());
    let pending = NegotiationResponse {
        offer_pending: true,
        ..Default::default()
    };
    feed(&mut p, [cs(), kind(Kind::NegotiationResponse(pending))]);
    assert!(!p.has_ended());
    let mut p = new_processor(PLAIN, limits());
    feed(&mut p, [cs(), nr(None)]);
    assert_eq!(sent(&mut p), ["CS", "NO", "CE 400"]);
}

#[test]
fn c_13_conflicting_offer_is_rejected_in_either_scope() {
    for sg_id in [None, Some(0)] {
        let mut s = server(PLAIN);
        feed(
            &mut s,
            [kind(Kind::NegotiationOffer(NegotiationOffer {
                sg_id,
                ..offer(&[PROFILE])
            }))],
        );
        let nr = response(out(&mut s));
        assert_eq!((nr.feature, nr.rejects), (None, vec![feature(PROFILE)]));
    }
    let mut p = processor(PLAIN);
    feed(&mut p, [no(&[PROFILE])]);
    assert_eq!(response(out(&mut p)).rejects, [feature(PROFILE)]);
}

#[test]
fn c_14_negotiation_does_not_touch_running_transactions() {
    let mut s = working_server(crate::Extensions::ALL);
    feed(&mut s, [dum(0, 0, "abc")]);
    s.grant(0, 40).expect("grows");
    feed(&mut s, [no(&[PROFILE]), no(&[OTHER])]);
    feed(&mut s, [dum(0, 3, &"x".repeat(37))]);
    assert_eq!(s.received(0), 40);
    assert_eq!(s.sendable(0), CREDIT);
}

#[test]
fn c_15_no_transaction_before_the_profile_is_agreed() {
    let mut p = new_processor(PLAIN, limits());
    assert_eq!(
        p.start(StartTransaction::default()),
        Err(CallError::NotNegotiated)
    );
    assert_eq!(p.create_group(vec![]), Err(CallError::NotNegotiated));
    let mut s = new_server(PLAIN, limits());
    feed(&mut s, [cs(), ts(0, 0)]);
    assert_eq!(sent(&mut s), ["CS", "TE 400"]);
    feed(&mut s, [sgc(0)]);
    assert_eq!(sent(&mut s), ["CE 400"]);
}
