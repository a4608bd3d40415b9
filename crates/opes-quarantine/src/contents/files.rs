//! Contents as files `FOLDER/EDGE/ID.ATTEMPT`.

use std::fs::{File, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::KEYS_MAX;
use crate::StoreError;

type Sender = mpsc::Sender<Result<Vec<String>, StoreError>>;

/// A folder.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    folder: PathBuf,
}

impl Files {
    /// Makes the folder, for its owner alone.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::set_permissions(folder, Permissions::from_mode(0o700)))
            .map_err(StoreError::file(folder))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    pub(super) async fn put(&self, key: &str, from: &Path) -> Result<u64, StoreError> {
        let (path, from) = (self.folder.join(key), from.to_owned());
        blocking(path, move |path| link(&from, path)).await
    }

    pub(super) async fn read(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        blocking(self.folder.join(key), move |path| {
            let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
            let mut octets = vec![0; len];
            File::open(path)?.read_exact_at(&mut octets, range.start)?;
            Ok(octets.into())
        })
        .await
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        blocking(self.folder.join(key), |path| {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        })
        .await
    }

    pub(super) fn older_than(&self, before: SystemTime, sender: Sender) {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(source) = walk(&folder, before, &sender) {
                let path = folder;
                let _ = sender.blocking_send(Err(StoreError::File { path, source }));
            }
        });
    }
}

async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let name = path.clone();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    done.map_err(io::Error::other)
        .flatten()
        .map_err(StoreError::file(&name))
}

/// A second name for the file, which costs no octets; a copy where the file systems differ.
fn link(from: &Path, path: &Path) -> io::Result<u64> {
    let folder = path
        .parent()
        .ok_or_else(|| io::Error::other("the key has no folder"))?;
    if !folder.exists() {
        std::fs::create_dir_all(folder)?;
        folder.parent().map_or(Ok(()), sync)?;
    }
    match std::fs::hard_link(from, path) {
        Ok(()) => {}
        Err(error) if is_other_volume(&error) => copy(from, path)?,
        Err(error) => return Err(error),
    }
    sync(folder)?;
    Ok(path.metadata()?.len())
}

fn is_other_volume(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::Unsupported
            | io::ErrorKind::TooManyLinks
    )
}

fn copy(from: &Path, path: &Path) -> io::Result<()> {
    let mut to = File::create_new(path)?;
    io::copy(&mut File::open(from)?, &mut to)?;
    to.set_permissions(Permissions::from_mode(0o600))?;
    to.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A key has no age of its own: a link has that of its file. So what counts is the time in its name (see `store::content_key`).
fn walk(folder: &Path, before: SystemTime, sender: &Sender) -> io::Result<()> {
    let mut batch = Vec::new();
    for edge in std::fs::read_dir(folder)? {
        let edge = edge?;
        if !edge.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(edge.path())? {
            let file = file?;
            let key = [edge.file_name(), file.file_name()].map(|name| name.into_string().ok());
            let [Some(edge), Some(name)] = key else {
                continue;
            };
            let key = format!("{edge}/{name}");
            if !crate::store::written_before(&key, before) {
                continue;
            }
            batch.push(key);
            if batch.len() >= KEYS_MAX
                && sender
                    .blocking_send(Ok(std::mem::take(&mut batch)))
                    .is_err()
            {
                return Ok(());
            }
        }
    }
    if !batch.is_empty() {
        let _ = sender.blocking_send(Ok(batch));
    }
    Ok(())
}
