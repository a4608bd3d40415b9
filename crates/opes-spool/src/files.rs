//! Files beside the spool that must not be lost either: whole or not at all, and durable when we say so. Through the same [`Disk`].

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use opes_content::{FILE_READ_OCTETS_MAX, View};

use crate::disk::{Disk, run_blocking, write_all_at};

/// Writes files on the disk of a spool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files(Arc<dyn Disk>);

impl Files {
    /// On `disk`.
    pub fn on(disk: Arc<dyn Disk>) -> Self {
        Self(disk)
    }

    /// Makes a folder, and those above it.
    pub async fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_owned();
        self.run(move |_| std::fs::create_dir_all(dir)).await
    }

    /// Writes what `view` shows to `aside`, syncs it, and renames it to `name`. The name is durable after [`Files::sync_dir`].
    pub async fn publish(&self, view: &View, aside: &Path, name: &Path) -> io::Result<()> {
        let path = aside.to_owned();
        let file = self.run(move |disk| {
            // What a crash has left there is nobody's.
            disk.remove(&path)?;
            disk.create(&path, 0)
        });
        let file = Arc::new(file.await?);
        let mut offset = 0;
        while view.len() != Some(offset) {
            let octets = view.read_at(offset, FILE_READ_OCTETS_MAX).await?;
            if octets.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (file, at) = (Arc::clone(&file), offset);
            offset += octets.len() as u64;
            self.run(move |disk| write_all_at(disk, &file, &mut [IoSlice::new(&octets)], at))
                .await?;
        }
        let (aside, name) = (aside.to_owned(), name.to_owned());
        self.run(move |disk| {
            disk.sync_all(&file)?;
            disk.rename(&aside, &name)
        })
        .await
    }

    /// As [`Files::publish`], for octets.
    pub async fn publish_octets(
        &self,
        octets: impl Into<Bytes>,
        aside: &Path,
        name: &Path,
    ) -> io::Result<()> {
        let (octets, aside, name) = (octets.into(), aside.to_owned(), name.to_owned());
        self.run(move |disk| {
            disk.remove(&aside)?;
            let file = disk.create(&aside, 0)?;
            write_all_at(disk, &file, &mut [IoSlice::new(&octets)], 0)?;
            disk.sync_all(&file)?;
            disk.rename(&aside, &name)
        })
        .await
    }

    /// Removes files, in this order. It is no error when one is not there.
    pub async fn remove(&self, paths: Vec<PathBuf>) -> io::Result<()> {
        self.run(move |disk| paths.iter().try_for_each(|path| disk.remove(path)))
            .await
    }

    /// Makes new, renamed and removed names in `dir` durable.
    pub async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_owned();
        self.run(move |disk| disk.sync_dir(&dir)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Disk) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let disk = Arc::clone(&self.0);
        run_blocking(&*self.0, move || work(&*disk)).await.flatten()
    }
}
