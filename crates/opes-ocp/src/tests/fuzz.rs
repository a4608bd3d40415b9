//! Whatever a peer sends and whatever is called: no panic, a typed end, bounded state, one `Ended` for each transaction.

use std::collections::BTreeSet;

use bytes::Bytes;
use opes_proto::ocp::Message;
use proptest::prelude::*;

use super::support::*;
use crate::{
    AdaptedEnd, Extensions, Limits, Processor, ProcessorEvent, ServerEvent, StartTransaction,
};

fn small() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..6u64, 1 => Just((1 << 31) - 1), 1 => Just(1 << 31), 1 => Just(u64::MAX), 1 => Just(u64::MAX / 2)]
}

fn xid() -> impl Strategy<Value = u32> {
    prop_oneof![12 => 0..4u32, 1 => Just((1 << 31) - 1), 1 => any::<u32>()]
}

fn code() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(200), 2 => Just(206), 1 => Just(400), 1 => any::<u32>()]
}

fn text() -> impl Strategy<Value = String> {
    "[a-z]{0,5}"
}

fn uris() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(
        prop_oneof![Just(PROFILE), Just("https://example.com/other")],
        0..3,
    )
}

/// A message in the scope of a transaction.
fn flow_message() -> impl Strategy<Value = Message> {
    let two = || (xid(), small(), small());
    prop_oneof![
        3 => xid().prop_map(|x| ts(x, 0)),
        1 => (xid(), code()).prop_map(|(x, c)| te(x, c)),
        4 => xid().prop_map(ams),
        1 => (xid(), small()).prop_map(|(x, l)| ams_of(x, l)),
        2 => (xid(), code()).prop_map(|(x, c)| ame(x, c)),
        1 => (xid(), small()).prop_map(|(x, j)| ame_from(x, j)),
        6 => (xid(), small(), text()).prop_map(|(x, o, t)| dum(x, o, &t)),
        1 => two().prop_map(|(x, o, n)| kept(x, 0, (o, n))),
        2 => two().prop_map(|(x, o, n)| duy(x, o, n)),
        1 => two().prop_map(|(x, o, n)| dpi(x, o, n)),
        1 => (xid(), small()).prop_map(|(x, n)| dwsr(x, n)),
        2 => xid().prop_map(dwss),
        1 => (xid(), small()).prop_map(|(x, j)| dss(x, j)),
        1 => (xid(), small()).prop_map(|(x, o)| dwp(x, o)),
        1 => xid().prop_map(dpm),
        1 => (xid(), prop::option::of(small())).prop_map(|(x, l)| dwm(x, l)),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        20 => flow_message(),
        1 => Just(cs()),
        1 => prop::option::of(xid()).prop_map(pq),
        1 => Just(aq(PROFILE)),
        1 => xid().prop_map(sgc),
        1 => xid().prop_map(sgd),
        1 => uris().prop_map(|u| no(&u)),
        1 => uris().prop_map(|u| no_pending(&u)),
        1 => prop::option::of(Just(PROFILE)).prop_map(nr),
        1 => Just(Message { kind: None }),
    ]
}

#[derive(Debug, Clone)]
enum Op {
    Message(Message),
    /// A local call, chosen by the number.
    Call(u8, u32, u64, String),
    Tick(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => any_message().prop_map(Op::Message),
        4 => (0..16u8, 0..3u32, small(), text()).prop_map(|(c, x, n, t)| Op::Call(c, x, n, t)),
        1 => (0..1_000_000u64).prop_map(Op::Tick),
    ];
    prop::collection::vec(op, 0..60)
}

fn extensions() -> impl Strategy<Value = Extensions> {
    any::<[bool; 4]>().prop_map(
        |[credit, standing_stop, keeps_all, large_offsets]| Extensions {
            credit,
            standing_stop,
            keeps_all,
            large_offsets,
        },
    )
}

fn call_processor(p: &mut Processor, (call, xid, n, text): (u8, u32, u64, &str)) {
    // Refusals are as good as successes here.
    let _refused = match call {
        0..=2 => p
            .start(StartTransaction {
                am_el: (call == 2).then_some(n),
                ..Default::default()
            })
            .map(drop),
        3 | 4 => p.data(xid, 0, Bytes::copy_from_slice(text.as_bytes())),
        5 => p.finish(xid, n % 2 == 0),
        6 => p.abort(xid, text),
        7 => p.grant(xid, n),
        8 => p.pause(xid, n),
        9 => p.resume(xid),
        10 => p.keep(xid, 0, n),
        11 => p.stop_sending(xid),
        12 => p.offer(offer(&[PROFILE])),
        13 => p.end(xid),
        14 => p.create_group(vec![]).map(drop),
        _ => p.destroy_group(xid),
    };
}

fn call_server(s: &mut crate::CalloutServer, (call, xid, n, text): (u8, u32, u64, &str)) {
    let payload = || Bytes::copy_from_slice(text.as_bytes());
    let _refused = match call {
        0..=2 => s.adapted_start(xid, vec![], Bytes::new()),
        3 | 4 => s.adapted_data(xid, 0, payload(), Some(n), Some(100)),
        5 => s.use_original(xid, 0, n),
        6 => s.end(xid, Err(text)),
        7 => s.end(xid, Ok(())),
        8 => s.grant(xid, n),
        9 => s.pause(xid, n),
        10 => s.want_stop_sending(xid),
        11 => s.want_stop_receiving(xid, n),
        12 => s.adapted_end(xid, AdaptedEnd::Complete, Bytes::new()),
        13 => s.adapted_end(xid, AdaptedEnd::Rest { from: n }, Bytes::new()),
        14 => s.preservation_interest(xid, n, 2),
        _ => s.offer(offer(&[PROFILE])),
    };
}

/// Nothing follows CE.
fn check_output(messages: &[Message]) {
    let names = names(messages);
    let ce = names.iter().position(|n| n.starts_with("CE"));
    assert!(ce.is_none_or(|at| at + 1 == names.len()), "{names:?}");
}

fn xid_of_p(event: &ProcessorEvent) -> Option<u32> {
    match event {
        ProcessorEvent::AdaptedStart { xid, .. }
        | ProcessorEvent::AdaptedData { xid, .. }
        | ProcessorEvent::UseOriginal { xid, .. }
        | ProcessorEvent::AdaptedEnd { xid, .. }
        | ProcessorEvent::Ended { xid, .. }
        | ProcessorEvent::Sendable { xid }
        | ProcessorEvent::StopReceiving { xid, .. }
        | ProcessorEvent::StopSendingWanted { xid }
        | ProcessorEvent::Released { xid, .. } => Some(*xid),
        _ => None,
    }
}

fn xid_of_s(event: &ServerEvent) -> Option<u32> {
    match event {
        ServerEvent::Started { xid, .. }
        | ServerEvent::OriginalStart { xid, .. }
        | ServerEvent::OriginalData { xid, .. }
        | ServerEvent::OriginalEnd { xid, .. }
        | ServerEvent::StopSending { xid, .. }
        | ServerEvent::Sendable { xid }
        | ServerEvent::Ended { xid, .. } => Some(*xid),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_input_leaves_p_in_order(ops in ops(), extensions in extensions(), agreed in any::<bool>()) {
        let mut p = if agreed { processor(extensions) } else { new_processor(extensions, limits()) };
        let (mut output, mut seen) = (Vec::new(), Vec::new());
        for op in ops {
            match op {
                Op::Message(m) => p.receive(m),
                Op::Call(c, x, n, t) => call_processor(&mut p, (c, x, n, &t)),
                Op::Tick(now) => p.tick(now),
            }
            prop_assert!(p.transactions_open() <= 4);
            output.extend(out(&mut p));
            seen.extend(events(&mut p));
        }
        p.connection_lost();
        seen.extend(events(&mut p));
        check_output(&output);
        let started = names(&output).iter().filter(|n| *n == "TS").count();
        let mut ended = BTreeSet::new();
        for event in &seen {
            if let Some(xid) = xid_of_p(event) {
                prop_assert!(!ended.contains(&xid), "{event:?} after the end");
                if matches!(event, ProcessorEvent::Ended { .. }) {
                    ended.insert(xid);
                }
            }
        }
        // A TS that a phase holds back may die with the connection before it is sent.
        prop_assert!(ended.len() >= started);
        let closed = matches!(seen.last(), Some(ProcessorEvent::ConnectionEnded { .. }));
        prop_assert!(closed);
        prop_assert_eq!(p.transactions_open(), 0);
    }

    #[test]
    fn any_input_leaves_s_in_order(ops in ops(), extensions in extensions(), agreed in any::<bool>()) {
        let few = Limits { transactions_max: 2, ..limits() };
        let mut s = if agreed { server_with(extensions, few) } else { new_server(extensions, few) };
        let (mut output, mut seen) = (Vec::new(), Vec::new());
        for op in ops {
            match op {
                Op::Message(m) => s.receive(m),
                Op::Call(c, x, n, t) => call_server(&mut s, (c, x, n, &t)),
                Op::Tick(now) => s.tick(now),
            }
            prop_assert!(s.transactions_open() <= 2);
            output.extend(out(&mut s));
            seen.extend(events(&mut s));
        }
        s.connection_lost();
        seen.extend(events(&mut s));
        check_output(&output);
        let (mut started, mut ended) = (BTreeSet::new(), BTreeSet::new());
        for event in &seen {
            let Some(xid) = xid_of_s(event) else { continue };
            prop_assert!(!ended.contains(&xid), "{event:?} after the end");
            match event {
                ServerEvent::Started { .. } => prop_assert!(started.insert(xid)),
                ServerEvent::Ended { .. } => prop_assert!(ended.insert(xid)),
                _ => prop_assert!(started.contains(&xid)),
            }
        }
        prop_assert_eq!(started, ended);
        let closed = matches!(seen.last(), Some(ServerEvent::ConnectionEnded { .. }));
        prop_assert!(closed);
    }
}
