//! What can be seen of a pool from outside, at one moment: for metrics and people.

use std::time::Duration;

use super::{Balancer, BreakerState, Condition, Connected, Endpoint};

/// State of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointState {
    /// Takes transactions.
    Ready,
    /// Connected, but left alone for a while because it failed again and again.
    Ejected,
    /// Connected, but a progress query is not answered.
    Unresponsive,
    /// Not connected, and no attempt has failed: not needed yet, or being dialled.
    Idle,
    /// Lost, or never reached; dialled again and again.
    Unreachable,
}

impl EndpointState {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Ready,
        Self::Ejected,
        Self::Unresponsive,
        Self::Idle,
        Self::Unreachable,
    ];
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSnapshot {
    /// Address, such as `http://192.0.2.1:9000` or `unix:/run/x.sock`.
    pub target: String,
    /// What it is good for just now.
    pub state: EndpointState,
    /// Transactions open there.
    pub in_flight: u32,
    /// OCP connections.
    pub connections: usize,
    /// Times it was ejected.
    pub ejections: u64,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The endpoints of this moment.
    pub endpoints: Vec<EndpointSnapshot>,
    /// The circuit breaker; open as well while no endpoint can be reached.
    pub breaker: BreakerState,
    /// Transactions open, those on endpoints that have left included.
    pub in_flight: u32,
    /// Transactions that wait for a place.
    pub queued: u32,
    /// There is no endpoint, and within the last minute there was a transaction that wanted one.
    pub wanted: bool,
    /// Repeats so far.
    pub retries: u64,
    /// Repeats that the budget did not allow.
    pub retries_refused: u64,
    /// Ejections so far, of endpoints that have left too.
    pub ejections: u64,
    /// Transactions refused because too many were open and waiting.
    pub refused_full: u64,
    /// Transactions refused because the breaker was open.
    pub refused_breaker: u64,
    /// Transactions refused because no endpoint could be reached.
    pub refused_unreachable: u64,
}

impl<H: Connected> Balancer<H> {
    pub(crate) fn snapshot(&self, now: Duration) -> Snapshot {
        let ejections: u64 = self.endpoints.iter().map(|e| e.ejections).sum();
        Snapshot {
            endpoints: self.endpoints.iter().map(|e| view(e, now)).collect(),
            breaker: if self.is_outage(now) {
                BreakerState::Open
            } else {
                self.breaker.state()
            },
            in_flight: self.in_flight,
            queued: self.waiting,
            wanted: self.is_wanted(now),
            retries: self.counts.retries,
            retries_refused: self.counts.retries_refused,
            ejections: ejections + self.counts.ejections_of_gone,
            refused_full: self.counts.refused_full,
            refused_breaker: self.counts.refused_breaker,
            refused_unreachable: self.counts.refused_unreachable,
        }
    }
}

fn view<H: Connected>(endpoint: &Endpoint<H>, now: Duration) -> EndpointSnapshot {
    EndpointSnapshot {
        target: endpoint.address.target.clone(),
        state: state(endpoint, now),
        in_flight: endpoint.in_flight(),
        connections: endpoint.connections.len(),
        ejections: endpoint.ejections,
    }
}

fn state<H: Connected>(endpoint: &Endpoint<H>, now: Duration) -> EndpointState {
    if endpoint.is(Condition::Open) {
        return if endpoint.health.is_ejected(now) {
            EndpointState::Ejected
        } else {
            EndpointState::Ready
        };
    }
    match (endpoint.is_connected(), &endpoint.down) {
        (true, _) => EndpointState::Unresponsive,
        (false, Some(_)) => EndpointState::Unreachable,
        (false, None) => EndpointState::Idle,
    }
}
