//! One run: hosts, faults on time, healing, and the wait until everything is settled.

use std::sync::Arc;
use std::sync::atomic::Ordering;
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
use crate::ledger::{Ledger, Outage, What};
use crate::net::Pace;
use crate::plan::{FAULTS_END_MS, Fault, HEALED_MS, HOSTS, KnownBug, Plan};
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
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

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
        self.sim.host("client", move || {
            let (mails, ledger) = (mails.clone(), ledger.clone());
            async move {
                for mail in mails {
                    let random = Random::seeded(seed ^ ((mail.number as u64 + 1) << 32));
                    tokio::spawn(client::run(mail, ledger.clone(), random));
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

    // What goes wrong, and comes right again.

    fn do_what_is_due(&mut self, now: u64) {
        while let Some(index) = self.todo.iter().position(|(at, _)| *at <= now) {
            let (_, todo) = self.todo.remove(index);
            match todo {
                Todo::Begin(fault) => self.begin(now, fault),
                Todo::StartEdge => self.start_edge(now),
                Todo::Start(host) => self.sim.bounce(HOSTS[host]),
                Todo::Repair(host) => self.sim.repair("edge", HOSTS[host]),
                Todo::Release(host) => self.sim.release("edge", HOSTS[host]),
                Todo::ReadFast(host) => self.pace(host).set(None),
                Todo::DiskWell => self.site.medium.set_low(None),
                Todo::LinkWell(host) => {
                    self.set_latency(host, self.plan.message_latency_max);
                }
            }
        }
    }

    fn begin(&mut self, now: u64, fault: Fault) {
        match fault {
            Fault::KillEdge { power, down_ms } => self.kill_edge(now, power, down_ms),
            Fault::KillEdgeAt {
                power,
                ahead,
                down_ms,
            } => {
                self.site.medium.die_after(ahead);
                self.ambush = Some((power, down_ms));
            }
            Fault::Kill { host, down_ms } => {
                self.crash(HOSTS[host]);
                self.happens(host, now, down_ms, What::HopKilled);
                self.later(now + down_ms, Todo::Start(host));
            }
            Fault::Partition { host, ms } => {
                self.sim.partition("edge", HOSTS[host]);
                self.happens(host, now, ms, What::HopLink);
                self.later(now + ms, Todo::Repair(host));
            }
            Fault::Deaf { host, ms } => {
                self.sim.partition_oneway(HOSTS[host], "edge");
                self.happens(host, now, ms, What::HopLink);
                self.later(now + ms, Todo::Repair(host));
            }
            Fault::Hold { host, ms } => {
                self.sim.hold("edge", HOSTS[host]);
                self.happens(host, now, ms, What::HopLink);
                self.later(now + ms, Todo::Release(host));
            }
            Fault::SlowReader {
                host,
                octets,
                pause_ms,
                ms,
            } => {
                let pause = Duration::from_millis(pause_ms);
                self.pace(host).set(Some((octets, pause)));
                self.happens(host % HOSTS.len(), now, ms, What::HopLink);
                self.later(now + ms, Todo::ReadFast(host));
            }
            Fault::LowDisk { octets, ms } => {
                self.site.medium.set_low(Some(octets));
                self.outage(What::Disk, now, ms);
                self.later(now + ms, Todo::DiskWell);
            }
            Fault::FailingSyncs { count } => {
                self.site.medium.fail_syncs(count);
                self.outage(What::Disk, now, HEALED_MS);
            }
            Fault::Latency { host, max_ms, ms } => {
                self.set_latency(host, Duration::from_millis(max_ms));
                self.happens(host, now, ms, What::HopLink);
                self.later(now + ms, Todo::LinkWell(host));
            }
        }
    }

    fn pace(&self, host: usize) -> &Pace {
        self.paces.get(host).unwrap_or(&self.site.pace)
    }

    fn later(&mut self, at: u64, todo: Todo) {
        self.todo.push((at.min(HEALED_MS), todo));
    }

    /// To the next hop, or to a host whose troubles cannot make a duplicate.
    fn happens(&self, host: usize, now: u64, ms: u64, to_hop: What) {
        let what = if host == 0 { to_hop } else { What::Elsewhere };
        self.outage(what, now, ms);
    }

    fn outage(&self, what: What, now: u64, ms: u64) {
        self.ledger.facts().outages.push(Outage {
            what,
            from_ms: now,
            to_ms: now + ms,
        });
    }

    fn spring_ambush(&mut self, now: u64) {
        if let (Some((power, down_ms)), true) = (self.ambush, self.site.medium.has_died()) {
            self.ambush = None;
            self.kill_edge(now, power, down_ms);
        }
    }

    /// As the container's supervisor would.
    fn restart_edge(&mut self, now: u64) {
        if self.site.has_ended.swap(false, Ordering::Relaxed) {
            self.kill_edge(now, false, RESTART_MS);
        }
    }

    fn kill_edge(&mut self, now: u64, power: bool, down_ms: u64) {
        if self.edge_is_down {
            return;
        }
        self.stop_edge(power);
        self.edge_is_down = true;
        let what = if power {
            What::EdgePowerCut
        } else {
            What::EdgeKilled
        };
        self.outage(what, now, down_ms);
        self.later(now + down_ms, Todo::StartEdge);
    }

    /// The order in which connections are closed is tokio's secret. With the same delay for all, it does not matter.
    fn crash(&mut self, host: &str) {
        let all = ["edge", "client"].into_iter().chain(HOSTS);
        let peers: Vec<_> = all.filter(|peer| *peer != host).collect();
        for peer in &peers {
            self.sim
                .set_link_max_message_latency(host, *peer, LATENCY_MIN);
        }
        self.sim.crash(host);
        for peer in peers {
            // Only links of the edge are ever slow.
            let index = HOSTS.iter().position(|name| [peer, host].contains(name));
            let max = index.map_or(self.plan.message_latency_max, |index| {
                self.latency_max[index]
            });
            self.sim.set_link_max_message_latency(host, peer, max);
        }
    }

    /// The longest delay between the edge and a host from now on.
    fn set_latency(&mut self, host: usize, max: Duration) {
        self.latency_max[host] = max;
        self.sim
            .set_link_max_message_latency("edge", HOSTS[host], max);
    }

    fn stop_edge(&mut self, power: bool) {
        self.site.medium.cut(power);
        let process = self.site.process.lock().expect("no panics").take();
        if let Some(process) = &process {
            process.card.dead.store(true, Ordering::Relaxed);
            process.card.silent.store(power, Ordering::Relaxed);
        }
        self.crash("edge");
        drop(process);
    }

    fn start_edge(&mut self, _now: u64) {
        self.edge_is_down = false;
        self.sim.bounce("edge");
    }
}
