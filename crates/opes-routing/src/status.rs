//! What there is to be seen of a follower.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Where the table in force is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// An operator sent it, or has confirmed it since.
    Stream,
    /// The file on disk, and no operator has confirmed it: it may be stale.
    Cache,
}

/// One moment of a follower.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Streams to operators that are open.
    pub connected: usize,
    /// Whose tables are taken: its address.
    pub followed: Option<String>,
    /// In force; empty: none yet.
    pub revision: String,
    /// Where that is from; none: there is none yet.
    pub source: Option<Source>,
    /// Since an operator last confirmed what is in force; zero while one does. None: never.
    pub age: Option<Duration>,
    /// Tables refused so far.
    pub refused: u64,
    /// Tables put in force so far.
    pub taken: u64,
    /// Why there is no stream to an operator, if there is none and one was tried.
    pub trouble: Option<String>,
}

/// A view on a follower's status. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct StatusView(Arc<Mutex<Facts>>);

/// As the hub keeps it: with instants instead of ages.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) status: Status,
    pub(crate) confirmed: Confirmed,
}

/// When what is in force was last confirmed.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) enum Confirmed {
    #[default]
    Never,
    /// It is at this moment.
    Now,
    /// So long before that instant.
    Before(Instant, Duration),
}

// === impl StatusView ===

impl StatusView {
    /// This moment.
    pub fn now(&self) -> Status {
        let facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Status {
            age: facts.confirmed.age(),
            ..facts.status.clone()
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

// === impl Confirmed ===

impl Confirmed {
    fn age(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::Now => Some(Duration::ZERO),
            Self::Before(at, age) => Some(at.elapsed() + age),
        }
    }

    /// It is not confirmed any more, from now on.
    pub(crate) fn lapse(&mut self) {
        if let Self::Now = self {
            *self = Self::Before(Instant::now(), Duration::ZERO);
        }
    }
}
