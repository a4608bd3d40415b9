//! The octets of held messages, by key: files of our own, or objects in an S3 bucket.
//!
//! A key is written once and never again, so nothing that removes an old key can hit a new content.

mod files;
mod objects;

use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc;

pub use objects::S3Config;

pub(crate) use files::Files;
pub(crate) use objects::Objects;

use crate::StoreError;

/// Octets of one read.
pub(crate) const READ_OCTETS: usize = 256 * 1024;

/// Keys of one batch while all are gone through.
pub(crate) const KEYS_MAX: usize = 128;

/// Keys, a batch at a time.
pub(crate) type Batches = mpsc::Receiver<Result<Vec<String>, StoreError>>;

/// Where octets are.
#[derive(Debug, Clone)]
pub(crate) enum Contents {
    Files(Files),
    Objects(Objects),
}

impl Contents {
    /// Stores the octets of the file `from`, durably, and says how many they are.
    pub(crate) async fn put(&self, key: &str, from: &Path) -> Result<u64, StoreError> {
        match self {
            Self::Files(files) => files.put(key, from).await,
            Self::Objects(objects) => objects.put(key, from).await,
        }
    }

    /// Up to [`READ_OCTETS`] from `offset` of `octets`; empty at the end.
    pub(crate) async fn read(
        &self,
        key: &str,
        offset: u64,
        octets: u64,
    ) -> Result<Bytes, StoreError> {
        let end = octets.min(offset.saturating_add(READ_OCTETS as u64));
        if offset >= end {
            return Ok(Bytes::new());
        }
        match self {
            Self::Files(files) => files.read(key, offset..end).await,
            Self::Objects(objects) => objects.read(key, offset..end).await,
        }
    }

    /// Removes the octets; that there are none is no error.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self {
            Self::Files(files) => files.delete(key).await,
            Self::Objects(objects) => objects.delete(key).await,
        }
    }

    /// All keys written before `before`.
    pub(crate) fn older_than(&self, before: SystemTime) -> Batches {
        let (sender, batches) = mpsc::channel(1);
        match self {
            Self::Files(files) => files.older_than(before, sender),
            Self::Objects(objects) => objects.older_than(before, sender),
        }
        batches
    }
}
