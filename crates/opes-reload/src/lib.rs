//! A text file that is read again when it changes.
//!
//! Owns the last good reading of one file. A missing, unreadable or malformed file is an error when it is opened; later it
//! is logged once per edit and the last good reading stays. Polling, not inotify: a mounted ConfigMap changes by a symlink
//! that a watch on the file does not see. Must not know what is in the file.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;

/// How often the file is looked at.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Largest file that is read, in octets.
pub const FILE_OCTETS_MAX: u64 = 32 << 20;

/// The last good reading of a file. Clones share it.
pub struct Reloaded<T> {
    shared: Arc<Shared<T>>,
}

/// Why there is no first reading.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Missing, not permitted, too large, or not UTF-8.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// As configured.
        path: PathBuf,
        /// From the operating system, or ours.
        reason: String,
    },
    /// The parser refused it; its message names file and line.
    #[error("{0}")]
    Malformed(String),
    /// No thread for the polling.
    #[error("no thread to watch {}: {reason}", path.display())]
    NoThread {
        /// As configured.
        path: PathBuf,
        /// From the operating system.
        reason: std::io::Error,
    },
}

/// What happened at one look at the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// As before.
    Unchanged,
    /// Changed since the last look; read at the next one if it holds still until then.
    Changing,
    /// Read anew.
    Taken,
    /// Read anew and refused; the last good reading stays.
    Refused,
}

type Parse<T> = dyn Fn(&Path, &str) -> Result<T, String> + Send + Sync;

struct Shared<T> {
    path: PathBuf,
    parse: Box<Parse<T>>,
    current: ArcSwap<T>,
    progress: Mutex<Progress>,
}

/// Which state of the file has been dealt with, and which was seen last. `None`: the file is not there.
struct Progress {
    handled: Option<Stamp>,
    seen: Option<Stamp>,
}

/// Two equal stamps: the same content, as far as can be told without reading.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    octets: u64,
    modified: (i64, i64),
}

// === impl Reloaded ===

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads `path` now and looks at it every [`POLL_INTERVAL`] until the last clone is dropped.
    ///
    /// `parse` gets the path for its messages and the text; its error should name file, line and remedy.
    pub fn open<E: Display>(
        path: impl Into<PathBuf>,
        parse: impl Fn(&Path, &str) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::open(
            path.into(),
            Box::new(move |path, text| parse(path, text).map_err(|error| error.to_string())),
        )?);
        let watched = Arc::downgrade(&shared);
        thread::Builder::new()
            .name("opes-reload".to_owned())
            .spawn(move || watch(&watched))
            .map_err(|reason| OpenError::NoThread {
                path: shared.path.clone(),
                reason,
            })?;
        Ok(Self { shared })
    }

    /// The last good reading.
    pub fn current(&self) -> Arc<T> {
        self.shared.current.load_full()
    }

    /// Looks at the file now. A change is taken at the second look that finds the same state, so that a file that is just
    /// being written is not read half.
    pub fn look(&self) -> Look {
        self.shared.look()
    }
}

impl<T> Clone for Reloaded<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> std::fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloaded")
            .field("path", &self.shared.path)
            .finish_non_exhaustive()
    }
}

// === impl Shared ===

impl<T> Shared<T> {
    fn open(path: PathBuf, parse: Box<Parse<T>>) -> Result<Self, OpenError> {
        let stamp = Stamp::of(&path);
        let text = read(&path).map_err(|reason| OpenError::Unreadable {
            path: path.clone(),
            reason,
        })?;
        let first = parse(&path, &text).map_err(OpenError::Malformed)?;
        let progress = Mutex::new(Progress {
            handled: stamp,
            seen: stamp,
        });
        Ok(Self {
            path,
            parse,
            current: ArcSwap::from_pointee(first),
            progress,
        })
    }

    fn look(&self) -> Look {
        // Held across the reading: two looks at once must not store in the wrong order.
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(&self.path);
        if stamp == progress.handled {
            progress.seen = stamp;
            return Look::Unchanged;
        }
        if stamp != progress.seen {
            progress.seen = stamp;
            return Look::Changing;
        }
        progress.handled = stamp;
        self.take()
    }

    fn take(&self) -> Look {
        let fresh = read(&self.path)
            .map_err(|reason| format!("{}: {reason}", self.path.display()))
            .and_then(|text| (self.parse)(&self.path, &text));
        match fresh {
            Ok(fresh) => {
                self.current.store(Arc::new(fresh));
                tracing::info!(file = %self.path.display(), "file read again");
                Look::Taken
            }
            Err(error) => {
                tracing::error!(%error, "changed file refused; the last good version stays in force");
                Look::Refused
            }
        }
    }
}

fn watch<T>(watched: &Weak<Shared<T>>) {
    loop {
        thread::sleep(POLL_INTERVAL);
        let Some(shared) = watched.upgrade() else {
            return;
        };
        shared.look();
    }
}

fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    // One octet more tells a file of exactly the limit from one beyond it.
    file.take(FILE_OCTETS_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(format!("larger than {} MiB", FILE_OCTETS_MAX >> 20));
    }
    Ok(text)
}

// === impl Stamp ===

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            octets: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests;
