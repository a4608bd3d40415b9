//! Tells when files, or the files in a folder, have changed and hold still. Reads none of them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::Look;

/// Entries of one folder that are watched; a change of any beyond is not seen.
pub const ENTRIES_MAX: usize = 10_000;

/// Some files and folders under watch; of a folder, what is directly in it.
///
/// For what is not one text: the owner calls [`Watch::look`] every [`POLL_INTERVAL`](crate::POLL_INTERVAL) and reads when it
/// says so.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    /// The state that the owner has read.
    handled: Stamps,
    /// The state at the last look.
    seen: Stamps,
}

type Stamps = Vec<(PathBuf, Option<Stamp>)>;

/// Two equal stamps: the same content, as far as can be told without reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    octets: u64,
    modified: (i64, i64),
}

// === impl Watch ===

impl Watch {
    /// What is there now counts as read, so read after this.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let now = stamps(&paths);
        Self {
            paths,
            handled: now.clone(),
            seen: now,
        }
    }

    /// [`Look::Taken`]: read now. Said once for each change, at the second look that finds the same state, so that a file
    /// that is just being written is not read half. Never [`Look::Refused`].
    pub fn look(&mut self) -> Look {
        let now = stamps(&self.paths);
        if now == self.handled {
            self.seen = now;
            return Look::Unchanged;
        }
        if now != self.seen {
            self.seen = now;
            return Look::Changing;
        }
        self.handled = now;
        Look::Taken
    }
}

/// `None`: it is not there.
fn stamps(paths: &[PathBuf]) -> Stamps {
    let mut found = Vec::new();
    for path in paths {
        let Ok(entries) = fs::read_dir(path) else {
            found.push((path.clone(), Stamp::of(path)));
            continue;
        };
        let mut inside: Stamps = entries
            .take(ENTRIES_MAX)
            .flatten()
            .map(|entry| (entry.path(), Stamp::of(&entry.path())))
            .collect();
        inside.sort_by(|(one, _), (other, _)| one.cmp(other));
        found.append(&mut inside);
    }
    found
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
