//! What the callers' futures and the task of a connection tell each other.
//!
//! The queue of asks has no bound of its own: permits bound the transactions, and a transaction hands over its next fragment only
//! when the one before was taken from the queue. Credit is no such bound: it says what the service can hold, not what we can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};

use crate::error::CalloutError;
use crate::extent::Fragment;
use crate::reassembly::Adapted;
use crate::request::Group;

/// To the connection.
#[derive(Debug)]
pub(crate) enum Ask {
    Open(Box<Open>),
    Data {
        link: Arc<Link>,
        data: Data,
    },
    /// So many octets of the service's own are where they belong.
    Held {
        link: Arc<Link>,
        octets: u64,
    },
    /// The caller has gone: TE 400.
    Cancel {
        link: Arc<Link>,
    },
}

/// Starts a transaction.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) group: Arc<Group>,
    pub(crate) budget_ms: u32,
    pub(crate) traceparent: String,
    pub(crate) am_el: Option<u64>,
    /// Encoded `MessageStart`.
    pub(crate) profile: Bytes,
    pub(crate) data: Data,
    pub(crate) link: Arc<Link>,
    /// Where octets of the service's own go.
    pub(crate) own: mpsc::UnboundedSender<Bytes>,
    /// Most of them.
    pub(crate) own_octets_max: u64,
    pub(crate) reply: oneshot::Sender<Result<Raw, Lost>>,
    /// One of the connection's places; given back when the transaction is over.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// The next octets of the original, and whether it ends with them.
#[derive(Debug, Default)]
pub(crate) struct Data {
    pub(crate) fragments: Vec<Fragment>,
    pub(crate) end: Option<OriginalEnd>,
}

/// How the original ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OriginalEnd {
    /// AME 200: everything was sent.
    Whole,
    /// AME 206: the service wants or may have no more.
    Partial,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Raw {
    /// Encoded `Outcome`.
    pub(crate) profile: Bytes,
    pub(crate) adapted: Adapted,
    pub(crate) octets_sent: u64,
    pub(crate) octets_received: u64,
}

/// Why nothing came back.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The service has not begun with it: another connection may be tried.
    NotTaken(CalloutError),
    Failed(CalloutError),
}

/// Shared state of one transaction.
#[derive(Debug)]
pub(crate) struct Link {
    xid: AtomicU32,
    /// Octets of the original that may be handed over.
    limit: AtomicU64,
    /// Octets of the original that the connection has taken from the queue.
    taken: AtomicU64,
    changed: Notify,
}

const NO_XID: u32 = u32::MAX;

impl Link {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            xid: AtomicU32::new(NO_XID),
            limit: limit.into(),
            taken: AtomicU64::new(0),
            changed: Notify::new(),
        }
    }

    pub(crate) fn set_xid(&self, xid: u32) {
        self.xid.store(xid, Ordering::Relaxed);
    }

    pub(crate) fn xid(&self) -> Option<u32> {
        Some(self.xid.load(Ordering::Relaxed)).filter(|&xid| xid != NO_XID)
    }

    pub(crate) fn raise_limit(&self, limit: u64) {
        if self.limit.fetch_max(limit, Ordering::Relaxed) < limit {
            self.changed.notify_one();
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// The connection has these octets now.
    pub(crate) fn took(&self, data: &Data) {
        let octets: usize = data
            .fragments
            .iter()
            .map(|fragment| fragment.octets.len())
            .sum();
        self.taken.fetch_add(octets as u64, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Waits until more than `offset` octets may be handed over and those before were taken. One waiter at a time; cancel safe.
    pub(crate) async fn wait_beyond(&self, offset: u64) {
        loop {
            let changed = self.changed.notified();
            if self.limit() > offset && self.taken.load(Ordering::Relaxed) >= offset {
                return;
            }
            changed.await;
        }
    }
}
