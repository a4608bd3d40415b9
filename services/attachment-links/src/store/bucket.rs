//! Objects of an S3-compatible bucket, `PREFIX/DAY/EXPIRES.ID`.
//!
//! Up to one part of [`PART_OCTETS`] is held; larger objects go as a multipart upload, one part after the other. An upload that is dropped is
//! aborted; one of a process that is killed is left to the bucket's lifecycle rule.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as ObjectPath;
use object_store::{
    ClientOptions, Error, MultipartUpload, ObjectStore as _, ObjectStoreExt as _, RetryConfig,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::Handle;

use super::{ABOUT_SUFFIX, StoreError};
use crate::config::S3;
use crate::link::Key;

/// Octets of one part of an upload; S3 wants 5 MiB at least.
const PART_OCTETS: usize = 5 * 1024 * 1024;
/// One request may take this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// All attempts of one request together: shorter than a callout may take.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
const RETRIES_MAX: usize = 3;
/// To abort an upload.
const ABORT_TIMEOUT: Duration = Duration::from_secs(30);

/// A bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    inner: Arc<AmazonS3>,
    prefix: ObjectPath,
}

/// An object that is being written.
#[derive(Debug)]
pub struct BucketUpload {
    bucket: Bucket,
    path: ObjectPath,
    held: Vec<u8>,
    /// Aborted when dropped.
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts(Option<Box<dyn MultipartUpload>>);

impl Drop for Parts {
    fn drop(&mut self) {
        let (Some(mut upload), Ok(runtime)) = (self.0.take(), Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            let aborted = tokio::time::timeout(ABORT_TIMEOUT, upload.abort()).await;
            if !matches!(aborted, Ok(Ok(()))) {
                tracing::warn!("an upload was not aborted: the bucket's lifecycle rule has to");
            }
        });
    }
}

// === impl Bucket ===

impl Bucket {
    pub(super) fn open(config: &S3) -> Result<Self, StoreError> {
        let retry = RetryConfig {
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_retry(retry);
        let mut options = ClientOptions::new().with_timeout(REQUEST_TIMEOUT);
        if let Some(endpoint) = &config.endpoint {
            options = options.with_allow_http(endpoint.starts_with("http://"));
            builder = builder.with_endpoint(endpoint);
        }
        let credentials = (&config.access_key_id_file, &config.secret_access_key_file);
        if let (Some(id), Some(secret)) = credentials {
            builder = builder
                .with_access_key_id(secret_text(id)?.expose_secret())
                .with_secret_access_key(secret_text(secret)?.expose_secret());
        }
        Ok(Self {
            inner: Arc::new(builder.with_client_options(options).build()?),
            prefix: ObjectPath::from(config.prefix.as_str()),
        })
    }

    pub(super) fn begin(&self, key: Key) -> BucketUpload {
        BucketUpload {
            bucket: self.clone(),
            path: self.object(key),
            held: Vec::new(),
            parts: None,
        }
    }

    fn object(&self, key: Key) -> ObjectPath {
        self.path([super::day(key.expires), super::name(key)])
    }

    fn path<const N: usize>(&self, names: [String; N]) -> ObjectPath {
        let prefix = self.prefix.parts().map(|part| part.as_ref().to_owned());
        prefix.chain(names).collect()
    }

    pub(super) async fn about(&self, key: Key) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.inner.get(&about(&self.object(key))).await;
        match found {
            Err(Error::NotFound { .. }) => Ok(None),
            other => Ok(Some(other?.bytes().await?.into())),
        }
    }

    pub(super) async fn read(&self, key: Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        Ok(self.inner.get_range(&self.object(key), range).await?)
    }

    pub(super) async fn delete(&self, key: Key) -> Result<(), StoreError> {
        let object = self.object(key);
        // What is said of it first: a page never shows what cannot be had.
        for path in [about(&object), object] {
            self.gone(&path).await?;
        }
        Ok(())
    }

    async fn gone(&self, path: &ObjectPath) -> Result<(), StoreError> {
        match self.inner.delete(path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn sweep(&self, now: u64, max: usize) -> Result<usize, StoreError> {
        let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
        let days = self
            .inner
            .list_with_delimiter(prefix)
            .await?
            .common_prefixes;
        let mut removed = 0;
        for day in days {
            let name = day.filename().unwrap_or_default();
            if !super::may_have_expired(name, now) {
                continue;
            }
            let mut objects = self.inner.list(Some(&day));
            while let Some(object) = objects.next().await {
                let path = object?.location;
                let expires = path.filename().and_then(super::expires);
                if expires.is_none_or(|expires| expires > now) {
                    continue;
                }
                if removed >= max {
                    return Ok(removed);
                }
                self.gone(&path).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

// === impl BucketUpload ===

impl BucketUpload {
    pub(super) async fn write(&mut self, octets: &[u8]) -> Result<(), StoreError> {
        self.held.extend_from_slice(octets);
        while self.held.len() >= PART_OCTETS {
            let rest = self.held.split_off(PART_OCTETS);
            let part = std::mem::replace(&mut self.held, rest);
            self.send(part).await?;
        }
        Ok(())
    }

    async fn send(&mut self, part: Vec<u8>) -> Result<(), StoreError> {
        if self.parts.is_none() {
            let upload = self.bucket.inner.put_multipart(&self.path).await?;
            self.parts = Some(Parts(Some(upload)));
        }
        let parts = self.parts.as_mut().and_then(|parts| parts.0.as_mut());
        if let Some(parts) = parts {
            parts.put_part(part.into()).await?;
        }
        Ok(())
    }

    pub(super) async fn finish(mut self, about_octets: Vec<u8>) -> Result<(), StoreError> {
        let rest = std::mem::take(&mut self.held);
        if self.parts.is_some() {
            if !rest.is_empty() {
                self.send(rest).await?;
            }
            if let Some(upload) = self.parts.as_mut().and_then(|parts| parts.0.as_mut()) {
                upload.complete().await?;
            }
            // Complete: nothing is left to abort.
            self.parts.take().map(|mut parts| parts.0.take());
        } else {
            self.bucket.inner.put(&self.path, rest.into()).await?;
        }
        let path = about(&self.path);
        self.bucket.inner.put(&path, about_octets.into()).await?;
        Ok(())
    }
}

fn about(object: &ObjectPath) -> ObjectPath {
    ObjectPath::from(format!("{object}{ABOUT_SUFFIX}"))
}

fn secret_text(path: &Path) -> Result<SecretString, StoreError> {
    let text = std::fs::read_to_string(path).map_err(|source| StoreError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.trim().into())
}
