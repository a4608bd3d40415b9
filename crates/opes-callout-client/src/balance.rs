//! The decisions of a pool, without its sockets: which endpoint a transaction goes to, whether it may begin, when to dial,
//! what a failure means. Time and randomness come as values; `pool` does what is decided here.
//!
//! Time is a [`Duration`] since any fixed moment.

use std::time::Duration;

use crate::config::{Address, ENDPOINTS_MAX};
use crate::error::CalloutError;

mod breaker;
mod endpoint;
mod health;
mod pick;
mod place;
mod retry;
mod view;

use breaker::Breaker;
pub use breaker::BreakerState;
use endpoint::{Endpoint, Line};
use pick::Candidate;
use retry::RetryBudget;
pub use view::{EndpointSnapshot, EndpointState, Snapshot};

/// What the balancer has to know of a connection.
pub(crate) trait Connected: Clone {
    fn condition(&self) -> Condition;
    /// Why it is [`Condition::Closed`].
    fn loss(&self) -> Loss;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Open,
    /// Leaves a progress query unanswered.
    Unresponsive,
    /// Takes nothing new.
    Closed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Closed in good order, or it takes nothing new: drains, is full, or is to be replaced.
    Drained,
    /// A fault of transport or protocol.
    Broken(CalloutError),
}

/// Bounds of one pool.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) in_flight_max: u32,
    pub(crate) queued_max: u32,
    pub(crate) connections_max: usize,
    /// Connections are kept for so long after the last use.
    pub(crate) keep: Duration,
    /// How long a transaction waits for a first instance; none: it fails at once.
    pub(crate) instance_patience: Option<Duration>,
}

/// One try of a transaction to begin.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// When the transaction was asked for.
    pub(crate) arrived: Duration,
    /// Endpoints that it was on before.
    pub(crate) avoid: Vec<u64>,
}

/// Where a transaction runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) endpoint: u64,
    connection: u64,
    probe: bool,
}

#[derive(Debug)]
pub(crate) enum Pick<H> {
    Place { ticket: Ticket, handle: H },
    Wait,
    Refused(Refusal),
}

/// Why a transaction may not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Of `endpoints` none can be reached; the last one's reason.
    Unreachable {
        endpoints: usize,
        error: Option<CalloutError>,
    },
    NoEndpoints(String),
    BreakerOpen,
    Full {
        in_flight: u32,
        queued: u32,
    },
}

/// Why a dial brought no connection.
#[derive(Debug, Clone)]
pub(crate) struct NotOpened {
    pub(crate) error: CalloutError,
    /// The connection was closed with CE 200 before anything could begin: an end that has just got other certificates
    /// does so with connections of the old ones, and a service that goes with all of them.
    pub(crate) in_good_order: bool,
}

impl From<CalloutError> for NotOpened {
    fn from(error: CalloutError) -> Self {
        Self {
            error,
            in_good_order: false,
        }
    }
}

/// What the end of a transaction says about where it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Answered,
    /// An answer, but the service's own error.
    ServiceFailed,
    /// No answer in time, or not OCP/SMTP.
    Faulty,
    /// Nothing: the caller left, or the connection's loss says it for all that ran there.
    Neutral,
}

/// For the log: changes of state only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    Down { error: CalloutError },
    Up { target: String, away: Duration },
    Ejected { target: String, length: Duration },
    BreakerOpened,
    BreakerClosed { after: Duration },
}

/// What the keeper of the connections has to do.
#[derive(Debug)]
pub(crate) struct Upkeep {
    pub(crate) dials: Vec<(u64, Address)>,
    pub(crate) next: Option<Duration>,
}

#[derive(Debug, Default)]
struct Counts {
    retries: u64,
    retries_refused: u64,
    refused_full: u64,
    refused_breaker: u64,
    refused_unreachable: u64,
    ejections_of_gone: u64,
}

/// Names that were not looked up successfully yet.
#[derive(Debug, Default)]
struct Unresolved {
    failed_at: Option<Duration>,
    reason: String,
}

#[derive(Debug)]
pub(crate) struct Balancer<H> {
    bounds: Bounds,
    endpoints: Vec<Endpoint<H>>,
    unresolved: Option<Unresolved>,
    ids: u64,
    in_flight: u32,
    waiting: u32,
    last_use: Option<Duration>,
    /// When somebody last failed for want of an instance.
    missed_at: Option<Duration>,
    breaker: Breaker,
    retries: RetryBudget,
    counts: Counts,
    notes: Vec<Note>,
    /// The keeper has something to do.
    wake: bool,
    candidates: Vec<Candidate>,
}

impl<H: Connected> Balancer<H> {
    pub(crate) fn new(bounds: Bounds, now: Duration) -> Self {
        Self {
            bounds,
            endpoints: Vec::new(),
            unresolved: None,
            ids: 0,
            in_flight: 0,
            waiting: 0,
            last_use: None,
            missed_at: None,
            breaker: Breaker::new(now),
            retries: RetryBudget::default(),
            counts: Counts::default(),
            notes: Vec::new(),
            wake: false,
            candidates: Vec::new(),
        }
    }

    // ---- endpoints -----------------------------------------------------------------------------------------------

    /// Nothing is known of the endpoints until their names were looked up.
    pub(crate) fn await_names(&mut self) {
        self.unresolved = Some(Unresolved::default());
    }

    pub(crate) fn names_failed(&mut self, reason: String, now: Duration) {
        if let Some(unresolved) = &mut self.unresolved {
            unresolved.failed_at = Some(now);
            unresolved.reason = reason;
        }
    }

    /// The endpoints from now on. Connections to others are let go: what runs there finishes.
    pub(crate) fn set_endpoints(&mut self, mut addresses: Vec<Address>) {
        self.unresolved = None;
        addresses.truncate(ENDPOINTS_MAX);
        let gone = |e: &Endpoint<H>| !addresses.contains(&e.address);
        let ejections = |e: &Endpoint<H>| e.ejections;
        self.counts.ejections_of_gone += self
            .endpoints
            .iter()
            .filter(|e| gone(e))
            .map(ejections)
            .sum::<u64>();
        self.endpoints.retain(|e| !gone(e));
        for address in addresses {
            if !self.endpoints.iter().any(|e| e.address == address) {
                self.ids += 1;
                self.endpoints.push(Endpoint::new(self.ids, address));
                // Not for the same ones again: whoever is woken looks names up, which ends here.
                self.wake = true;
            }
        }
    }

    fn endpoint(&mut self, id: u64) -> Option<&mut Endpoint<H>> {
        self.endpoints.iter_mut().find(|e| e.id == id)
    }

    // ---- connections ---------------------------------------------------------------------------------------------

    pub(crate) fn connected(&mut self, id: u64, handle: H, capacity: u32, now: Duration) {
        self.ids += 1;
        let line = Line {
            id: self.ids,
            handle,
            capacity,
            in_flight: 0,
            last_use: now,
        };
        // If the endpoint has left meanwhile, the connection is dropped, and so closed.
        let note = self.endpoint(id).and_then(|e| e.connected(line, now));
        self.notes.extend(note);
    }

    pub(crate) fn not_opened(&mut self, id: u64, why: NotOpened, now: Duration, random: u64) {
        self.wake = true;
        let note = self
            .endpoint(id)
            .and_then(|e| e.not_opened(why, now, random));
        self.notes.extend(note);
    }

    /// Forgets what has closed, lets idle connections go and says what to dial.
    pub(crate) fn upkeep(&mut self, now: Duration, random: u64) -> Upkeep {
        self.wake = false;
        self.forget_closed(now, random);
        if !self.is_active(now) {
            self.endpoints
                .iter_mut()
                .for_each(|e| e.connections.clear());
            return Upkeep {
                dials: Vec::new(),
                next: None,
            };
        }
        let (keep, connections_max) = (self.bounds.keep, self.bounds.connections_max);
        let mut next = self.last_use.map(|at| at + keep);
        let mut dials = Vec::new();
        for endpoint in &mut self.endpoints {
            close_spare(&mut endpoint.connections, keep, now);
            match endpoint.dial_at(connections_max) {
                Some(at) if at <= now => {
                    endpoint.dialling = true;
                    dials.push((endpoint.id, endpoint.address.clone()));
                }
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        // A transaction may outlive the last use by far.
        let next = next.map(|at| if at <= now { now + keep } else { at });
        Upkeep { dials, next }
    }

    pub(crate) fn is_active(&self, now: Duration) -> bool {
        let used = |at| now.saturating_sub(at) < self.bounds.keep;
        self.in_flight > 0 || self.waiting > 0 || self.last_use.is_some_and(used)
    }

    fn forget_closed(&mut self, now: Duration, random: u64) {
        let (mut notes, mut broken) = (Vec::new(), 0);
        for endpoint in &mut self.endpoints {
            let closed = |line: &mut Line<H>| line.handle.condition() == Condition::Closed;
            let lines: Vec<_> = endpoint.connections.extract_if(.., closed).collect();
            for line in lines {
                let loss = line.handle.loss();
                if let Loss::Broken(_) = loss {
                    broken += 1;
                    notes.extend(eject(endpoint, now));
                }
                notes.extend(endpoint.lost(loss, now, random));
            }
        }
        self.notes.extend(notes);
        for _ in 0..broken {
            self.note_failure(now, false);
        }
    }

    // ---- transactions --------------------------------------------------------------------------------------------

    /// A place in the queue, which is bounded.
    pub(crate) fn enter_queue(&mut self) -> Result<(), Refusal> {
        if self.waiting >= self.bounds.queued_max {
            self.counts.refused_full += 1;
            return Err(Refusal::Full {
                in_flight: self.in_flight,
                queued: self.waiting,
            });
        }
        self.waiting += 1;
        Ok(())
    }

    pub(crate) fn leave_queue(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    pub(crate) fn has_queue(&self) -> bool {
        self.waiting > 0
    }

    /// The transaction is over on its connection: the place is free.
    pub(crate) fn release(&mut self, ticket: Ticket, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.last_use = Some(now);
        let Some(endpoint) = self.endpoint(ticket.endpoint) else {
            return;
        };
        let mut lines = endpoint.connections.iter_mut();
        if let Some(line) = lines.find(|line| line.id == ticket.connection) {
            line.in_flight = line.in_flight.saturating_sub(1);
            line.last_use = now;
        }
    }

    /// What became of it.
    pub(crate) fn ended(&mut self, ticket: Ticket, ended: Ended, now: Duration) {
        let Some(endpoint) = self.endpoint(ticket.endpoint) else {
            return;
        };
        let note = match ended {
            Ended::Answered => {
                endpoint.answered();
                None
            }
            Ended::ServiceFailed | Ended::Faulty => eject(endpoint, now),
            Ended::Neutral => None,
        };
        self.notes.extend(note);
        match ended {
            Ended::Answered | Ended::ServiceFailed => {
                if let Some(after) = self.breaker.answered(now) {
                    self.notes.push(Note::BreakerClosed { after });
                }
            }
            Ended::Faulty => self.note_failure(now, ticket.probe),
            Ended::Neutral => {}
        }
    }

    fn note_failure(&mut self, now: Duration, probe: bool) {
        if self.breaker.failed(now, probe) {
            self.notes.push(Note::BreakerOpened);
        }
    }

    pub(crate) fn note_transaction(&mut self, now: Duration) {
        self.retries.note_transaction(now);
    }

    /// Whether the budget has another repeat.
    pub(crate) fn may_retry(&mut self, now: Duration) -> bool {
        let may = self.retries.take(now);
        let count = if may {
            &mut self.counts.retries
        } else {
            &mut self.counts.retries_refused
        };
        *count += 1;
        may
    }

    // ---- for the shell -------------------------------------------------------------------------------------------

    /// Whether the keeper is to be woken; asks once.
    pub(crate) fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.wake)
    }

    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}

fn eject<H: Connected>(endpoint: &mut Endpoint<H>, now: Duration) -> Option<Note> {
    let length = endpoint.health.failed(now)?;
    endpoint.ejections += 1;
    let target = endpoint.address.target.clone();
    Some(Note::Ejected { target, length })
}

/// Connections beyond the first go when they are not needed any more.
fn close_spare<H>(connections: &mut Vec<Line<H>>, keep: Duration, now: Duration) {
    let idle = |line: &Line<H>| line.in_flight == 0 && now.saturating_sub(line.last_use) >= keep;
    while connections.len() > 1 {
        let Some(at) = connections.iter().rposition(idle) else {
            return;
        };
        connections.remove(at);
    }
}

#[cfg(test)]
mod tests;
