//! The queue between edges and the database: bounded by number and by octets, and never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::event::Event;
use crate::metrics::{Metrics, Reason};

/// Octets of events that wait, about. Reached with messages to very many recipients only.
const QUEUE_OCTETS_MAX: usize = 64 * 1024 * 1024;

/// Where events go in.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Event>,
    octets: Arc<AtomicUsize>,
    metrics: Metrics,
}

/// Where they come out.
#[derive(Debug)]
pub(crate) struct Waiting {
    receiver: mpsc::Receiver<Event>,
    octets: Arc<AtomicUsize>,
    metrics: Metrics,
}

/// With room for `max` events.
pub(crate) fn queue(max: usize, metrics: &Metrics) -> (Queue, Waiting) {
    let (sender, receiver) = mpsc::channel(max);
    let octets = Arc::<AtomicUsize>::default();
    let queue = Queue {
        sender,
        octets: Arc::clone(&octets),
        metrics: metrics.clone(),
    };
    let waiting = Waiting {
        receiver,
        octets,
        metrics: metrics.clone(),
    };
    (queue, waiting)
}

// === impl Queue ===

impl Queue {
    /// Takes it, or drops and counts it.
    pub(crate) fn push(&self, event: Event) {
        self.metrics.events.inc();
        let weight = event.weight();
        let held = self.octets.fetch_add(weight, Ordering::Relaxed);
        // One that is larger than the bound finds an empty queue some time.
        let fits = held == 0 || held.saturating_add(weight) <= QUEUE_OCTETS_MAX;
        // Before it can be taken out.
        self.metrics.queued.inc();
        if !fits || self.sender.try_send(event).is_err() {
            self.metrics.queued.dec();
            self.octets.fetch_sub(weight, Ordering::Relaxed);
            let reason = if self.sender.is_closed() {
                Reason::Stopped
            } else {
                Reason::Full
            };
            self.metrics.drop_events(reason, 1);
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// Waits for one event, and takes up to `max`. False: there will be no more. Cancel safe.
    pub(crate) async fn take(&mut self, into: &mut Vec<Event>, max: usize) -> bool {
        let before = into.len();
        let taken = self.receiver.recv_many(into, max).await;
        self.note(into.iter().skip(before));
        taken > 0
    }

    /// What is there, up to `max`.
    pub(crate) fn take_now(&mut self, into: &mut Vec<Event>, max: usize) {
        let before = into.len();
        while into.len() < before.saturating_add(max)
            && let Ok(event) = self.receiver.try_recv()
        {
            into.push(event);
        }
        self.note(into.iter().skip(before));
    }

    /// Nothing more is let in; what is there can still be taken.
    pub(crate) fn close(&mut self) {
        self.receiver.close();
    }

    fn note<'a>(&self, taken: impl Iterator<Item = &'a Event>) {
        for event in taken {
            self.metrics.queued.dec();
            self.octets.fetch_sub(event.weight(), Ordering::Relaxed);
        }
    }
}
