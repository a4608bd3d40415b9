//! What waits for the writer thread. While it waits for the disk, the next commit collects here.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::own_file::OwnFile;
use crate::queued::Receipt;
use crate::record::Prepared;
use crate::{QueueId, Queued, SpoolError};

/// Most requests that wait; more are refused with [`SpoolError::Busy`].
const WAITING_MAX: usize = 65_536;

/// A message to be made durable.
pub(crate) struct Store {
    pub(crate) record: Prepared,
    pub(crate) queued: Queued,
    /// Content that is not in the record.
    pub(crate) own_file: Option<OwnFile>,
    pub(crate) reply: oneshot::Sender<Result<Receipt, SpoolError>>,
}

/// Outcomes to be recorded.
pub(crate) struct Settle {
    pub(crate) record: Prepared,
    pub(crate) id: QueueId,
    pub(crate) recipients: Vec<u32>,
    /// `None`: nobody asked, the spool does it by itself.
    pub(crate) reply: Option<oneshot::Sender<Result<(), SpoolError>>>,
}

pub(crate) enum Job {
    Store(Box<Store>),
    Settle(Settle),
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    closed: bool,
    /// Spares a system call per request while the writer is busy.
    writer_waits: bool,
}

// === impl Job ===

impl Job {
    pub(crate) fn octets(&self) -> u64 {
        match self {
            Self::Store(store) => store.record.octets(),
            Self::Settle(settle) => settle.record.octets(),
        }
    }
}

// === impl Queue ===

impl Queue {
    pub(crate) fn push(&self, job: Job) -> Result<(), SpoolError> {
        let mut state = self.lock();
        if state.closed {
            return Err(SpoolError::Closed);
        }
        if state.jobs.len() >= WAITING_MAX {
            return Err(SpoolError::Busy {
                waiting: state.jobs.len(),
            });
        }
        state.jobs.push(job);
        if state.writer_waits {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// No more requests; those that wait are still done.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// All that waits; blocks until there is something, until `deadline`, or until the queue is closed. `None` = closed and empty.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Option<Vec<Job>> {
        let mut state = self.lock();
        while state.jobs.is_empty() && !state.closed {
            let wait = match deadline {
                Some(deadline) => deadline.checked_duration_since(Instant::now()),
                None => Some(std::time::Duration::MAX),
            };
            let Some(wait) = wait else { break };
            state.writer_waits = true;
            let (woken, _) = self
                .ready
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.writer_waits = false;
        }
        if state.jobs.is_empty() && state.closed {
            return None;
        }
        Some(std::mem::take(&mut state.jobs))
    }

    /// The state is a list and two flags, whole after every statement.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
