//! Where a transaction may begin: at which endpoint, later, or nowhere.

use std::time::Duration;

use super::breaker::Admission;
use super::endpoint::Endpoint;
use super::pick::{self, Candidate};
use super::{Attempt, Balancer, Condition, Connected, Pick, Refusal, Ticket};

/// While nothing can be reached, callouts wait so long for the next dial: a service that restarts costs no message.
/// After it they fail at once until a dial succeeds.
const OUTAGE_PATIENCE: Duration = Duration::from_secs(5);

/// A service without instances is wanted for so long after it was last asked for.
const WANTED: Duration = Duration::from_mins(1);

// === impl Balancer ===

impl<H: Connected> Balancer<H> {
    /// Where the transaction may begin. The caller counts it out again with [`Balancer::release`].
    pub(crate) fn pick(&mut self, attempt: &Attempt, now: Duration, random: u64) -> Pick<H> {
        self.touch(now);
        if self.in_flight >= self.bounds.in_flight_max {
            return Pick::Wait;
        }
        match self.choose(attempt, now, random) {
            Choice::Endpoint(index) => self.begin(index, now),
            Choice::AllFull => {
                self.want_more(now);
                Pick::Wait
            }
            Choice::NoneConnected => self.nowhere(attempt, now),
        }
    }

    /// Any connection, for what it has negotiated; `None` as in [`Pick`].
    pub(crate) fn any(&mut self, attempt: &Attempt, now: Duration) -> Pick<H> {
        self.touch(now);
        let lines = self.endpoints.iter().flat_map(|e| &e.connections);
        let mut open = lines.filter(|line| line.handle.condition() != Condition::Closed);
        if let Some(line) = open.next() {
            let (handle, connection) = (line.handle.clone(), line.id);
            let ticket = Ticket {
                endpoint: 0,
                connection,
                probe: false,
            };
            return Pick::Place { ticket, handle };
        }
        self.nowhere(attempt, now)
    }

    fn touch(&mut self, now: Duration) {
        if !self.is_active(now) {
            self.wake = true;
        }
        self.last_use = Some(now);
    }

    /// Least in flight of two among the healthy; if there is none, among all that are connected.
    fn choose(&mut self, attempt: &Attempt, now: Duration, random: u64) -> Choice {
        let panic = self.most_are_ejected(now);
        let healthy = |e: &Endpoint<H>| {
            e.is(Condition::Open)
                && (panic || !e.health.is_ejected(now))
                && !attempt.avoid.contains(&e.id)
        };
        let mut candidates = std::mem::take(&mut self.candidates);
        let choice = among(&self.endpoints, &mut candidates, healthy, now, random)
            .or_else(|| {
                let connected = Endpoint::is_connected;
                among(&self.endpoints, &mut candidates, connected, now, random)
            })
            .unwrap_or(Choice::NoneConnected);
        self.candidates = candidates;
        choice
    }

    /// Then ejection would only move the load onto the few that are left.
    fn most_are_ejected(&self, now: Duration) -> bool {
        let connected = || self.endpoints.iter().filter(|e| e.is_connected());
        let ejected = connected().filter(|e| e.health.is_ejected(now)).count();
        ejected * 2 > connected().count()
    }

    fn begin(&mut self, index: usize, now: Duration) -> Pick<H> {
        let probe = match self.breaker.admit(now) {
            Admission::Refused => {
                self.counts.refused_breaker += 1;
                return Pick::Refused(Refusal::BreakerOpen);
            }
            Admission::Probe => true,
            Admission::Normal => false,
        };
        let Some(endpoint) = self.endpoints.get_mut(index) else {
            return Pick::Wait;
        };
        let id = endpoint.id;
        let Some(line) = endpoint.free() else {
            return Pick::Wait;
        };
        line.in_flight += 1;
        self.in_flight += 1;
        Pick::Place {
            ticket: Ticket {
                endpoint: id,
                connection: line.id,
                probe,
            },
            handle: line.handle.clone(),
        }
    }

    fn want_more(&mut self, now: Duration) {
        let connections_max = self.bounds.connections_max;
        for endpoint in &mut self.endpoints {
            let may = endpoint.connections.len() < connections_max && !endpoint.dialling;
            if may && !endpoint.wants_more && !endpoint.health.is_ejected(now) {
                endpoint.wants_more = true;
                self.wake = true;
            }
        }
    }

    /// Nothing is connected: wait for a dial that may succeed, or give up.
    fn nowhere(&mut self, attempt: &Attempt, now: Duration) -> Pick<H> {
        match self.unreachable(attempt, now) {
            None => Pick::Wait,
            Some(refusal) => {
                self.counts.refused_unreachable += 1;
                if self.endpoints.is_empty() {
                    self.missed_at = Some(now);
                }
                Pick::Refused(refusal)
            }
        }
    }

    fn may_wait_for_an_instance(&self, attempt: &Attempt, now: Duration) -> bool {
        let waited = now.saturating_sub(attempt.arrived);
        let patience = self.bounds.instance_patience;
        patience.is_some_and(|patience| waited < patience)
    }

    /// There is no instance, and somebody waits for one or has failed for want of one just now.
    pub(super) fn is_wanted(&self, now: Duration) -> bool {
        let missed = |at| now.saturating_sub(at) < WANTED;
        self.endpoints.is_empty() && (self.waiting > 0 || self.missed_at.is_some_and(missed))
    }

    fn unreachable(&self, attempt: &Attempt, now: Duration) -> Option<Refusal> {
        let since_then = |at: Option<Duration>| at.is_some_and(|at| at >= attempt.arrived);
        if self.endpoints.is_empty() {
            return match &self.unresolved {
                Some(unresolved) if !since_then(unresolved.failed_at) => None,
                Some(unresolved) => Some(Refusal::NoEndpoints(unresolved.reason.clone())),
                None if self.may_wait_for_an_instance(attempt, now) => None,
                None => {
                    let reason = "it has no endpoints; are its instances ready?";
                    Some(Refusal::NoEndpoints(reason.to_owned()))
                }
            };
        }
        let tried = self.endpoints.iter().all(|e| since_then(e.failed_at));
        if !tried && !self.is_outage(now) {
            return None;
        }
        let down = self.endpoints.iter().filter_map(|e| e.down.as_ref());
        Some(Refusal::Unreachable {
            endpoints: self.endpoints.len(),
            error: down
                .max_by_key(|down| down.since)
                .map(|down| down.error.clone()),
        })
    }

    /// All endpoints are away for longer than a restart takes.
    pub(super) fn is_outage(&self, now: Duration) -> bool {
        let long = |e: &Endpoint<H>| {
            let away = e.down.as_ref().map(|down| now.saturating_sub(down.since));
            !e.is_connected() && away.is_some_and(|away| away >= OUTAGE_PATIENCE)
        };
        !self.endpoints.is_empty() && self.endpoints.iter().all(long)
    }
}

enum Choice {
    Endpoint(usize),
    AllFull,
    NoneConnected,
}

/// `None`: no endpoint is eligible.
fn among<H: Connected>(
    endpoints: &[Endpoint<H>],
    candidates: &mut Vec<Candidate>,
    eligible: impl Fn(&Endpoint<H>) -> bool,
    now: Duration,
    random: u64,
) -> Option<Choice> {
    candidates.clear();
    let mut some = false;
    for (index, endpoint) in endpoints.iter().enumerate().filter(|(_, e)| eligible(e)) {
        some = true;
        if endpoint.has_free() {
            candidates.push(Candidate {
                index,
                in_flight: endpoint.in_flight(),
                weight: endpoint.weight(now),
            });
        }
    }
    match pick::pick(candidates, random) {
        Some(index) => Some(Choice::Endpoint(index)),
        None => some.then_some(Choice::AllFull),
    }
}
