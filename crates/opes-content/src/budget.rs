//! One count of octets over all sessions. Exact: what is reserved is released when its [`Reservation`] is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory that may be held by content, over all messages. Clones share the count.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    used: AtomicU64,
    max: u64,
}

/// Octets taken from a [`Budget`]; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    octets: u64,
}

// === impl Budget ===

impl Budget {
    /// A budget of `memory_octets`.
    pub fn new(memory_octets: u64) -> Self {
        Self(Arc::new(Shared {
            used: AtomicU64::new(0),
            max: memory_octets,
        }))
    }

    /// Octets in use. May exceed [`Budget::max`] for the moment in which chunks that were already received are written to disk.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Octets there are.
    pub fn max(&self) -> u64 {
        self.0.max
    }

    /// An empty reservation, to grow later.
    pub fn reservation(&self) -> Reservation {
        Reservation {
            budget: self.clone(),
            octets: 0,
        }
    }

    /// `octets` at once, or nothing when they do not fit.
    pub fn try_reserve(&self, octets: u64) -> Option<Reservation> {
        let fits = |used: u64| {
            used.checked_add(octets)
                .filter(|total| *total <= self.0.max)
        };
        let taken = self
            .0
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.ok().map(|_| Reservation {
            budget: self.clone(),
            octets,
        })
    }
}

// === impl Reservation ===

impl Reservation {
    /// Takes `octets` more, always: they are in memory already. False when the budget is overdrawn by it, and the holder must get
    /// rid of them.
    pub fn grow(&mut self, octets: u64) -> bool {
        let before = self.budget.0.used.fetch_add(octets, Ordering::Relaxed);
        self.octets = self.octets.saturating_add(octets);
        before.saturating_add(octets) <= self.budget.0.max
    }

    /// Gives `octets` back, at most what is held.
    pub fn shrink(&mut self, octets: u64) {
        let octets = octets.min(self.octets);
        self.octets -= octets;
        self.budget.0.used.fetch_sub(octets, Ordering::Relaxed);
    }

    /// Where they are taken from.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Octets held.
    pub fn octets(&self) -> u64 {
        self.octets
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.octets);
    }
}
