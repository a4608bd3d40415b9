//! What a connection's task lets others see of it: whether it takes transactions, and why not.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::balance::{Condition, Loss};

#[derive(Debug)]
pub(crate) struct Availability {
    condition: AtomicU8,
    loss: OnceLock<Loss>,
    changes: Arc<Notify>,
}

const OPEN: u8 = 0;
const UNRESPONSIVE: u8 = 1;
const CLOSED: u8 = 2;

impl Availability {
    pub(crate) fn new(changes: Arc<Notify>) -> Self {
        Self {
            condition: AtomicU8::new(OPEN),
            loss: OnceLock::new(),
            changes,
        }
    }

    pub(crate) fn condition(&self) -> Condition {
        match self.condition.load(Ordering::Acquire) {
            OPEN => Condition::Open,
            UNRESPONSIVE => Condition::Unresponsive,
            _ => Condition::Closed,
        }
    }

    pub(crate) fn loss(&self) -> Loss {
        self.loss.get().cloned().unwrap_or(Loss::Drained)
    }

    /// Takes nothing new from now on. The first reason stays.
    pub(crate) fn close(&self, loss: Loss) {
        let _earlier = self.loss.set(loss);
        if self.condition.swap(CLOSED, Ordering::AcqRel) != CLOSED {
            self.changes.notify_one();
        }
    }

    /// Whether progress queries are answered. A closed connection stays closed.
    pub(crate) fn set_responsive(&self, responsive: bool) {
        let (from, to) = if responsive {
            (UNRESPONSIVE, OPEN)
        } else {
            (OPEN, UNRESPONSIVE)
        };
        let changed =
            self.condition
                .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        if changed.is_ok() {
            self.changes.notify_one();
        }
    }
}
