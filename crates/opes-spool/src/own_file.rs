//! Contents too large to share a segment: a file each in `big/`, complete and synced before the record that names it.

use std::fs::File;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use opes_content::{FILE_READ_OCTETS_MAX, View};

use crate::disk::{Disk, run_blocking, write_all_at};
use crate::spool::Shared;
use crate::{QueueId, SpoolError};

/// A file that is removed again unless it is kept.
pub(crate) struct OwnFile {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    kept: bool,
}

/// Name of the own file of `id` in the spool directory `dir`.
pub(crate) fn own_file_path(dir: &Path, id: &QueueId) -> PathBuf {
    dir.join(OWN_FILES).join(id.to_string())
}

/// The folder of own files.
pub(crate) const OWN_FILES: &str = "big";

// === impl OwnFile ===

impl OwnFile {
    /// Writes `len` octets of `view` and syncs the file; its name is made durable by the commit.
    pub(crate) async fn write(
        shared: &Arc<Shared>,
        id: &QueueId,
        view: &View,
        len: u64,
    ) -> Result<Self, SpoolError> {
        let path = shared.own_file_path(id);
        let disk = Arc::clone(&shared.disk);
        let create = {
            let (shared, path) = (Arc::clone(shared), path.clone());
            move || shared.create_own_file(&path, len)
        };
        let file = Arc::new(blocking(&*disk, create, &path).await?);
        let own = Self {
            path,
            disk,
            kept: false,
        };
        let mut offset = 0;
        while offset < len {
            let octets = view.read_at(offset, FILE_READ_OCTETS_MAX).await?;
            let written = octets.len() as u64;
            if written == 0 {
                return Err(opes_content::ContentError::OutOfRange { offset, len }.into());
            }
            own.append(&file, octets, offset).await?;
            offset += written;
        }
        own.sync(file).await?;
        Ok(own)
    }

    async fn append(&self, file: &Arc<File>, octets: Bytes, at: u64) -> Result<(), SpoolError> {
        let (file, disk) = (Arc::clone(file), Arc::clone(&self.disk));
        let path = self.path.clone();
        let write = move || {
            write_all_at(&*disk, &file, &mut [IoSlice::new(&octets)], at)
                .map_err(SpoolError::write(&path))
        };
        blocking(&*self.disk, write, &self.path).await
    }

    async fn sync(&self, file: Arc<File>) -> Result<(), SpoolError> {
        let disk = Arc::clone(&self.disk);
        let path = self.path.clone();
        let sync = move || disk.sync_all(&file).map_err(SpoolError::sync(&path));
        blocking(&*self.disk, sync, &self.path).await
    }

    /// The message is in the spool: the file stays.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if !self.kept {
            // Left behind it would be removed by the next recovery: no record names it.
            let _ = self.disk.remove(&self.path);
        }
    }
}

async fn blocking<T: Send + 'static>(
    disk: &dyn Disk,
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
    path: &Path,
) -> Result<T, SpoolError> {
    let done = run_blocking(disk, work).await;
    done.map_err(SpoolError::write(path)).flatten()
}
