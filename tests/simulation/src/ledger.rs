//! What everybody saw, in order: the trace, and the facts that the invariants are about. It belongs to nobody's process and survives them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::mail::Attempt;

/// How an attempt looks to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The end of data was not sent.
    Unfinished,
    /// The end of data was sent, and there was no reply.
    NoReply,
    /// 250.
    Accepted,
    /// 4xx.
    RefusedForNow,
    /// 5xx.
    Refused,
}

/// The next hop took a message for one recipient.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) at_ms: u64,
    pub(crate) attempt: Attempt,
    pub(crate) recipient: String,
    pub(crate) octets: Arc<Vec<u8>>,
}

/// What went wrong, by our hand, from when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outage {
    pub(crate) what: What,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    EdgeKilled,
    EdgePowerCut,
    HopKilled,
    HopLink,
    /// Writes, syncs or new files fail.
    Disk,
    /// Not between edge and next hop.
    Elsewhere,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) attempts: BTreeMap<Attempt, Seen>,
    pub(crate) deliveries: Vec<Delivery>,
    /// Recipients that the next hop refused for good.
    pub(crate) refusals: Vec<(Attempt, String)>,
    /// Reports to senders: when, on which attempt, on which recipient.
    pub(crate) bounces: Vec<(u64, Attempt, String)>,
    /// What the analyser has answered about, whether the edge heard of it or not.
    pub(crate) judged: BTreeSet<Attempt>,
    /// The same of the adapter.
    pub(crate) adapted: BTreeSet<Attempt>,
    pub(crate) outages: Vec<Outage>,
    /// Clients that have got rid of their message.
    pub(crate) clients_done: usize,
    /// Handlers of callout services that are at work.
    pub(crate) handlers: usize,
    trace: Vec<String>,
    /// Every write is in the trace, too.
    pub(crate) traces_wire: bool,
    /// Of every write to a connection: when, where to, how many octets.
    wire: DefaultHasher,
}

/// Shared by all hosts of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Facts>>);

// === impl Ledger ===

impl Ledger {
    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&self, line: impl AsRef<str>) {
        let line = format!("{:>7} {}", now_ms(), line.as_ref());
        self.facts().trace.push(line);
    }

    /// Octets went out. Not what they are: maps are encoded in any order (Protocol Buffers, "Encoding", maps).
    pub(crate) fn sent(&self, to: SocketAddr, octets: &[u8]) {
        let mut facts = self.facts();
        (now_ms(), to, octets.len()).hash(&mut facts.wire);
        if facts.traces_wire {
            let line = format!("{:>7} {} octets to {to}", now_ms(), octets.len());
            facts.trace.push(line);
        }
    }

    pub(crate) fn seen(&self, attempt: Attempt, seen: Seen) {
        self.facts().attempts.insert(attempt, seen);
        self.note(format!("client {attempt:?}: {seen:?}"));
    }
}

impl Facts {
    pub(crate) fn trace(&self) -> &[String] {
        &self.trace
    }

    /// The same for two runs that went the same way.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = self.wire.clone();
        self.trace.hash(&mut hasher);
        hasher.finish()
    }
}

/// Virtual time on the host that asks.
pub(crate) fn now_ms() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
