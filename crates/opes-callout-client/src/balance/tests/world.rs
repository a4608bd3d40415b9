//! Endpoints that live and die in virtual time, under a steady load.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opes_host::Random;

use super::super::*;

pub(super) const CAPACITY: u32 = 50;
pub(super) const KEEP: Duration = Duration::from_mins(1);

/// One transaction a millisecond, each of them this long.
const SERVICE_TIME: Duration = Duration::from_millis(20);
const STEP: Duration = Duration::from_millis(1);

pub(super) const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[derive(Debug, Clone)]
pub(super) struct Fake(Arc<Mutex<Condition>>);

impl Connected for Fake {
    fn condition(&self) -> Condition {
        *self.0.lock().unwrap()
    }

    fn loss(&self) -> Loss {
        Loss::Broken(error("reset by peer"))
    }
}

fn error(reason: &str) -> CalloutError {
    CalloutError::Unavailable {
        service: "default/scan".into(),
        target: "t".into(),
        reason: reason.into(),
    }
}

pub(super) struct World {
    pub(super) balancer: Balancer<Fake>,
    pub(super) now: Duration,
    pub(super) dials: usize,
    pub(super) refused: usize,
    pub(super) notes: Vec<Note>,
    random: Random,
    numbers: HashMap<u64, usize>,
    live: HashMap<usize, Vec<Fake>>,
    dead: HashSet<usize>,
    running: VecDeque<(Duration, Ticket)>,
    shares: Vec<u32>,
}

fn address(number: usize) -> Address {
    Address {
        target: format!("http://192.0.2.{number}:9000"),
        host: None,
    }
}

impl World {
    pub(super) fn with_endpoints(count: usize) -> Self {
        let bounds = Bounds {
            in_flight_max: 1000,
            queued_max: 1000,
            connections_max: 2,
            keep: KEEP,
            instance_patience: None,
        };
        let mut world = Self {
            balancer: Balancer::new(bounds, Duration::ZERO),
            now: Duration::ZERO,
            dials: 0,
            refused: 0,
            notes: Vec::new(),
            random: Random::seeded(1),
            numbers: HashMap::new(),
            live: HashMap::new(),
            dead: HashSet::new(),
            running: VecDeque::new(),
            shares: vec![0; 20],
        };
        world.set_endpoints(count);
        world
    }

    pub(super) fn set_endpoints(&mut self, count: usize) {
        self.balancer
            .set_endpoints((0..count).map(address).collect());
    }

    pub(super) fn set_condition(&mut self, number: usize, condition: Condition) {
        for fake in self.live.entry(number).or_default() {
            *fake.0.lock().unwrap() = condition;
        }
    }

    pub(super) fn kill(&mut self, number: usize) {
        self.dead.insert(number);
        self.set_condition(number, Condition::Closed);
        self.live.remove(&number);
    }

    pub(super) fn revive(&mut self, number: usize) {
        self.dead.remove(&number);
    }

    /// Enough failures in a row to be ejected.
    pub(super) fn faulty(&mut self, number: usize) {
        let endpoint = self.balancer.endpoints[number].id;
        for _ in 0..5 {
            let ticket = Ticket {
                endpoint,
                connection: 0,
                probe: false,
            };
            self.balancer.ended(ticket, Ended::Faulty, self.now);
        }
    }

    /// What the keeper does.
    pub(super) fn upkeep(&mut self) {
        let upkeep = self.balancer.upkeep(self.now, self.random.next_u64());
        for (id, address) in upkeep.dials {
            self.dials += 1;
            let number = (0..20).find(|n| super::world::address(*n) == address);
            let number = number.unwrap();
            self.numbers.insert(id, number);
            if self.dead.contains(&number) {
                let random = self.random.next_u64();
                self.balancer
                    .not_opened(id, error("refused").into(), self.now, random);
            } else {
                let fake = Fake(Arc::new(Mutex::new(Condition::Open)));
                self.live.entry(number).or_default().push(fake.clone());
                self.balancer.connected(id, fake, CAPACITY, self.now);
            }
        }
        self.notes.extend(self.balancer.take_notes());
    }

    /// Used once, so that it connects, and out of its slow start.
    pub(super) fn settle(&mut self) {
        if self.dials == 0 {
            assert!(self.place().is_none());
            self.upkeep();
            self.now += s(10);
        }
        self.upkeep();
    }

    pub(super) fn place(&mut self) -> Option<Ticket> {
        let attempt = super::attempt(self);
        match self
            .balancer
            .pick(&attempt, self.now, self.random.next_u64())
        {
            Pick::Place { ticket, handle } => {
                assert_ne!(handle.condition(), Condition::Closed);
                Some(ticket)
            }
            Pick::Wait => None,
            Pick::Refused(_) => {
                self.refused += 1;
                None
            }
        }
    }

    /// A millisecond: some end, one begins, the keeper looks.
    pub(super) fn step(&mut self) {
        self.finish();
        if let Some(ticket) = self.place() {
            self.shares[self.numbers[&ticket.endpoint]] += 1;
            self.running.push_back((self.now + SERVICE_TIME, ticket));
        }
        self.upkeep();
        self.now += STEP;
    }

    /// Ends what has run long enough.
    pub(super) fn finish(&mut self) {
        while let Some((until, ticket)) = self.running.front().copied() {
            if until > self.now {
                break;
            }
            self.running.pop_front();
            let number = self.numbers[&ticket.endpoint];
            let ended = if self.dead.contains(&number) {
                Ended::Neutral
            } else {
                Ended::Answered
            };
            self.balancer.ended(ticket, ended, self.now);
            self.balancer.release(ticket, self.now);
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    /// Transactions begun on each endpoint in this time.
    pub(super) fn shares_while(&mut self, time: Duration) -> Vec<u32> {
        self.shares.fill(0);
        self.run(time);
        self.shares.clone()
    }
}
