//! One run: hosts, faults on time, healing, and the wait until everything is settled.

mod faults;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use opes_edge::Load;
use opes_host::Random;
use tempfile::TempDir;
use turmoil::Sim;

use crate::check;
use crate::client;
use crate::disk::Medium;
use crate::edge::Site;
use crate::hop::{self, Hop};
use crate::ledger::Ledger;
use crate::net::Pace;
use crate::plan::{FAULTS_END_MS, Fault, HOSTS, KnownBug, Plan};
use crate::services::{self, Outside};

/// Messages between hosts are handed on at this pace; everything within a host is exact to the millisecond.
const TICK: Duration = Duration::from_millis(10);

/// Least delay of a message between hosts.
const LATENCY_MIN: Duration = Duration::from_millis(1);

/// Virtual time after which what is not settled is stuck.
const STUCK_MS: u64 = 600_000;

/// After which a process that ended by itself is started again.
const RESTART_MS: u64 = 500;

/// How long the edge has to have been idle at the end.
const IDLE_MS: u64 = 3_000;

/// Segments of TCP on their way; few, so that a slow reader is felt by the writer.
const SEGMENTS_MAX: usize = 16;

/// 2026-01-01, for `Received` fields.
const EPOCH: Duration = Duration::from_hours(490_896);

/// How a run went.
#[derive(Debug)]
pub struct Outcome {
    /// The plan, for people.
    pub plan: String,
    /// What happened, a line an event.
    pub trace: Vec<String>,
    /// The same for runs that went the same way.
    pub fingerprint: u64,
    /// Invariants that did not hold.
    pub violations: Vec<String>,
}

/// Something that is to be done at a time.
enum Todo {
    Begin(Fault),
    StartEdge,
    Start(usize),
    Repair(usize),
    Release(usize),
    ReadFast(usize),
    DiskWell,
    LinkWell(usize),
}

struct World<'a> {
    sim: Sim<'a>,
    plan: &'a Plan,
    ledger: Ledger,
    site: Site,
    /// Of [`HOSTS`].
    paces: [Arc<Pace>; HOSTS.len()],
    /// Of messages between the edge and each of [`HOSTS`].
    latency_max: [Duration; HOSTS.len()],
    todo: Vec<(u64, Todo)>,
    /// When the edge is killed in a disk operation: with its power, and for how long.
    ambush: Option<(bool, u64)>,
    edge_is_down: bool,
}

/// Runs `seed`, with a bug that is known or without.
pub fn run(seed: u64, bug: KnownBug) -> Result<Outcome> {
    let plan = Plan::new(seed, bug);
    let folder = TempDir::new().context("a temporary folder")?;
    let mut world = World::new(&plan, &folder)?;
    let finished = world.drive();
    Ok(world.outcome(finished, &folder))
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, folder: &TempDir) -> Result<Self> {
        let ledger = Ledger::default();
        ledger.facts().traces_wire = std::env::var_os("OPES_SIM_WIRE").is_some();
        let trash = folder.path().join("trash");
        std::fs::create_dir(&trash)?;
        let medium = Arc::new(Medium::new(
            trash,
            Random::seeded(plan.seed ^ 0xd15c),
            plan.disk_latency,
            plan.bug == KnownBug::LyingDisk,
        ));
        let site = Site::new(plan, ledger.clone(), medium, folder.path().join("spool"));
        let sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(UNIX_EPOCH + EPOCH)
            .tick_duration(TICK)
            .simulation_duration(Duration::from_hours(1))
            .min_message_latency(LATENCY_MIN)
            .max_message_latency(plan.message_latency_max)
            .tcp_capacity(SEGMENTS_MAX)
            .build();
        let faults = plan.faults.iter();
        let mut world = Self {
            sim,
            plan,
            ledger,
            site,
            paces: Default::default(),
            latency_max: [plan.message_latency_max; HOSTS.len()],
            todo: faults
                .map(|(at, fault)| (*at, Todo::Begin(*fault)))
                .collect(),
            ambush: None,
            edge_is_down: false,
        };
        world.add_hosts();
        Ok(world)
    }

    fn add_hosts(&mut self) {
        let plan = self.plan;
        let hop = Hop {
            ledger: self.ledger.clone(),
            random: Random::seeded(plan.seed ^ 0x40b),
            pace: Arc::clone(&self.paces[0]),
            greylists: plan.greylists,
            forgets: u64::from(plan.bug == KnownBug::ForgetfulHop) * 10,
        };
        self.sim.host("hop", move || hop::run(hop.clone()));
        let outside = |index: usize, salt: u64| Outside {
            ledger: self.ledger.clone(),
            random: Random::seeded(plan.seed ^ salt),
            pace: Arc::clone(&self.paces[index]),
            pause_max_ms: plan.pause_max_ms,
        };
        let (judge, adapter) = (outside(1, 0x70d6e), outside(2, 0xada97));
        self.sim
            .host("judge", move || services::judge(judge.clone()));
        self.sim
            .host("adapter", move || services::adapter(adapter.clone()));
        let site = self.site.clone();
        self.sim.host("edge", move || site.clone().run());
        let (mails, ledger, seed) = (plan.mails.clone(), self.ledger.clone(), plan.seed);
        let patience = plan.patience();
        self.sim.host("client", move || {
            let (mails, ledger) = (mails.clone(), ledger.clone());
            async move {
                for mail in mails {
                    let random = Random::seeded(seed ^ ((mail.number as u64 + 1) << 32));
                    tokio::spawn(client::run(mail, ledger.clone(), random, patience));
                }
                std::future::pending().await
            }
        });
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The error says what is stuck.
    fn drive(&mut self) -> Result<(), String> {
        let mut idle_since = None;
        let mut is_healed = false;
        loop {
            let now = self.now_ms();
            self.spring_ambush(now);
            self.restart_edge(now);
            self.do_what_is_due(now);
            if now >= FAULTS_END_MS && self.todo.is_empty() && !is_healed {
                self.site.medium.fail_syncs(0);
                self.ambush = None;
                self.site.medium.never_die();
                is_healed = true;
            }
            self.sim
                .step()
                .map_err(|error| format!("a host failed: {error}"))?;
            if is_healed && self.is_idle() {
                let since = *idle_since.get_or_insert(now);
                if now - since >= IDLE_MS {
                    return Ok(());
                }
            } else {
                idle_since = None;
            }
            if now > STUCK_MS {
                return Err(format!("stuck: {}", self.describe()));
            }
        }
    }

    fn load(&self) -> Option<Load> {
        let process = self.site.process.lock().expect("no panics");
        process.as_ref().map(|process| process.handle.load())
    }

    fn is_idle(&self) -> bool {
        let facts = self.ledger.facts();
        facts.clients_done == self.plan.mails.len()
            && facts.handlers == 0
            && self.load() == Some(Load::default())
    }

    fn describe(&self) -> String {
        let facts = self.ledger.facts();
        format!(
            "{} of {} clients done, {} handlers at work, edge: {:?}",
            facts.clients_done,
            self.plan.mails.len(),
            facts.handlers,
            self.load()
        )
    }

    fn outcome(mut self, finished: Result<(), String>, folder: &TempDir) -> Outcome {
        let mut violations: Vec<_> = finished.err().into_iter().collect();
        self.stop_edge(false);
        if violations.is_empty() {
            violations = check::violations(self.plan, &self.ledger, folder.path());
        }
        let facts = self.ledger.facts();
        Outcome {
            plan: self.plan.describe(),
            trace: facts.trace().to_vec(),
            fingerprint: facts.fingerprint(),
            violations,
        }
    }
}
