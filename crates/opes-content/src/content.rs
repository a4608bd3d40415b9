//! The reading side of a message: any number of readers, also while it grows.
//!
//! A message is three runs, each may be empty: `head` in memory, `file`, and `tail` in memory (received, not yet written to the file).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::budget::Reservation;
use crate::chunks::Chunks;
use crate::writer::{Limits, Writer, create};
use crate::{ContentError, FILE_READ_OCTETS_MAX};

/// How far a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// More octets may come.
    Growing,
    /// All octets are there.
    Complete,
    /// The writer went away before the end.
    Aborted,
}

/// What [`Content::wait_beyond`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There are octets to read at the offset.
    Ready,
    /// The message is complete and has no octet at the offset.
    End,
    /// There will be no octet at the offset: the writer went away.
    Aborted,
}

/// The octets of one message. Clones read the same message.
#[derive(Debug, Clone)]
pub struct Content(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    store: Mutex<Store>,
    changed: Notify,
    pub(crate) limits: Arc<Limits>,
}

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) state: State,
    pub(crate) head: Chunks,
    /// Holds what is after `head` and before `tail`.
    pub(crate) file: Option<Arc<File>>,
    pub(crate) tail: Chunks,
    pub(crate) memory: Reservation,
}

/// Where the octets at an offset are.
enum Place {
    Memory(Bytes),
    File {
        file: Arc<File>,
        offset: u64,
        len: usize,
    },
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(limits: Arc<Limits>, memory: Reservation) -> Self {
        Self {
            store: Mutex::new(Store {
                state: State::Growing,
                head: Chunks::default(),
                file: None,
                tail: Chunks::default(),
                memory,
            }),
            changed: Notify::new(),
            limits,
        }
    }

    /// Held for moments only, never across a wait. A panic elsewhere leaves the store as consistent as a dropped writer does.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake_readers(&self) {
        self.changed.notify_waiters();
    }
}

// === impl Store ===

impl Store {
    /// Octets so far.
    pub(crate) fn len(&self) -> u64 {
        self.tail.end().max(self.head.end())
    }

    fn locate(&self, offset: u64, max: usize) -> Place {
        if offset < self.head.end() {
            return Place::Memory(self.head.slice(offset, max));
        }
        match &self.file {
            Some(file) if offset < self.tail.start() => Place::File {
                file: Arc::clone(file),
                offset: offset - self.head.end(),
                len: octets_in_step(self.tail.start() - offset, max),
            },
            _ => Place::Memory(self.tail.slice(offset, max)),
        }
    }

    fn progress(&self, offset: u64) -> Option<Progress> {
        match self.state {
            _ if offset < self.len() => Some(Progress::Ready),
            State::Growing => None,
            State::Complete => Some(Progress::End),
            State::Aborted => Some(Progress::Aborted),
        }
    }
}

// === impl Content ===

impl Content {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Octets that are there now; final when [`Content::state`] is not [`State::Growing`].
    pub fn len_now(&self) -> u64 {
        self.0.lock().len()
    }

    /// How far the message has come.
    pub fn state(&self) -> State {
        self.0.lock().state
    }

    /// Octets, once all are there.
    pub fn len(&self) -> Option<u64> {
        let store = self.0.lock();
        (store.state == State::Complete).then(|| store.len())
    }

    /// Complete, and without any octet.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Resolves when there is an octet at `offset`, or when it is certain that there will be none.
    pub async fn wait_beyond(&self, offset: u64) -> Progress {
        loop {
            let changed = self.0.changed.notified();
            if let Some(progress) = self.0.lock().progress(offset) {
                return progress;
            }
            changed.await;
        }
    }

    /// Resolves when the message is complete (true) or aborted (false).
    pub async fn wait_complete(&self) -> bool {
        self.wait_beyond(u64::MAX).await == Progress::End
    }

    /// At least one octet and at most `max` from `offset`, without copying when they are in memory, and in steps of at
    /// most [`FILE_READ_OCTETS_MAX`] from a file. Empty where the message ends for now; an aborted message fails there.
    pub async fn read_at(&self, offset: u64, max: usize) -> Result<Bytes, ContentError> {
        let place = {
            let store = self.0.lock();
            if offset >= store.len() {
                return match store.state {
                    State::Aborted => Err(ContentError::Aborted),
                    State::Growing | State::Complete => Ok(Bytes::new()),
                };
            }
            store.locate(offset, max)
        };
        match place {
            Place::Memory(octets) => Ok(octets),
            Place::File { file, offset, len } => {
                read_file(file, offset, len)
                    .await
                    .map_err(|source| ContentError::Read {
                        dir: self.dir(),
                        source,
                    })
            }
        }
    }

    /// The whole message as chunks in order, not copied; `None` while it grows or when a part is in a file.
    pub fn in_memory(&self) -> Option<Vec<Bytes>> {
        let store = self.0.lock();
        if store.state != State::Complete || store.file.is_some() {
            return None;
        }
        let mut chunks = store.head.to_vec();
        chunks.extend(store.tail.to_vec());
        Some(chunks)
    }

    /// At most `max` octets from `offset` that lie in memory in one piece, without waiting; empty when they do not.
    pub fn slice_in_memory(&self, offset: u64, max: usize) -> Bytes {
        match self.0.lock().locate(offset, max) {
            Place::Memory(octets) => octets,
            Place::File { .. } => Bytes::new(),
        }
    }

    /// Another, empty content under the same limits and the same budget.
    pub fn sibling(&self) -> (Writer, Self) {
        let budget = self.0.lock().memory.budget().clone();
        create(&budget, &self.0.limits)
    }

    fn dir(&self) -> PathBuf {
        self.0.limits.dir.clone()
    }
}

fn octets_in_step(available: u64, max: usize) -> usize {
    let max = max.min(FILE_READ_OCTETS_MAX);
    usize::try_from(available).unwrap_or(max).min(max)
}

async fn read_file(file: Arc<File>, offset: u64, len: usize) -> io::Result<Bytes> {
    let read = move || {
        let mut octets = vec![0; len];
        file.read_exact_at(&mut octets, offset)?;
        Ok(Bytes::from(octets))
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(io::Error::other)?
}
