//! Where attachments are kept until their links expire: a [`folder`] or a [`bucket`].
//!
//! An object is two things under `DAY/EXPIRES.ID`: its octets, and beside them (`.json`) what a page says of it, written last. So an object that
//! is known has all its octets, durably. The day and the second in which it expires are in its name: what is over is found by looking at
//! names alone, and there is no index to lose. Fails with [`StoreError`]; nothing here waits longer than the store's own timeouts.

mod bucket;
mod folder;

use std::ops::Range;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::StoreConfig;
use crate::link::Key;
pub use bucket::{Bucket, BucketUpload};
pub use folder::{Folder, FolderUpload};

/// Most octets of one [`Store::read`].
pub const READ_OCTETS_MAX: u64 = 512 * 1024;
/// Most octets of what is said of an object.
const ABOUT_OCTETS_MAX: u64 = 64 * 1024;
const DAY_SECONDS: u64 = 24 * 3600;
/// Ends the name of what is said of an object.
const ABOUT_SUFFIX: &str = ".json";

/// What is said of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// File name, as the mail had it.
    pub name: String,
    /// Media type, as the mail had it.
    #[serde(rename = "type")]
    pub kind: String,
    /// Octets.
    pub size: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

/// A store; clones share it.
#[derive(Debug, Clone)]
pub enum Store {
    /// Files.
    Folder(Folder),
    /// Objects.
    Bucket(Bucket),
}

/// An object that is being written. Dropped before [`Upload::finish`] is done, it leaves nothing behind.
#[derive(Debug)]
pub enum Upload {
    /// A file.
    Folder(FolderUpload),
    /// An object.
    Bucket(BucketUpload),
}

/// Why a store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// From the file system.
    #[error("{}: {source}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// What.
        source: std::io::Error,
    },
    /// From the bucket.
    #[error("the bucket: {0}")]
    Bucket(#[from] object_store::Error),
    /// What is said of an object cannot be read.
    #[error("what is said of an object is not readable: {0}")]
    About(#[from] serde_json::Error),
}

// === impl Store ===

impl Store {
    /// Makes the folder if it is not there; a bucket has to be.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        Ok(match config {
            StoreConfig::Folder(path) => Self::Folder(Folder::open(path)?),
            StoreConfig::S3(s3) => Self::Bucket(Bucket::open(s3)?),
        })
    }

    /// A new object.
    pub async fn begin(&self, key: Key) -> Result<Upload, StoreError> {
        Ok(match self {
            Self::Folder(folder) => Upload::Folder(folder.begin().await?),
            Self::Bucket(bucket) => Upload::Bucket(bucket.begin(key)),
        })
    }

    /// What is said of an object; `None`: there is none.
    pub async fn about(&self, key: Key) -> Result<Option<About>, StoreError> {
        let octets = match self {
            Self::Folder(folder) => folder.about(key).await?,
            Self::Bucket(bucket) => bucket.about(key).await?,
        };
        let parsed = octets.map(|octets| serde_json::from_slice(&octets));
        Ok(parsed.transpose()?)
    }

    /// Exactly these octets of an object, at most [`READ_OCTETS_MAX`]; `range` is inside it.
    pub async fn read(&self, key: Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        match self {
            Self::Folder(folder) => folder.read(key, range).await,
            Self::Bucket(bucket) => bucket.read(key, range).await,
        }
    }

    /// Removes an object, or what there is of it.
    pub async fn delete(&self, key: Key) -> Result<(), StoreError> {
        match self {
            Self::Folder(folder) => folder.delete(key).await,
            Self::Bucket(bucket) => bucket.delete(key).await,
        }
    }

    /// Removes what has expired at `now`, in seconds since 1970, at most `max` names; says how many it removed.
    pub async fn sweep(&self, now: u64, max: usize) -> Result<usize, StoreError> {
        match self {
            Self::Folder(folder) => folder.sweep(now, max).await,
            Self::Bucket(bucket) => bucket.sweep(now, max).await,
        }
    }
}

// === impl Upload ===

impl Upload {
    /// The next octets.
    pub async fn write(&mut self, octets: Vec<u8>) -> Result<(), StoreError> {
        match self {
            Self::Folder(upload) => upload.write(&octets).await,
            Self::Bucket(upload) => upload.write(&octets).await,
        }
    }

    /// Everything is there, durably. After an error there may be something of the object: [`Store::delete`].
    pub async fn finish(self, key: Key, about: &About) -> Result<(), StoreError> {
        let about = serde_json::to_vec(about)?;
        match self {
            Self::Folder(upload) => upload.finish(key, about).await,
            Self::Bucket(upload) => upload.finish(about).await,
        }
    }
}

/// The folder of everything that expires on the same day: days since 1970.
fn day(expires: u64) -> String {
    // Five digits until the year 2243, so that they sort.
    format!("{:05}", expires / DAY_SECONDS)
}

fn name(key: Key) -> String {
    format!("{}.{}", key.expires, URL_SAFE_NO_PAD.encode(key.id))
}

/// The second in which the object with this name, or what is said of it, expires.
fn expires(name: &str) -> Option<u64> {
    name.split_once('.')?.0.parse().ok()
}

/// Is there anything in the folder of this day that may have expired?
fn may_have_expired(day: &str, now: u64) -> bool {
    day.parse::<u64>().is_ok_and(|day| day <= now / DAY_SECONDS)
}

/// Has everything of this day expired?
fn is_over(day: &str, now: u64) -> bool {
    day.parse::<u64>().is_ok_and(|day| day < now / DAY_SECONDS)
}

#[cfg(test)]
mod tests;
