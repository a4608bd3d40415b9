use proptest::prelude::*;

use super::super::*;
use super::world::{CAPACITY, World};

#[derive(Debug, Clone, Copy)]
enum Event {
    Place,
    End(usize, u8),
    Kill(usize),
    Revive(usize),
    Unresponsive(usize),
    Endpoints(usize),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => Just(Event::Place),
        8 => (any::<usize>(), any::<u8>()).prop_map(|(n, how)| Event::End(n, how)),
        1 => (0_usize..6).prop_map(Event::Kill),
        1 => (0_usize..6).prop_map(Event::Revive),
        1 => (0_usize..6).prop_map(Event::Unresponsive),
        1 => (0_usize..6).prop_map(Event::Endpoints),
        4 => (0_u64..5000).prop_map(Event::Pass),
    ]
}

const ENDINGS: [Ended; 4] = [
    Ended::Answered,
    Ended::ServiceFailed,
    Ended::Faulty,
    Ended::Neutral,
];

fn apply(world: &mut World, open: &mut Vec<Ticket>, event: Event) {
    match event {
        Event::Place => open.extend(world.place()),
        Event::End(which, how) if !open.is_empty() => {
            let ticket = open.swap_remove(which % open.len());
            let ended = ENDINGS[usize::from(how) % ENDINGS.len()];
            world.balancer.ended(ticket, ended, world.now);
            world.balancer.release(ticket, world.now);
        }
        Event::End(..) => {}
        Event::Kill(n) => world.kill(n),
        Event::Revive(n) => world.revive(n),
        Event::Unresponsive(n) => world.set_condition(n, Condition::Unresponsive),
        Event::Endpoints(count) => world.set_endpoints(count),
        Event::Pass(ms) => world.now += Duration::from_millis(ms),
    }
    world.upkeep();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn counts_are_right_and_nothing_is_overfull(
        events in proptest::collection::vec(event(), 1..400),
    ) {
        let (mut world, mut open) = (World::with_endpoints(4), Vec::new());
        for event in events {
            apply(&mut world, &mut open, event);
            let snapshot = world.balancer.snapshot(world.now);
            prop_assert_eq!(snapshot.in_flight as usize, open.len());
            for endpoint in &snapshot.endpoints {
                prop_assert!(endpoint.connections <= 2);
                prop_assert!(endpoint.in_flight <= 2 * CAPACITY);
            }
        }
    }

    #[test]
    fn once_all_is_well_again_transactions_begin_within_seconds(
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let (mut world, mut open) = (World::with_endpoints(4), Vec::new());
        for event in events {
            apply(&mut world, &mut open, event);
        }
        for ticket in open.drain(..) {
            world.balancer.release(ticket, world.now);
        }
        (0..6).for_each(|n| world.revive(n));
        (0..6).for_each(|n| world.set_condition(n, Condition::Open));
        world.set_endpoints(4);
        // The longest pauses: of a probe, and before a dial.
        let mut begun = false;
        for _ in 0..20 {
            begun |= world.place().is_some();
            world.upkeep();
            world.now += Duration::from_secs(1);
        }
        prop_assert!(begun);
    }
}
