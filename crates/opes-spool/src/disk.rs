//! Everything the spool does to a disk that matters for durability, behind one trait, so that tests can make it fail and a
//! simulation can forget what was not synced.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::Duration;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Most slices one `pwritev` takes (`IOV_MAX` of Linux).
const SLICES_MAX: usize = 1024;

/// The operations whose order recovery relies on. Files are read directly.
pub trait Disk: fmt::Debug + Send + Sync {
    /// A new file with `octets` reserved, so that later writes cannot run out of space.
    fn create(&self, path: &Path, octets: u64) -> io::Result<File>;
    /// Writes some of `slices` at `offset`; gives the octets written.
    fn write_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Changes the size of a file.
    fn set_len(&self, file: &File, octets: u64) -> io::Result<()>;
    /// `fdatasync`.
    fn sync_data(&self, file: &File) -> io::Result<()>;
    /// `fsync`.
    fn sync_all(&self, file: &File) -> io::Result<()>;
    /// `fsync` of a directory: makes new and removed names durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives a file another name in its folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name; it is no error when there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Octets this user can still write.
    fn free_octets(&self, dir: &Path) -> io::Result<u64>;
    /// `None`: its operations block, so the spool does them on threads. `Some`: they do not, so the spool does them in tasks of the runtime
    /// it is opened in, and waits this long before each commit and read.
    fn in_tasks(&self) -> Option<Duration> {
        None
    }
}

/// The system's.
#[derive(Debug)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create(&self, path: &Path, octets: u64) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        if octets == 0 {
            return Ok(file);
        }
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, octets) {
            // Not every file system can reserve; then the size alone saves a size change per commit.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(octets)?,
            other => other?,
        }
        Ok(file)
    }

    fn write_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let slices = slices.get(..SLICES_MAX).unwrap_or(slices);
        Ok(rustix::io::pwritev(file, slices, offset)?)
    }

    fn set_len(&self, file: &File, octets: u64) -> io::Result<()> {
        file.set_len(octets)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn free_octets(&self, dir: &Path) -> io::Result<u64> {
        let volume = rustix::fs::statvfs(dir)?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }
}

/// Work that may block, off the runtime's threads; on a disk that does not block, at once.
pub(crate) async fn run_blocking<T: Send + 'static>(
    disk: &dyn Disk,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    match disk.in_tasks() {
        None => tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other),
        Some(latency) => {
            tokio::time::sleep(latency).await;
            Ok(work())
        }
    }
}

/// All of `slices` at `offset`.
pub(crate) fn write_all_at(
    disk: &dyn Disk,
    file: &File,
    mut slices: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    while !slices.is_empty() {
        match disk.write_at(file, slices, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
