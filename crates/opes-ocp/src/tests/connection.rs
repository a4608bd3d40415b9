//! Start and end of a connection, ability, progress, time.

use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{AbilityAnswer, ConnectionEnd, Message, ProgressAnswer, ProgressReport};

use super::support::*;
use crate::{CallError, Failure, Limits, ProcessorEvent, Rule, ServerEvent, StartTransaction};

#[test]
fn c_01_first_frame_starts_with_cs() {
    assert_eq!(sent(&mut new_processor(PLAIN, limits())), ["CS", "NO"]);
    assert_eq!(sent(&mut new_server(PLAIN, limits())), ["CS"]);
}

#[test]
fn c_01_first_message_that_is_not_cs_is_answered_with_ce_400() {
    for first in [
        nr(Some(PROFILE)),
        pq(None),
        ts(0, 0),
        Message { kind: None },
        ce(200),
    ] {
        let mut p = new_processor(PLAIN, limits());
        feed(&mut p, [first.clone()]);
        assert_eq!(sent(&mut p), ["CS", "NO", "CE 400"]);
        let failed = Err(Failure::Violation(Rule::FirstNotStart));
        assert_eq!(
            events(&mut p),
            [ProcessorEvent::ConnectionEnded {
                result: failed.clone()
            }]
        );
        let mut s = new_server(PLAIN, limits());
        feed(&mut s, [first]);
        assert_eq!(sent(&mut s), ["CS", "CE 400"]);
        assert_eq!(
            events(&mut s),
            [ServerEvent::ConnectionEnded { result: failed }]
        );
    }
}

#[test]
fn c_02_repeated_cs_is_ignored() {
    let (mut p, mut s) = (working_processor(PLAIN), working_server(PLAIN));
    feed(&mut p, [cs(), cs()]);
    feed(&mut s, [cs(), cs()]);
    assert_eq!((sent(&mut p).len(), sent(&mut s).len()), (0, 0));
    assert_eq!((p.transactions_open(), s.transactions_open()), (1, 1));
}

#[test]
fn c_03_ce_is_sent_before_closing() {
    let mut p = working_processor(PLAIN);
    p.close(None);
    assert_eq!(sent(&mut p), ["CE 200"]);
    let mut s = working_server(PLAIN);
    s.close(Some("shutting down"));
    assert_eq!(sent(&mut s), ["CE 400"]);
    s.close(None);
    assert_eq!(sent(&mut s), [""; 0], "exactly once");
}

#[test]
fn c_03_loss_of_the_stream_counts_as_ce_400() {
    let mut p = working_processor(PLAIN);
    p.connection_lost();
    p.connection_lost();
    assert_eq!(sent(&mut p), [""; 0], "there is nobody to send to");
    let lost = Err(Failure::ConnectionLost);
    let ended = ProcessorEvent::Ended {
        xid: 0,
        result: lost.clone(),
    };
    assert_eq!(
        events(&mut p),
        [ended, ProcessorEvent::ConnectionEnded { result: lost }]
    );
}

#[test]
fn c_04_ce_ends_everything_and_frees_it() {
    for result in [200, 400] {
        let (mut p, mut s) = (working_processor(PLAIN), working_server(PLAIN));
        feed(&mut p, [ce(result)]);
        feed(&mut s, [ce(result)]);
        assert_eq!(
            ending_of_p(&events(&mut p), 0),
            Some(Err(Failure::ConnectionLost))
        );
        assert_eq!(
            ending_of_s(&events(&mut s), 0),
            Some(Err(Failure::ConnectionLost))
        );
        assert_eq!((p.transactions_open(), s.transactions_open()), (0, 0));
        assert_eq!(
            p.start(StartTransaction::default()),
            Err(CallError::ConnectionEnded)
        );
        assert_eq!(p.create_group(vec![]), Err(CallError::ConnectionEnded));
        assert_eq!(p.offer(offer(&[])), Err(CallError::ConnectionEnded));
        feed(&mut s, [sgc(1), pq(None), dum(0, 0, "x")]);
        assert_eq!((sent(&mut p).len(), sent(&mut s).len()), (0, 0));
        assert_eq!(s.counters().after_end, 3);
    }
}

#[test]
fn c_19_exhausted_ids_end_the_connection() {
    let mut p = processor_with(
        PLAIN,
        Limits {
            id_max: 1,
            ..limits()
        },
    );
    assert_eq!(p.start(StartTransaction::default()), Ok(0));
    assert_eq!(p.start(StartTransaction::default()), Ok(1));
    assert_eq!(
        p.start(StartTransaction::default()),
        Err(CallError::IdsExhausted)
    );
    out(&mut p);
    feed(&mut p, [te(0, 400)]);
    assert_eq!(sent(&mut p), [""; 0], "the last transaction may finish");
    feed(&mut p, [te(1, 400)]);
    assert_eq!(sent(&mut p), ["CE 200"]);
    assert!(p.has_ended());
}

#[test]
fn c_19_ids_above_the_range_end_the_connection() {
    let mut s = server(PLAIN);
    feed(&mut s, [ts(1 << 31, 0)]);
    assert_eq!(sent(&mut s), ["CE 400"]);
    let mut s = server(PLAIN);
    feed(&mut s, [sgc(u32::MAX)]);
    assert_eq!(sent(&mut s), ["CE 400"]);
}

#[test]
fn c_20_ids_of_one_connection_have_no_effect_on_another() {
    let (mut one, mut other) = (working_server(PLAIN), server(PLAIN));
    feed(&mut other, [dum(0, 0, "x"), te(0, 400)]);
    assert_eq!(sent(&mut other), ["TE 400"], "xid 0 does not exist here");
    feed(&mut one, [dum(0, 0, "x")]);
    assert_eq!(one.received(0), 1);
}

#[test]
fn c_24_invalid_message_with_connection_scope_ends_the_connection() {
    let unsolicited = kind(Kind::AbilityAnswer(AbilityAnswer { supported: true }));
    for bad in [unsolicited, sgd(7), nr(None), sgc(0)] {
        let mut s = working_server(PLAIN);
        feed(&mut s, [bad]);
        assert_eq!(sent(&mut s), ["CE 400"]);
        let last = events(&mut s).pop();
        assert!(matches!(
            last,
            Some(ServerEvent::ConnectionEnded {
                result: Err(Failure::Violation(_))
            })
        ));
    }
    let mut p = working_processor(PLAIN);
    feed(&mut p, [sgd(7)]);
    assert_eq!(sent(&mut p), ["CE 400"]);
}

#[test]
fn c_26_unknown_messages_are_ignored_and_counted() {
    let (mut p, mut s) = (working_processor(PLAIN), working_server(PLAIN));
    feed(&mut p, [Message { kind: None }]);
    feed(&mut s, [Message { kind: None }]);
    assert_eq!((sent(&mut p).len(), sent(&mut s).len()), (0, 0));
    assert_eq!(
        (p.counters().unknown_messages, s.counters().unknown_messages),
        (1, 1)
    );
    // Parameters that are not for this role: As-is and Modp from P, Kept from S.
    let odd = opes_proto::ocp::DataUseMine {
        as_is: Some(99),
        modp: Some(999),
        ..data(0, 0, "x")
    };
    feed(&mut s, [kind(Kind::DataUseMine(odd))]);
    assert_eq!(s.received(0), 1);
    feed(&mut p, [ams(0), kept(0, 0, (u64::MAX, u64::MAX))]);
    assert_eq!(sent(&mut p), [""; 0]);
}

#[test]
fn c_26_a_message_of_a_later_version_decodes_as_unknown() {
    use prost::Message as _;
    // Field 99 of the oneof, and an unknown field 98 inside CS.
    let later = Message::decode(&[0x9a, 0x06, 0x00][..]).expect("unknown fields are skipped");
    assert_eq!(later.kind, None);
    let cs =
        Message::decode(&[0x0a, 0x03, 0x92, 0x06, 0x00][..]).expect("unknown members are skipped");
    assert!(matches!(cs.kind, Some(Kind::ConnectionStart(_))));
}

#[test]
fn c_27_absent_result_of_ce_is_200_and_an_unknown_code_400() {
    let absent = kind(Kind::ConnectionEnd(ConnectionEnd { result: None }));
    for (message, fine) in [
        (absent, true),
        (ce(200), true),
        (ce(201), false),
        (ce(206), false),
        (ce(0), false),
    ] {
        let mut p = processor(PLAIN);
        feed(&mut p, [message]);
        let ended = events(&mut p).pop();
        let Some(ProcessorEvent::ConnectionEnded { result }) = ended else {
            panic!("{ended:?}")
        };
        assert_eq!(result.is_ok(), fine);
    }
}

#[test]
fn c_50_pq_is_answered_at_once() {
    let mut s = working_server(PLAIN);
    feed(
        &mut s,
        [
            dum(0, 0, "abc"),
            pq(Some(0)),
            pq(Some(9)),
            pq(None),
            ame(0, 200),
            pq(Some(0)),
        ],
    );
    let answers: Vec<_> = out(&mut s).into_iter().filter_map(|m| m.kind).collect();
    let pa = |xid, org_data| Kind::ProgressAnswer(ProgressAnswer { xid, org_data });
    assert_eq!(
        answers,
        [
            pa(Some(0), Some(3)),
            pa(None, None),
            pa(None, None),
            pa(Some(0), None)
        ]
    );
    let mut p = working_processor(PLAIN);
    p.data(0, 0, "ab".into()).expect("open");
    out(&mut p);
    feed(&mut p, [pq(Some(0)), pq(Some(9))]);
    let answers: Vec<_> = out(&mut p).into_iter().filter_map(|m| m.kind).collect();
    assert_eq!(answers, [pa(Some(0), Some(2)), pa(None, None)]);
}

#[test]
fn c_51_aq_is_answered_at_once_and_changes_nothing() {
    let mut s = new_server(PLAIN, limits());
    feed(&mut s, [cs(), aq(PROFILE), aq("https://example.com/other")]);
    assert_eq!(sent(&mut s), ["CS", "AA true", "AA false"]);
    feed(&mut s, [sgc(0)]);
    assert_eq!(
        sent(&mut s),
        ["CE 400"],
        "the profile is not agreed by a question"
    );
    let mut p = processor(PLAIN);
    p.ability_query(feature("https://example.com/other"))
        .expect("alive");
    assert_eq!(sent(&mut p), ["AQ"]);
    feed(
        &mut p,
        [
            aq(PROFILE),
            kind(Kind::AbilityAnswer(AbilityAnswer { supported: false })),
        ],
    );
    assert_eq!(sent(&mut p), ["AA true"]);
    assert_eq!(
        events(&mut p),
        [ProcessorEvent::Ability { supported: false }]
    );
}

#[test]
fn c_52_a_negotiation_without_an_end_is_ended() {
    for mut p in [new_processor(PLAIN, limits()), {
        let mut p = new_processor(PLAIN, limits());
        feed(&mut p, [cs(), pq(None)]);
        p
    }] {
        assert_eq!(p.deadline_ms(), Some(10_000));
        p.tick(9_999);
        assert!(!p.has_ended());
        p.tick(10_000);
        assert_eq!(sent(&mut p).last().map(String::as_str), Some("CE 400"));
        let failed = Err(Failure::NoProgress(10_000));
        assert_eq!(
            events(&mut p),
            [ProcessorEvent::ConnectionEnded { result: failed }]
        );
    }
}

#[test]
fn c_52_a_chain_of_offers_does_not_win_time() {
    let mut s = new_server(PLAIN, limits());
    feed(&mut s, [cs()]);
    for now in [0, 4_000, 8_000] {
        s.tick(now);
        feed(&mut s, [no_pending(&["https://example.com/other"])]);
    }
    s.tick(10_000);
    assert!(s.has_ended());
}

#[test]
fn c_52_signs_of_life_do_not_keep_a_transaction_alive() {
    let report = kind(Kind::ProgressReport(ProgressReport {
        xid: Some(0),
        org_data: Some(0),
    }));
    let mut p = working_processor(KEEPS);
    feed(&mut p, [ams(0)]);
    for now in (0..600_000).step_by(50_000) {
        p.tick(now);
        feed(
            &mut p,
            [report.clone(), dum(0, 0, ""), dwm(0, None), pq(Some(0))],
        );
        p.grant(0, 0).expect_err("no credit here");
    }
    out(&mut p);
    p.tick(600_000);
    assert_eq!(sent(&mut p), ["TE 400"]);
    assert_eq!(
        ending_of_p(&events(&mut p), 0),
        Some(Err(Failure::NoProgress(600_000)))
    );
    assert!(!p.has_ended(), "the connection goes on");
}

#[test]
fn c_52_data_is_progress() {
    let mut s = working_server(PLAIN);
    for (i, now) in (0..2_000_000).step_by(500_000).enumerate() {
        s.tick(now);
        feed(&mut s, [dum(0, i as u64, "x")]);
    }
    assert_eq!(s.transactions_open(), 1);
    assert_eq!(s.deadline_ms(), Some(2_100_000));
    s.tick(2_100_000);
    assert_eq!(s.transactions_open(), 0);
}

#[test]
fn c_52_the_budget_of_a_transaction_is_enforced_on_both_sides() {
    let mut p = processor(PLAIN);
    p.tick(100);
    p.start(StartTransaction {
        budget_ms: 50,
        ..Default::default()
    })
    .expect("possible");
    let mut s = server(PLAIN);
    feed(&mut s, out(&mut p));
    p.data(0, 0, "x".into()).expect("open");
    p.tick(149);
    s.tick(49);
    assert_eq!((p.transactions_open(), s.transactions_open()), (1, 1));
    p.tick(150);
    s.tick(50);
    let spent = Some(Err(Failure::BudgetSpent(50)));
    assert_eq!(ending_of_p(&events(&mut p), 0), spent);
    assert_eq!(ending_of_s(&events(&mut s), 0), spent);
}

#[test]
fn draining_lets_transactions_finish_and_takes_no_new_ones() {
    let mut s = working_server(PLAIN);
    s.drain();
    feed(&mut s, [ts(1, 0)]);
    assert_eq!(sent(&mut s), ["TE 400"]);
    s.end(0, Err("enough")).expect("open");
    assert_eq!(sent(&mut s), ["TE 400", "CE 200"]);
    let mut p = working_processor(PLAIN);
    p.drain();
    assert_eq!(
        p.start(StartTransaction::default()),
        Err(CallError::Draining)
    );
    feed(&mut p, [te(0, 400)]);
    assert_eq!(sent(&mut p), ["CE 200"]);
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let reason = "ä".repeat(400);
    let code = Some(opes_proto::ocp::Result { code: 400, reason });
    let mut p = processor(PLAIN);
    feed(
        &mut p,
        [kind(Kind::ConnectionEnd(ConnectionEnd { result: code }))],
    );
    let Some(ProcessorEvent::ConnectionEnded {
        result: Err(Failure::Peer { reason }),
    }) = events(&mut p).pop()
    else {
        panic!("CE 400 is a failure of the peer")
    };
    assert_eq!(reason.len(), 512);
}
