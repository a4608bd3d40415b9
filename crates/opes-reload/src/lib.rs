//! Text files that are read again when they change.
//!
//! Owns the last good reading of one file, or of several that belong together ([`Reloaded`]), and tells when files or the
//! content of folders have changed and hold still ([`Watch`]). A missing, unreadable or malformed file is an error when it
//! is opened; later it is logged once per edit and the last good reading stays. Polling, not inotify: a mounted ConfigMap
//! changes by a symlink that a watch on the file does not see. Must not know what is in the files.

mod watch;

use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;

pub use crate::watch::{ENTRIES_MAX, Watch};

/// How often the file is looked at.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Largest file that is read, in octets.
pub const FILE_OCTETS_MAX: u64 = 32 << 20;

/// The last good reading of a file, or of several that are read together. Clones share it.
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

/// What happened at one look at the files.
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

type Parse<T> = dyn Fn(&[PathBuf], &[String]) -> Result<T, String> + Send + Sync;

struct Shared<T> {
    paths: Vec<PathBuf>,
    parse: Box<Parse<T>>,
    current: ArcSwap<T>,
    watch: Mutex<Watch>,
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
        Self::open_all([path.into()], move |[path], [text]| parse(path, text))
    }

    /// The same for files that make sense together only, such as a certificate and its key: a change of any of them reads
    /// them all. A pair that is changed one file after the other is refused and logged in between, and then taken.
    pub fn open_all<const N: usize, E: Display>(
        paths: [PathBuf; N],
        parse: impl Fn([&Path; N], [&str; N]) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::open(
            paths.into(),
            Box::new(move |paths, texts| {
                let all = |index: usize| (paths.get(index), texts.get(index));
                let path = |index| all(index).0.map_or(Path::new(""), PathBuf::as_path);
                let text = |index| all(index).1.map_or("", String::as_str);
                parse(std::array::from_fn(path), std::array::from_fn(text))
                    .map_err(|error| error.to_string())
            }),
        )?);
        let watched = Arc::downgrade(&shared);
        thread::Builder::new()
            .name("opes-reload".to_owned())
            .spawn(move || watch(&watched))
            .map_err(|reason| OpenError::NoThread {
                path: shared.name(),
                reason,
            })?;
        Ok(Self { shared })
    }

    /// The last good reading.
    pub fn current(&self) -> Arc<T> {
        self.shared.current.load_full()
    }

    /// Looks at the files now. A change is taken at the second look that finds the same state, so that a file that is just
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
            .field("paths", &self.shared.paths)
            .finish_non_exhaustive()
    }
}

// === impl Shared ===

impl<T> Shared<T> {
    fn open(paths: Vec<PathBuf>, parse: Box<Parse<T>>) -> Result<Self, OpenError> {
        // Before the reading: an edit in between is then seen as one.
        let watch = Mutex::new(Watch::new(paths.clone()));
        let texts = paths
            .iter()
            .map(|path| {
                read(path).map_err(|reason| OpenError::Unreadable {
                    path: path.clone(),
                    reason,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let first = parse(&paths, &texts).map_err(OpenError::Malformed)?;
        Ok(Self {
            paths,
            parse,
            current: ArcSwap::from_pointee(first),
            watch,
        })
    }

    fn look(&self) -> Look {
        // Held across the reading: two looks at once must not store in the wrong order.
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        match watch.look() {
            Look::Taken => self.take(),
            look => look,
        }
    }

    fn take(&self) -> Look {
        let named =
            |path: &PathBuf| read(path).map_err(|reason| format!("{}: {reason}", path.display()));
        let texts: Result<Vec<_>, _> = self.paths.iter().map(named).collect();
        match texts.and_then(|texts| (self.parse)(&self.paths, &texts)) {
            Ok(fresh) => {
                self.current.store(Arc::new(fresh));
                tracing::info!(file = %self.name().display(), "file read again");
                Look::Taken
            }
            Err(error) => {
                tracing::error!(%error, "changed file refused; the last good version stays in force");
                Look::Refused
            }
        }
    }

    /// The first file stands for all.
    fn name(&self) -> PathBuf {
        self.paths.first().cloned().unwrap_or_default()
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

#[cfg(test)]
mod tests;
