//! Messages that wait for their next attempt: one heap, one task, one timer, whatever their number.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::job::Job;
use crate::relay::Shared;

/// The messages that wait.
#[derive(Debug, Default)]
pub(crate) struct Delayed {
    heap: Mutex<BinaryHeap<Reverse<Entry>>>,
    sooner: Notify,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    job: Job,
}

impl Delayed {
    pub(crate) fn push(&self, wait: Duration, job: Job) {
        let due = Instant::now() + wait;
        self.heap().push(Reverse(Entry { due, job }));
        self.sooner.notify_one();
    }

    /// Hands every message over when its time has come. Never ends by itself.
    pub(crate) async fn run(&self, shared: &Arc<Shared>) {
        loop {
            while let Some(job) = self.pop_due(Instant::now()) {
                shared.push(job);
            }
            match self.next_due() {
                Some(due) => tokio::select! {
                    biased;
                    () = sleep_until(due) => {}
                    () = self.sooner.notified() => {}
                },
                None => self.sooner.notified().await,
            }
        }
    }

    fn pop_due(&self, now: Instant) -> Option<Job> {
        let mut heap = self.heap();
        if heap.peek()?.0.due > now {
            return None;
        }
        heap.pop().map(|Reverse(entry)| entry.job)
    }

    fn next_due(&self) -> Option<Instant> {
        self.heap().peek().map(|Reverse(entry)| entry.due)
    }

    fn heap(&self) -> MutexGuard<'_, BinaryHeap<Reverse<Entry>>> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}
