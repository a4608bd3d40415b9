mod properties;
mod world;

use std::time::Duration;

use super::*;
use world::{World, s};

fn attempt(world: &World) -> Attempt {
    Attempt {
        arrived: world.now,
        avoid: Vec::new(),
    }
}

#[test]
fn the_dead_get_nothing_and_the_living_share_evenly() {
    let mut world = World::with_endpoints(10);
    world.run(s(1));
    for n in 0..5 {
        world.kill(n);
    }
    world.run(s(1));
    let shares = world.shares_while(s(2));
    assert_eq!(shares[..5].iter().sum::<u32>(), 0);
    let total: u32 = shares.iter().sum();
    for share in &shares[5..10] {
        assert!(share * 5 * 10 > total * 8, "{shares:?}");
    }
    assert_eq!(world.refused, 0);
}

#[test]
fn a_new_endpoint_takes_its_share_within_ten_seconds_and_not_at_once() {
    let mut world = World::with_endpoints(10);
    world.run(s(10));
    world.set_endpoints(11);
    let first = world.shares_while(s(1));
    let total: u32 = first.iter().sum();
    assert!(first[10] * 11 < total, "slow start: {first:?}");
    world.run(s(8));
    let then = world.shares_while(s(1));
    let total: u32 = then.iter().sum();
    assert!(then[10] * 11 * 10 > total * 8, "its share: {then:?}");
    assert_eq!(world.refused, 0);
}

#[test]
fn an_endpoint_that_is_away_is_dialled_now_and_then_and_logged_once() {
    let mut world = World::with_endpoints(1);
    world.run(s(1));
    world.kill(0);
    let before = world.dials;
    world.run(s(60));
    let dials = world.dials - before;
    assert!((50..90).contains(&dials), "{dials} dials in a minute");
    let downs = world.notes.iter();
    let downs = downs.filter(|note| matches!(note, Note::Down { .. }));
    assert_eq!(downs.count(), 1, "{:?}", world.notes);
    world.revive(0);
    world.run(s(2));
    let Some(Note::Up { away, .. }) = world.notes.last() else {
        panic!("{:?}", world.notes);
    };
    assert!((s(59)..s(62)).contains(away), "{away:?}");
}

#[test]
fn what_restarts_costs_nothing_and_what_is_away_is_known_at_once() {
    let mut world = World::with_endpoints(2);
    world.run(s(1));
    world.kill(0);
    world.kill(1);
    world.step();
    let early = attempt(&world);
    let pick = world.balancer.pick(&early, world.now, 0);
    assert!(matches!(pick, Pick::Wait), "a dial may still succeed");
    world.run(s(3));
    let pick = world.balancer.pick(&early, world.now, 0);
    assert!(
        matches!(
            pick,
            Pick::Refused(Refusal::Unreachable { endpoints: 2, .. })
        ),
        "both were dialled since it came"
    );
    world.run(s(3));
    let late = attempt(&world);
    let pick = world.balancer.pick(&late, world.now, 0);
    assert!(matches!(pick, Pick::Refused(_)), "an outage");
    let snapshot = world.balancer.snapshot(world.now);
    assert_eq!(snapshot.breaker, BreakerState::Open);
    assert_eq!(snapshot.endpoints[0].state, EndpointState::Unreachable);
    world.revive(1);
    world.run(s(2));
    let pick = world.balancer.pick(&late, world.now, 0);
    assert!(matches!(pick, Pick::Place { .. }));
}

#[test]
fn places_and_queue_are_bounded() {
    let mut world = World::with_endpoints(1);
    world.balancer.bounds.in_flight_max = 2;
    world.balancer.bounds.queued_max = 1;
    world.settle();
    let first = world.place().unwrap();
    world.place().unwrap();
    assert!(world.place().is_none());
    world.balancer.enter_queue().unwrap();
    let refusal = world.balancer.enter_queue().unwrap_err();
    let full = Refusal::Full {
        in_flight: 2,
        queued: 1,
    };
    assert_eq!(refusal, full);
    world.balancer.release(first, world.now);
    assert!(world.place().is_some());
    assert_eq!(world.balancer.snapshot(world.now).refused_full, 1);
}

#[test]
fn another_connection_when_all_are_full_and_not_for_ever() {
    let mut world = World::with_endpoints(1);
    world.settle();
    let tickets: Vec<_> = std::iter::from_fn(|| world.place()).collect();
    assert_eq!(tickets.len(), world::CAPACITY as usize);
    world.settle();
    assert!(world.place().is_some(), "the second connection");
    assert_eq!(world.dials, 2);
    while world.place().is_some() {}
    world.settle();
    assert_eq!(world.dials, 2, "two are the most");
    for ticket in tickets {
        world.balancer.release(ticket, world.now);
    }
    world.now += s(100);
    world.place().unwrap();
    world.settle();
    let connections = world.balancer.snapshot(world.now).endpoints[0].connections;
    assert!(connections <= 2, "{connections}");
}

#[test]
fn who_fails_again_and_again_is_left_alone_unless_most_do() {
    let mut world = World::with_endpoints(3);
    world.settle();
    world.faulty(0);
    let shares = world.shares_while(s(3));
    assert_eq!(shares[0], 0);
    assert!(matches!(&world.notes[..], [Note::Ejected { .. }]));
    world.faulty(1);
    let shares = world.shares_while(s(1));
    assert!(
        shares[..3].iter().all(|share| *share > 0),
        "panic: {shares:?} share the load"
    );
    let snapshot = world.balancer.snapshot(world.now);
    assert_eq!(snapshot.ejections, 2);
    world.run(s(30));
    let shares = world.shares_while(s(1));
    assert!(shares[0] > 0 && shares[1] > 0, "they are back: {shares:?}");
}

#[test]
fn a_repeat_goes_elsewhere_if_there_is_an_elsewhere() {
    let mut world = World::with_endpoints(2);
    world.settle();
    let avoided = world.place().unwrap();
    let mut again = attempt(&world);
    again.avoid.push(avoided.endpoint);
    for random in 0..100_u64 {
        let random = random << 57;
        let Pick::Place { ticket, .. } = world.balancer.pick(&again, world.now, random) else {
            panic!("there is room");
        };
        assert_ne!(ticket.endpoint, avoided.endpoint);
        world.balancer.release(ticket, world.now);
    }
    again.avoid.push(if avoided.endpoint == 1 { 2 } else { 1 });
    let pick = world.balancer.pick(&again, world.now, 0);
    assert!(matches!(pick, Pick::Place { .. }), "rather one of them");
}

#[test]
fn what_does_not_answer_gets_nothing_new_while_others_do() {
    let mut world = World::with_endpoints(2);
    world.settle();
    world.set_condition(0, Condition::Unresponsive);
    assert_eq!(world.shares_while(s(1))[0], 0);
    world.set_condition(1, Condition::Unresponsive);
    assert!(world.place().is_some(), "nobody else is left");
    let state = world.balancer.snapshot(world.now).endpoints[0].state;
    assert_eq!(state, EndpointState::Unresponsive);
}

#[test]
fn who_leaves_gets_nothing_new_and_what_runs_there_may_end() {
    let mut world = World::with_endpoints(2);
    world.settle();
    let tickets: Vec<_> = std::iter::from_fn(|| world.place()).collect();
    world.set_endpoints(1);
    let snapshot = world.balancer.snapshot(world.now);
    assert_eq!(snapshot.endpoints.len(), 1);
    assert_eq!(snapshot.in_flight as usize, tickets.len());
    for ticket in tickets {
        world.balancer.ended(ticket, Ended::Answered, world.now);
        world.balancer.release(ticket, world.now);
    }
    assert_eq!(world.balancer.snapshot(world.now).in_flight, 0);
    let shares = world.shares_while(s(1));
    assert!(shares[0] > 0 && shares[1] == 0, "{shares:?}");
}

#[test]
fn a_service_that_nobody_calls_is_not_kept_connected() {
    let mut world = World::with_endpoints(2);
    world.run(s(1));
    world.now += s(1);
    world.finish();
    world.now += world::KEEP + s(1);
    world.settle();
    let snapshot = world.balancer.snapshot(world.now);
    assert!(snapshot.endpoints.iter().all(|e| e.connections == 0));
    assert_eq!(snapshot.endpoints[0].state, EndpointState::Idle);
    let dials = world.dials;
    world.now += s(3600);
    world.settle();
    assert_eq!(world.dials, dials);
    assert!(world.place().is_none());
    world.settle();
    assert!(world.place().is_some(), "the next transaction connects");
}

#[test]
fn names_are_waited_for_until_they_cannot_be_looked_up() {
    let mut world = World::with_endpoints(0);
    let early = attempt(&world);
    let pick = world.balancer.pick(&early, world.now, 0);
    assert!(matches!(pick, Pick::Refused(Refusal::NoEndpoints(_))));
    world.balancer.await_names();
    let pick = world.balancer.pick(&early, world.now, 0);
    assert!(matches!(pick, Pick::Wait));
    world
        .balancer
        .names_failed("no such name".into(), world.now);
    let pick = world.balancer.pick(&early, world.now, 0);
    let Pick::Refused(Refusal::NoEndpoints(reason)) = pick else {
        panic!("{pick:?}");
    };
    assert_eq!(reason, "no such name");
    world.now += Duration::from_millis(1);
    let late = attempt(&world);
    let pick = world.balancer.pick(&late, world.now, 0);
    assert!(matches!(pick, Pick::Wait), "the next look-up may succeed");
}

#[test]
fn pauses_grow_to_a_second_give_or_take() {
    let pauses: Vec<_> = (0..40)
        .map(|n| endpoint::pause(n, u64::from(n) * 7))
        .collect();
    assert_eq!(pauses[0], Duration::ZERO);
    assert!(pauses[1] >= Duration::from_millis(40));
    assert!(pauses.iter().all(|p| *p <= Duration::from_millis(1200)));
    assert!(
        pauses[10..]
            .iter()
            .all(|p| *p >= Duration::from_millis(800))
    );
}

#[test]
fn a_service_without_instances_is_waited_for_a_little_and_said_to_be_wanted() {
    let mut world = World::with_endpoints(0);
    world.set_endpoints(0);
    let early = attempt(&world);
    let at_once = world.balancer.pick(&early, world.now, 0);
    assert!(matches!(at_once, Pick::Refused(Refusal::NoEndpoints(_))));
    world.balancer.bounds.instance_patience = Some(s(2));
    world.run(s(120));
    assert!(!world.balancer.snapshot(world.now).wanted);
    let early = attempt(&world);
    assert!(matches!(
        world.balancer.pick(&early, world.now, 0),
        Pick::Wait
    ));
    let later = world.now + s(2);
    let refused = world.balancer.pick(&early, later, 0);
    assert!(matches!(refused, Pick::Refused(Refusal::NoEndpoints(_))));
    assert!(world.balancer.snapshot(later + s(59)).wanted);
    assert!(!world.balancer.snapshot(later + s(61)).wanted);
    world.set_endpoints(1);
    assert!(!world.balancer.snapshot(later).wanted, "there is one");
}
