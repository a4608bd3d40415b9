//! A disk that forgets. Files are real ones in a temporary folder: what is in them is what the system would show a running process.
//! What was written and not synced is noted beside them, and taken back in part when the power is cut.
//!
//! A kill keeps everything; a power cut keeps what was synced and, as the seed will have it, nothing, a prefix, or any sectors of the rest.
//! New and removed names count as written too, until their folder is synced.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opes_host::Random;
use opes_spool::{Disk, SystemDisk};

/// What a disk writes whole or not at all.
const SECTOR_OCTETS: usize = 512;

/// Octets free when nothing is said.
const FREE_OCTETS: u64 = 1 << 40;

/// The medium: outlives every process that uses it.
#[derive(Debug)]
pub(crate) struct Medium {
    state: Mutex<State>,
    random: Random,
    /// Removed files whose removal is not durable.
    trash: PathBuf,
    latency: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// Of the process that may use it; others were killed.
    life: u64,
    operations: u64,
    /// The process dies within this operation.
    fatal_operation: Option<u64>,
    /// Of the process: set when it dies here, so that nobody hears of it.
    dead: Arc<AtomicBool>,
    /// Octets that a new file may have, if there is little space.
    low: Option<u64>,
    failing_syncs: u32,
    /// The known bug: says that data is on disk when it is not.
    lies: bool,
    paths: HashMap<u64, PathBuf>,
    unsynced: BTreeMap<PathBuf, Vec<Write>>,
    names: Vec<Name>,
    removed: u64,
}

#[derive(Debug)]
struct Write {
    offset: u64,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// A change of a folder that is not durable.
#[derive(Debug)]
enum Name {
    Created(PathBuf),
    Removed { path: PathBuf, kept: PathBuf },
    Renamed { from: PathBuf, to: PathBuf },
}

/// The medium as one process sees it.
#[derive(Debug)]
pub(crate) struct ProcessDisk {
    medium: Arc<Medium>,
    life: u64,
}

// === impl Medium ===

impl Medium {
    pub(crate) fn new(trash: PathBuf, random: Random, latency: Duration, lies: bool) -> Self {
        let state = State {
            lies,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            random,
            trash,
            latency,
        }
    }

    /// For a process that starts, and is dead when that says so.
    pub(crate) fn attach(self: &Arc<Self>, dead: &Arc<AtomicBool>) -> ProcessDisk {
        let mut state = self.state();
        state.life += 1;
        state.dead = Arc::clone(dead);
        state.fatal_operation = None;
        ProcessDisk {
            medium: Arc::clone(self),
            life: state.life,
        }
    }

    /// The process that uses it is no more. With `power`, neither is what was not synced.
    pub(crate) fn cut(&self, power: bool) {
        let mut state = self.state();
        state.life += 1;
        if !power {
            return;
        }
        for name in std::mem::take(&mut state.names).into_iter().rev() {
            self.forget_name(name);
        }
        for (path, writes) in std::mem::take(&mut state.unsynced) {
            self.forget_writes(&path, &writes);
        }
        state.paths.clear();
    }

    /// The process is to die within the operation that is `ahead` ones from now.
    pub(crate) fn die_after(&self, ahead: u64) {
        let mut state = self.state();
        state.fatal_operation = Some(state.operations + ahead);
    }

    pub(crate) fn never_die(&self) {
        self.state().fatal_operation = None;
    }

    /// The fatal operation was reached.
    pub(crate) fn has_died(&self) -> bool {
        self.state().dead.load(Ordering::Relaxed)
    }

    pub(crate) fn set_low(&self, octets: Option<u64>) {
        self.state().low = octets;
    }

    pub(crate) fn fail_syncs(&self, count: u32) {
        self.state().failing_syncs = count;
    }

    fn forget_writes(&self, path: &Path, writes: &[Write]) {
        // A file that was removed since needs nothing.
        let Ok(file) = OpenOptions::new().write(true).open(path) else {
            return;
        };
        for write in writes.iter().rev() {
            put(&file, &write.before, write.offset);
        }
        let mode = self.random.below(3);
        let prefix = self.random.below(writes.len() as u64 + 1);
        for (index, write) in (0..).zip(writes) {
            for (sector, octets) in (0..).zip(write.after.chunks(SECTOR_OCTETS)) {
                let kept = match mode {
                    0 => false,
                    1 => index < prefix,
                    _ => self.random.below(2) == 0,
                };
                if kept {
                    put(&file, octets, write.offset + sector * SECTOR_OCTETS as u64);
                }
            }
        }
    }

    fn forget_name(&self, name: Name) {
        let forgotten = self.random.below(2) == 0;
        // What is not there any more needs no care.
        let _ = match name {
            Name::Created(path) if forgotten => std::fs::remove_file(path),
            Name::Renamed { from, to } if forgotten => std::fs::rename(to, from),
            Name::Created(_) | Name::Renamed { .. } => Ok(()),
            Name::Removed { path, kept } if forgotten => std::fs::rename(kept, path),
            Name::Removed { kept, .. } => std::fs::remove_file(kept),
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(file: &File, octets: &[u8], offset: u64) {
    file.write_all_at(octets, offset)
        .expect("a temporary file can be written");
}

fn power_is_off() -> io::Error {
    io::Error::other("the process was killed")
}

// === impl State ===

impl State {
    /// Counts an operation of the process of `life`; false: it dies within this one.
    fn begin(&mut self, life: u64) -> io::Result<bool> {
        if life != self.life {
            return Err(power_is_off());
        }
        self.operations += 1;
        if self.fatal_operation == Some(self.operations) {
            self.life += 1;
            self.dead.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        Ok(true)
    }

    fn begin_whole(&mut self, life: u64) -> io::Result<()> {
        if self.begin(life)? {
            Ok(())
        } else {
            Err(power_is_off())
        }
    }

    fn path_of(&self, file: &File) -> io::Result<PathBuf> {
        let inode = file.metadata()?.ino();
        self.paths
            .get(&inode)
            .cloned()
            .ok_or_else(|| io::Error::other("a file that was not created here"))
    }
}

// === impl ProcessDisk ===

impl ProcessDisk {
    fn sync(&self, file: &File) -> io::Result<()> {
        let mut state = self.medium.state();
        state.begin_whole(self.life)?;
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            return Err(io::Error::other("medium error"));
        }
        let path = state.path_of(file)?;
        if !state.lies {
            state.unsynced.remove(&path);
        }
        Ok(())
    }
}

impl Disk for ProcessDisk {
    fn create(&self, path: &Path, octets: u64) -> io::Result<File> {
        let mut state = self.medium.state();
        state.begin_whole(self.life)?;
        if state.low.is_some_and(|low| octets > low) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = SystemDisk.create(path, octets)?;
        let inode = file.metadata()?.ino();
        state.paths.insert(inode, path.to_owned());
        state.names.push(Name::Created(path.to_owned()));
        Ok(file)
    }

    fn write_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut state = self.medium.state();
        let alive = state.begin(self.life)?;
        let mut after: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        if !alive {
            let some = self.medium.random.below(after.len() as u64 + 1);
            after.truncate(usize::try_from(some).unwrap_or(0));
        }
        let len = file.metadata()?.len();
        if state.low.is_some() && offset + after.len() as u64 > len {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut before = vec![0; after.len()];
        let there = usize::try_from(len.saturating_sub(offset)).unwrap_or(0);
        let there = there.min(before.len());
        file.read_exact_at(&mut before[..there], offset)?;
        file.write_all_at(&after, offset)?;
        let (path, written) = (state.path_of(file)?, after.len());
        let write = Write {
            offset,
            before,
            after,
        };
        state.unsynced.entry(path).or_default().push(write);
        if alive {
            Ok(written)
        } else {
            Err(power_is_off())
        }
    }

    fn set_len(&self, file: &File, octets: u64) -> io::Result<()> {
        self.medium.state().begin_whole(self.life)?;
        file.set_len(octets)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.sync(file)
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        self.sync(file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.medium.state();
        state.begin_whole(self.life)?;
        if state.lies {
            return Ok(());
        }
        let is_in = |path: &Path| path.parent() == Some(dir);
        state.names.retain(|name| match name {
            Name::Created(path) | Name::Renamed { to: path, .. } => !is_in(path),
            Name::Removed { path, kept } if is_in(path) => {
                // Nobody can see whether it is still there.
                let _ = std::fs::remove_file(kept);
                false
            }
            Name::Removed { .. } => true,
        });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.medium.state();
        state.begin_whole(self.life)?;
        std::fs::rename(from, to)?;
        if let Some(writes) = state.unsynced.remove(from) {
            state.unsynced.insert(to.to_owned(), writes);
        }
        for path in state.paths.values_mut().filter(|path| *path == from) {
            to.clone_into(path);
        }
        let (from, to) = (from.to_owned(), to.to_owned());
        state.names.push(Name::Renamed { from, to });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.medium.state();
        state.begin_whole(self.life)?;
        state.removed += 1;
        let kept = self.medium.trash.join(state.removed.to_string());
        match std::fs::rename(path, &kept) {
            Ok(()) => {
                let path = path.to_owned();
                state.names.push(Name::Removed { path, kept });
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn free_octets(&self, _dir: &Path) -> io::Result<u64> {
        let mut state = self.medium.state();
        state.begin_whole(self.life)?;
        Ok(state.low.unwrap_or(FREE_OCTETS))
    }

    fn in_tasks(&self) -> Option<Duration> {
        Some(self.medium.latency)
    }
}
