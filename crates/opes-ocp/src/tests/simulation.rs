//! Both roles against each other. A script of numbers decides who acts, what it does and how many messages the transport
//! delivers; when it is used up, both sides act fairly until everything has ended. Whatever the script was:
//! - neither side ever sees a violation, because both keep to the protocol;
//! - every transaction ends, so nothing waits for ever;
//! - what P puts together is what S meant, octet for octet.

// Sizes here are below a hundred.
#[allow(clippy::cast_possible_truncation)]
mod world;

use bytes::Bytes;
use proptest::prelude::*;

use super::support::*;
use crate::{AdaptedEnd, Extensions, ProcessorEvent, StartTransaction};
use world::World;

fn extensions() -> impl Strategy<Value = Extensions> {
    any::<[bool; 3]>().prop_map(|[credit, standing_stop, keeps_all]| Extensions {
        credit,
        standing_stop: standing_stop && keeps_all,
        keeps_all,
        large_offsets: false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn c_46_any_interleaving_gives_the_message_that_s_meant(
        script in prop::collection::vec(any::<u16>(), 0..400),
        extensions in extensions(),
    ) {
        let mut world = World::new(extensions, script);
        world.run_script();
        world.run_fairly();
        world.check_results();
    }

    #[test]
    fn loss_of_the_stream_ends_every_transaction_once(
        script in prop::collection::vec(any::<u16>(), 0..300),
        extensions in extensions(),
    ) {
        let mut world = World::new(extensions, script);
        world.run_script();
        world.lose();
        world.check_all_ended();
    }
}

/// Every length, every J, by DSS and by the standing stop, and every way to give back [0, J).
#[test]
fn c_46_adapted_and_original_from_j_for_every_j() {
    let standing = Extensions {
        standing_stop: true,
        ..KEEPS
    };
    for length in 0..9_usize {
        for joint in 0..=length {
            for (extensions, by_reference) in [
                (KEEPS, true),
                (KEEPS, false),
                (standing, true),
                (standing, false),
            ] {
                assert_joint(extensions, length, joint, by_reference);
            }
        }
    }
}

fn assert_joint(extensions: Extensions, length: usize, joint: usize, by_reference: bool) {
    let original: Vec<u8> = (b'a'..).take(length).collect();
    let (head, tail) = original.split_at(joint);
    let (mut p, mut s) = (processor(extensions), server(extensions));
    let xid = p.start(StartTransaction::default()).expect("possible");
    p.data(xid, 0, Bytes::copy_from_slice(head)).expect("open");
    feed(&mut s, out(&mut p));
    s.adapted_start(xid, vec![], Bytes::new()).expect("open");
    if !extensions.standing_stop {
        s.want_stop_sending(xid).expect("open");
    }
    feed(&mut p, out(&mut s));
    // DSS is out; the rest of the original comes nevertheless.
    p.data(xid, 0, Bytes::copy_from_slice(tail)).expect("open");
    p.finish(xid, true).expect("open");
    feed(&mut s, out(&mut p));
    let mut expected = head.to_ascii_uppercase();
    if by_reference {
        expected = head.to_vec();
        s.use_original(xid, 0, joint as u64).expect("kept");
    } else {
        s.adapted_data(xid, 0, Bytes::from(expected.clone()), None, None)
            .expect("open");
    }
    s.adapted_end(xid, AdaptedEnd::Rest { from: joint as u64 }, Bytes::new())
        .expect("granted");
    s.end(xid, Ok(())).expect("ended");
    feed(&mut p, out(&mut s));
    expected.extend_from_slice(tail);
    assert_eq!(
        rebuild(&events(&mut p), &original),
        Some(expected),
        "length {length}, J {joint}"
    );
}

/// What P delivers for its only transaction; `None` if it failed.
fn rebuild(events: &[ProcessorEvent], original: &[u8]) -> Option<Vec<u8>> {
    let mut built = Vec::new();
    for event in events {
        match event {
            ProcessorEvent::AdaptedData { payload, .. } => built.extend_from_slice(payload),
            ProcessorEvent::UseOriginal { offset, size, .. } => {
                let start = usize::try_from(*offset).ok()?;
                built.extend_from_slice(original.get(start..start + usize::try_from(*size).ok()?)?);
            }
            ProcessorEvent::AdaptedEnd {
                end: AdaptedEnd::Rest { from },
                ..
            } => {
                built.extend_from_slice(original.get(usize::try_from(*from).ok()?..)?);
            }
            ProcessorEvent::Ended { result, .. } => return result.is_ok().then_some(built),
            _ => {}
        }
    }
    None
}
