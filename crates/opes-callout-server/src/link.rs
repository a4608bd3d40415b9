//! What one transaction's handler and its connection share: the original's octets on their way in, the adapted flow's
//! credit on its way out. Bounded by credit on both sides, so a slow handler slows its own processor and nobody else.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use opes_proto::smtp::Outcome;
use tokio::sync::Notify;

/// How the adapted flow ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// AME 200: what was sent is the whole adapted message.
    Whole,
    /// AME 206: the original from this octet on follows what was sent.
    Rest(u64),
}

/// What a handler tells its connection.
#[derive(Debug)]
pub(crate) enum Said {
    /// The processor may send the original up to this offset.
    Credit(u64),
    /// The handler has seen enough of the original.
    StopReceiving,
    /// A fragment of the adapted flow, within credit.
    UseMine(Bytes),
    /// A range of the original as the next part of the adapted flow.
    UseYours { offset: u64, size: u64 },
    /// The handler is done. `payload` is sent before the end (a rewritten command).
    Done {
        outcome: Box<Outcome>,
        payload: Option<Bytes>,
        ending: Ending,
    },
    /// The handler failed or panicked.
    Failed(String),
}

#[derive(Debug, Default)]
pub(crate) struct Link {
    shared: Mutex<Shared>,
    pub(crate) readable: Notify,
    pub(crate) writable: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) chunks: VecDeque<Bytes>,
    /// The original has ended; `Some(true)`: all of it came (AME 200).
    pub(crate) ended: Option<bool>,
    /// The handler wants no more; what still comes is dropped.
    pub(crate) stopped: bool,
    /// Octets that the adapted flow may reach.
    pub(crate) adapted_limit: u64,
    /// Octets of the adapted flow given out with `UseMine` and `UseYours`.
    pub(crate) adapted: u64,
    pub(crate) ending: Option<Ending>,
    pub(crate) adapting: bool,
    /// Octets of the adapted flow so far, those of the original included.
    pub(crate) flow: u64,
    /// The adapted flow holds messages that answers name one by one.
    pub(crate) several: bool,
    /// Octets of the original that came.
    pub(crate) received: u64,
}

impl Link {
    pub(crate) fn new(adapted_limit: u64) -> Self {
        let shared = Shared {
            adapted_limit,
            ..Shared::default()
        };
        Self {
            shared: Mutex::new(shared),
            ..Self::default()
        }
    }

    /// A panic while holding the lock cannot leave the state half-changed, so poison is ignored.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, chunk: Bytes) {
        let mut shared = self.lock();
        shared.received += chunk.len() as u64;
        if !shared.stopped && !chunk.is_empty() {
            shared.chunks.push_back(chunk);
            drop(shared);
            self.readable.notify_one();
        }
    }

    pub(crate) fn end(&self, whole: bool) {
        self.lock().ended = Some(whole);
        self.readable.notify_one();
    }

    pub(crate) fn raise_limit(&self, limit: u64) {
        {
            let mut shared = self.lock();
            shared.adapted_limit = shared.adapted_limit.max(limit);
        }
        self.writable.notify_one();
    }
}
