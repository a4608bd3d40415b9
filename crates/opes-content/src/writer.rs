//! The receiving side of a message. One writer; dropping it without [`Writer::finish`] aborts the message.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Budget;
use crate::chunks::Chunks;
use crate::content::{Content, Shared, State, Store};
use crate::{ContentError, WRITE_BEHIND_OCTETS};

/// Limits of one message.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Octets of a message that stay in memory; the rest goes to an unlinked file, apart from a last
    /// [`WRITE_BEHIND_OCTETS`] that are on their way there.
    pub memory_max: usize,
    /// Where temporary files are made. They have no name: a crash leaves nothing behind.
    pub dir: PathBuf,
    /// Octets a message may have.
    pub size_max: u64,
}

/// Takes the octets of one message.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    finished: bool,
}

/// A message without octets, and the means to give it some.
pub fn create(budget: &Budget, limits: &Arc<Limits>) -> (Writer, Content) {
    let shared = Arc::new(Shared::new(Arc::clone(limits), budget.reservation()));
    let writer = Writer {
        shared: Arc::clone(&shared),
        finished: false,
    };
    (writer, Content::new(shared))
}

// === impl Limits ===

impl Limits {
    /// 128 KiB in memory, 50 MiB at most, temporary files in `dir`.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self {
            memory_max: 128 * 1024,
            dir: dir.into(),
            size_max: 50 * 1024 * 1024,
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Adds `octets` at the end; readers see them at once. Does not wait while they fit into memory. Otherwise waits for the disk,
    /// which is what slows a client down that sends faster than we can keep.
    /// After an error the message cannot be completed: drop the writer.
    pub async fn append(&mut self, octets: Bytes) -> Result<(), ContentError> {
        if octets.is_empty() {
            return Ok(());
        }
        let must_write = self.push(octets)?;
        self.shared.wake_readers();
        if must_write {
            self.write_tail().await?;
        }
        Ok(())
    }

    /// All octets have come.
    pub fn finish(mut self) {
        self.finished = true;
        self.end(State::Complete);
    }

    /// Octets so far.
    pub fn len_now(&self) -> u64 {
        self.shared.lock().len()
    }

    /// True when the tail must go to the file before more is taken.
    fn push(&self, octets: Bytes) -> Result<bool, ContentError> {
        let limits = &self.shared.limits;
        let len = octets.len() as u64;
        let mut store = self.shared.lock();
        if store.len().saturating_add(len) > limits.size_max {
            return Err(ContentError::TooLarge {
                max: limits.size_max,
            });
        }
        let within_budget = store.memory.grow(len);
        if within_budget && store.stays_in_memory(len, limits.memory_max) {
            store.head.push(octets);
            return Ok(false);
        }
        if store.tail.end() == 0 {
            store.tail = Chunks::starting_at(store.head.end());
        }
        store.tail.push(octets);
        Ok(!within_budget || store.tail.len() >= WRITE_BEHIND_OCTETS as u64)
    }

    /// Writes at the offset where the tail belongs, so a caller that gave up waiting and comes again repeats the same octets.
    async fn write_tail(&mut self) -> Result<(), ContentError> {
        let (file, chunks, offset) = {
            let store = self.shared.lock();
            let offset = store.tail.start() - store.head.end();
            (store.file.clone(), store.tail.to_vec(), offset)
        };
        let dir = self.shared.limits.dir.clone();
        let write = move || write_chunks(file, &dir, &chunks, offset);
        let written = tokio::task::spawn_blocking(write)
            .await
            .map_err(io::Error::other);
        let file = written.flatten().map_err(|source| ContentError::Spill {
            dir: self.shared.limits.dir.clone(),
            source,
        })?;
        self.shared.lock().tail_is_in(file);
        Ok(())
    }

    fn end(&self, state: State) {
        self.shared.lock().state = state;
        self.shared.wake_readers();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            self.end(State::Aborted);
        }
    }
}

// === impl Store ===

impl Store {
    fn stays_in_memory(&self, more: u64, memory_max: usize) -> bool {
        self.tail.end() == 0 && self.head.len().saturating_add(more) <= memory_max as u64
    }

    fn tail_is_in(&mut self, file: Arc<File>) {
        self.file = Some(file);
        self.memory.shrink(self.tail.len());
        self.tail = Chunks::starting_at(self.tail.end());
    }
}

fn write_chunks(
    file: Option<Arc<File>>,
    dir: &Path,
    chunks: &[Bytes],
    mut offset: u64,
) -> io::Result<Arc<File>> {
    let file = match file {
        Some(file) => file,
        None => Arc::new(tempfile::tempfile_in(dir)?),
    };
    for chunk in chunks {
        file.write_all_at(chunk, offset)?;
        offset += chunk.len() as u64;
    }
    Ok(file)
}
