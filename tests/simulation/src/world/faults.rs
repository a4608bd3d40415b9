//! What goes wrong in a run, and comes right again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{LATENCY_MIN, RESTART_MS, Todo, World};
use crate::ledger::{Outage, What};
use crate::net::Pace;
use crate::plan::{Fault, HEALED_MS, HOSTS};

impl World<'_> {
    pub(super) fn do_what_is_due(&mut self, now: u64) {
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

    pub(super) fn spring_ambush(&mut self, now: u64) {
        if let (Some((power, down_ms)), true) = (self.ambush, self.site.medium.has_died()) {
            self.ambush = None;
            self.kill_edge(now, power, down_ms);
        }
    }

    /// As the container's supervisor would.
    pub(super) fn restart_edge(&mut self, now: u64) {
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

    pub(super) fn stop_edge(&mut self, power: bool) {
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
