//! What waits for a thread (or, on a disk that does not block, a task) of the spool. While the writer waits for the disk, the next commit collects here.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::index::Index;
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

/// For the writer.
pub(crate) enum Job {
    Store(Box<Store>),
    /// One that the settler found no place for.
    Settle(Settle),
}

/// Requests for one thread or task.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    ready_task: Notify,
}

struct State<T> {
    jobs: Vec<T>,
    closed: bool,
    /// A thread that has no deadline shall come back although there is no request.
    nudged: bool,
    /// Spares a system call per request while the thread is busy.
    waits: Waits,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    No,
    UntilDeadline,
    ForEver,
    /// A task waits, with or without a deadline.
    Task,
}

// === impl Store ===

impl Store {
    /// A report on other recipients. It empties the spool as settlements do, and may use the room that is kept for them.
    pub(crate) fn is_settlement(&self) -> bool {
        self.queued.envelope.reports_on.is_some()
    }

    /// Settles in the index what a report settles; gives the message whose own file is not needed any more.
    pub(crate) fn settle(&self, index: &mut Index) -> Option<QueueId> {
        let on = self.queued.envelope.reports_on.as_ref()?;
        index.settle(&on.id, &on.recipients).own_file(on.id)
    }
}

// === impl Queue ===

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        let state = State {
            jobs: Vec::new(),
            closed: false,
            nudged: false,
            waits: Waits::No,
        };
        Self {
            state: Mutex::new(state),
            ready: Condvar::new(),
            ready_task: Notify::new(),
        }
    }

    pub(crate) fn push(&self, job: T) -> Result<(), SpoolError> {
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
        self.wake(&state);
        Ok(())
    }

    /// Requests that were counted in another queue already: neither full nor closed is a reason to lose them.
    pub(crate) fn put_back(&self, jobs: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        state.jobs.extend(jobs);
        if !state.jobs.is_empty() {
            self.wake(&state);
        }
    }

    /// Makes a [`Queue::take`] without deadline return, so that its caller can think of one.
    pub(crate) fn nudge(&self) {
        let mut state = self.lock();
        state.nudged = true;
        match state.waits {
            Waits::ForEver => self.ready.notify_one(),
            Waits::Task => self.ready_task.notify_one(),
            Waits::No | Waits::UntilDeadline => {}
        }
    }

    /// No more requests; those that wait are still done.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
        self.ready_task.notify_one();
    }

    /// All that waits; blocks until there is something, `deadline` (without one: a nudge), or the end. `None` = closed and empty.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Option<Vec<T>> {
        let mut state = self.lock();
        while state.must_wait(deadline) {
            let wait = match deadline {
                Some(deadline) => deadline.checked_duration_since(Instant::now()),
                None => Some(std::time::Duration::MAX),
            };
            let Some(wait) = wait else { break };
            state.waits = match deadline {
                Some(_) => Waits::UntilDeadline,
                None => Waits::ForEver,
            };
            let (woken, _) = self
                .ready
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.waits = Waits::No;
        }
        state.take()
    }

    /// As [`Queue::take`], for a task.
    pub(crate) async fn take_in_task(&self, deadline: Option<Instant>) -> Option<Vec<T>> {
        loop {
            {
                let mut state = self.lock();
                let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
                if late || !state.must_wait(deadline) {
                    state.waits = Waits::No;
                    return state.take();
                }
                state.waits = Waits::Task;
            }
            let ready = self.ready_task.notified();
            match deadline {
                // Late or ready: the next round looks.
                Some(deadline) => drop(tokio::time::timeout_at(deadline, ready).await),
                None => ready.await,
            }
        }
    }

    /// All that waits, perhaps nothing.
    pub(crate) fn take_waiting(&self) -> Vec<T> {
        std::mem::take(&mut self.lock().jobs)
    }

    fn wake(&self, state: &State<T>) {
        match state.waits {
            Waits::No => {}
            Waits::UntilDeadline | Waits::ForEver => self.ready.notify_one(),
            Waits::Task => self.ready_task.notify_one(),
        }
    }

    /// The state is a list and flags, whole after every statement.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl<T> State<T> {
    fn must_wait(&self, deadline: Option<Instant>) -> bool {
        self.jobs.is_empty() && !self.closed && (deadline.is_some() || !self.nudged)
    }

    /// `None` = closed and empty.
    fn take(&mut self) -> Option<Vec<T>> {
        self.nudged = false;
        if self.jobs.is_empty() && self.closed {
            return None;
        }
        Some(std::mem::take(&mut self.jobs))
    }
}
