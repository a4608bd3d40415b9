//! Objects as files `FOLDER/objects/DAY/EXPIRES.ID`, for the service's user alone.
//!
//! A file is written in `FOLDER/incoming`, synced, and moved to its name.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

use super::{ABOUT_OCTETS_MAX, ABOUT_SUFFIX, StoreError};
use crate::link::Key;

/// A draft that nobody has written to for so long is left from a process that was killed.
const DRAFT_AGE_MAX: Duration = Duration::from_hours(24);

/// A folder.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// A file that is being written.
#[derive(Debug)]
pub struct FolderUpload {
    folder: Folder,
    file: tokio::fs::File,
    draft: Draft,
}

/// Removed when dropped, unless it was moved.
#[derive(Debug)]
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // One that was moved is not there any more.
        let _ = std::fs::remove_file(&self.0);
    }
}

// === impl Folder ===

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        for folder in [path, &path.join("incoming"), &path.join("objects")] {
            std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::set_permissions(folder, Permissions::from_mode(0o700)))
                .map_err(at(folder))?;
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    pub(super) async fn begin(&self) -> Result<FolderUpload, StoreError> {
        let draft = self.draft()?;
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&draft.0).await.map_err(at(&draft.0))?;
        Ok(FolderUpload {
            folder: self.clone(),
            file,
            draft,
        })
    }

    fn draft(&self) -> Result<Draft, StoreError> {
        let incoming = self.path.join("incoming");
        let name = Key::random(0).map(super::name);
        let name = name.map_err(|error| at(&incoming)(io::Error::other(error)))?;
        Ok(Draft(incoming.join(name)))
    }

    fn object(&self, key: Key) -> PathBuf {
        let day = self.path.join("objects").join(super::day(key.expires));
        day.join(super::name(key))
    }

    fn about_path(&self, key: Key) -> PathBuf {
        let mut path = self.object(key).into_os_string();
        path.push(ABOUT_SUFFIX);
        path.into()
    }

    pub(super) async fn about(&self, key: Key) -> Result<Option<Vec<u8>>, StoreError> {
        blocking(self.about_path(key), |path| {
            let file = match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            let mut octets = Vec::new();
            file.take(ABOUT_OCTETS_MAX).read_to_end(&mut octets)?;
            Ok(Some(octets))
        })
        .await
    }

    pub(super) async fn read(&self, key: Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        blocking(self.object(key), move |path| {
            let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
            let mut octets = vec![0; len];
            File::open(path)?.read_exact_at(&mut octets, range.start)?;
            Ok(octets.into())
        })
        .await
    }

    pub(super) async fn delete(&self, key: Key) -> Result<(), StoreError> {
        // What is said of it first: a page never shows what cannot be had.
        for path in [self.about_path(key), self.object(key)] {
            blocking(path, gone).await?;
        }
        Ok(())
    }

    pub(super) async fn sweep(&self, now: u64, max: usize) -> Result<usize, StoreError> {
        blocking(self.path.clone(), move |path| sweep(path, now, max)).await
    }
}

// === impl FolderUpload ===

impl FolderUpload {
    pub(super) async fn write(&mut self, octets: &[u8]) -> Result<(), StoreError> {
        let written = self.file.write_all(octets).await;
        written.map_err(at(&self.draft.0))
    }

    pub(super) async fn finish(mut self, key: Key, about: Vec<u8>) -> Result<(), StoreError> {
        self.file.flush().await.map_err(at(&self.draft.0))?;
        let file = self.file.into_std().await;
        let (draft, about_draft) = (self.draft, self.folder.draft()?);
        let about_path = self.folder.about_path(key);
        blocking(self.folder.object(key), move |path| {
            file.sync_all()?;
            let day = path.parent().unwrap_or(path);
            make_day(day)?;
            std::fs::rename(&draft.0, path)?;
            let mut options = File::options();
            let options = options.write(true).create_new(true).mode(0o600);
            let mut file = options.open(&about_draft.0)?;
            file.write_all(&about)?;
            file.sync_all()?;
            // The octets have their name before what is said of them has its own.
            sync(day)?;
            std::fs::rename(&about_draft.0, about_path)?;
            sync(day)
        })
        .await
    }
}

fn make_day(day: &Path) -> io::Result<()> {
    match std::fs::create_dir(day) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    }
    std::fs::set_permissions(day, Permissions::from_mode(0o700))?;
    day.parent().map_or(Ok(()), sync)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn gone(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sweep(path: &Path, now: u64, max: usize) -> io::Result<usize> {
    let mut removed = 0;
    for day in std::fs::read_dir(path.join("objects"))? {
        let day = day?;
        let name = day.file_name();
        if !name
            .to_str()
            .is_some_and(|day| super::may_have_expired(day, now))
        {
            continue;
        }
        for file in std::fs::read_dir(day.path())? {
            let file = file?;
            let name = file.file_name();
            let expires = name.to_str().and_then(super::expires);
            if removed < max && expires.is_some_and(|expires| expires <= now) {
                gone(&file.path())?;
                removed += 1;
            }
        }
        // Nothing new can come into the folder of a day that is over; one that is not empty stays.
        if name.to_str().is_some_and(|day| super::is_over(day, now)) {
            let _ = std::fs::remove_dir(day.path());
        }
    }
    for draft in std::fs::read_dir(path.join("incoming"))? {
        let draft = draft?;
        let Ok(written) = draft.metadata().and_then(|file| file.modified()) else {
            continue;
        };
        let age = SystemTime::now()
            .duration_since(written)
            .unwrap_or_default();
        if removed < max && age > DRAFT_AGE_MAX {
            gone(&draft.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn at(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File {
        path: path.clone(),
        source,
    }
}

async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let name = path.clone();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    done.map_err(io::Error::other).flatten().map_err(at(&name))
}
