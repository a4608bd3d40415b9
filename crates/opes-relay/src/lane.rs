//! The queue of one destination, and how many workers serve it.
//!
//! Owns no task: [`Lane::push`] says when another worker is due, and a worker says when it leaves. A worker that finds the
//! destination unreachable leaves while others get through; the last one stays as the *probe*, and as long as it probes, stored
//! messages wait without each of them trying. Cannot fail; bounded by the relay's backlog.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opes_spool::NextHop;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Backoff;
use crate::job::Job;

/// Where a message can go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Maildir,
    NextHop { host: String, port: u16, lmtp: bool },
}

/// The queue of one destination.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) target: Target,
    workers_max: usize,
    state: Mutex<State>,
    work: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Clients wait for these: they go first.
    live: VecDeque<Job>,
    ready: VecDeque<Job>,
    workers: usize,
    idle: usize,
    /// Failures in a row of the probe; 0 = the destination can be reached as far as we know.
    probes_failed: u32,
    /// No new workers before, since the last of them did not get through.
    grow_after: Option<Instant>,
}

/// A worker's place in the lane, given up on drop, also by a worker that panics.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) lane: Arc<Lane>,
    taken: bool,
}

// === impl Target ===

impl From<&NextHop> for Target {
    fn from(hop: &NextHop) -> Self {
        Self::NextHop {
            host: hop.host.clone(),
            port: hop.port,
            lmtp: hop.lmtp,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maildir => f.write_str("maildir"),
            Self::NextHop { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::NextHop { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

// === impl Lane ===

impl Lane {
    pub(crate) fn new(target: Target, workers_max: usize) -> Self {
        Self {
            target,
            workers_max: workers_max.max(1),
            state: Mutex::default(),
            work: Notify::new(),
        }
    }

    /// Queues a message. True: the caller starts a worker, which gets [`Seat::new`].
    pub(crate) fn push(&self, job: Job) -> bool {
        let mut state = self.state();
        let live = job.is_live();
        if live {
            state.live.push_back(job);
        } else {
            state.ready.push_back(job);
        }
        let waiting = state.live.len() + state.ready.len();
        if state.idle > 0 || live {
            self.work.notify_one();
        }
        let grow = waiting > state.idle && self.may_grow(&state);
        state.workers += usize::from(grow);
        grow
    }

    fn may_grow(&self, state: &State) -> bool {
        let held = state.grow_after.is_some_and(|after| Instant::now() < after);
        state.workers == 0 || state.workers < self.workers_max && state.probes_failed == 0 && !held
    }

    /// Up to `max` messages; none: the worker counts as idle until it calls [`Lane::awake`].
    pub(crate) fn take(&self, max: usize) -> Vec<Job> {
        let mut state = self.state();
        let live = state.live.len().min(max);
        let ready = state.ready.len().min(max - live);
        let mut jobs: Vec<_> = state.live.drain(..live).collect();
        jobs.extend(state.ready.drain(..ready));
        state.idle += usize::from(jobs.is_empty());
        jobs
    }

    /// Resolves when there may be work.
    pub(crate) async fn work(&self) {
        self.work.notified().await;
    }

    /// The worker is not idle any more.
    pub(crate) fn awake(&self) {
        let mut state = self.state();
        state.idle = state.idle.saturating_sub(1);
    }

    /// The destination can be reached. Gives the number of workers to be started for what has waited.
    pub(crate) fn reached(&self) -> usize {
        let mut state = self.state();
        if state.probes_failed == 0 {
            return 0;
        }
        state.probes_failed = 0;
        state.grow_after = None;
        let more = state
            .ready
            .len()
            .min(self.workers_max.saturating_sub(state.workers));
        state.workers += more;
        more
    }

    /// How long a worker that does not get through waits before the next try.
    pub(crate) fn next_wait(&self, backoff: &Backoff, random: u64) -> Duration {
        backoff.delay(self.state().probes_failed.saturating_add(1), random)
    }

    /// The destination is away. The queue settles down to wait, contents in memory are let go; what cannot wait is given back: clients'
    /// messages, and stored ones that are too old.
    pub(crate) fn hold(&self, job: Job, expired: impl Fn(&Job) -> bool) -> Vec<Job> {
        let mut state = self.state();
        state.put_back(job);
        state.probes_failed = state.probes_failed.saturating_add(1);
        let (old, mut fresh): (VecDeque<_>, VecDeque<_>) = state.ready.drain(..).partition(expired);
        for job in &mut fresh {
            job.source.release_memory();
        }
        state.ready = fresh;
        state.live.drain(..).chain(old).collect()
    }

    /// Lets go of everything: clients get their answer by the loss of the job, stored messages stay in the spool.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        state.live.clear();
        state.ready.clear();
    }

    /// Nothing waits, nobody works.
    pub(crate) fn is_unused(&self) -> bool {
        let state = self.state();
        state.workers == 0 && state.live.is_empty() && state.ready.is_empty()
    }

    /// Held for moments only, never across a wait.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seat ===

impl Seat {
    /// For a worker that was asked for, and counted, by the lane.
    pub(crate) fn new(lane: Arc<Lane>) -> Self {
        Self { lane, taken: true }
    }

    /// Leaves, unless work has come in the meantime. True: the worker must end.
    pub(crate) fn leave_if_no_work(&mut self) -> bool {
        let mut state = self.lane.state();
        if !state.live.is_empty() || !state.ready.is_empty() {
            return false;
        }
        state.workers = state.workers.saturating_sub(1);
        self.taken = false;
        true
    }

    /// For a worker that does not get through: if others do, it gives the job back and must end. `Some`: it is the last.
    pub(crate) fn leave_to_others(&mut self, job: Job, wait: Duration) -> Option<Job> {
        let mut state = self.lane.state();
        if state.workers <= 1 {
            return Some(job);
        }
        state.put_back(job);
        state.grow_after = Some(Instant::now() + wait);
        state.workers -= 1;
        self.taken = false;
        self.lane.work.notify_one();
        None
    }
}

impl State {
    fn put_back(&mut self, job: Job) {
        if job.is_live() {
            self.live.push_front(job);
        } else {
            self.ready.push_front(job);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.taken {
            let mut state = self.lane.state();
            state.workers = state.workers.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
