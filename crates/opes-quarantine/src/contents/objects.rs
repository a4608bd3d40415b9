//! Contents as objects of an S3-compatible bucket.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::KEYS_MAX;
use crate::StoreError;

/// Parts of an upload; S3 wants 5 MiB at least.
const PART_OCTETS: usize = 5 * 1024 * 1024;

/// One request may take this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// All attempts of one request together.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
const RETRIES_MAX: usize = 3;

type Sender = mpsc::Sender<Result<Vec<String>, StoreError>>;

/// A bucket and who may use it.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// `https://…`; none = Amazon's, by region.
    pub endpoint: Option<String>,
    /// Its name.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Before all keys, may be empty.
    pub prefix: String,
    /// Access key id and secret; none = from the environment (`AWS_…`, web identity, instance metadata).
    pub credentials: Option<(SecretString, SecretString)>,
}

/// A bucket.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    bucket: Arc<AmazonS3>,
    prefix: Key,
}

impl Objects {
    pub(crate) fn open(config: &S3Config) -> Result<Self, StoreError> {
        let options = ClientOptions::new().with_timeout(REQUEST_TIMEOUT);
        let retry = RetryConfig {
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_retry(retry);
        let mut plain = false;
        if let Some(endpoint) = &config.endpoint {
            plain = endpoint.starts_with("http://");
            builder = builder.with_endpoint(endpoint);
        }
        builder = builder.with_client_options(options.with_allow_http(plain));
        if let Some((id, secret)) = &config.credentials {
            builder = builder
                .with_access_key_id(id.expose_secret())
                .with_secret_access_key(secret.expose_secret());
        }
        Ok(Self {
            bucket: Arc::new(builder.build()?),
            prefix: Key::from(config.prefix.as_str()),
        })
    }

    fn key(&self, key: &str) -> Key {
        let parts = self.prefix.parts().map(|part| part.as_ref().to_owned());
        parts.chain(key.split('/').map(str::to_owned)).collect()
    }

    pub(super) async fn put(&self, key: &str, from: &Path) -> Result<u64, StoreError> {
        let mut file = File::open(from).await.map_err(StoreError::file(from))?;
        let bucket: Arc<dyn ObjectStore> = Arc::clone(&self.bucket) as _;
        let mut upload =
            BufWriter::with_capacity(bucket, self.key(key), PART_OCTETS).with_max_concurrency(1);
        let sent = tokio::io::copy(&mut file, &mut upload).await;
        let done = match sent {
            Ok(octets) => upload.shutdown().await.map(|()| octets),
            Err(error) => Err(error),
        };
        match done {
            Ok(octets) => Ok(octets),
            Err(error) => {
                // Parts of an upload that was broken off cost space; where even this fails, the bucket's lifecycle rule helps.
                let _ = upload.abort().await;
                Err(StoreError::Bucket(error.to_string()))
            }
        }
    }

    pub(super) async fn read(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        Ok(self.bucket.get_range(&self.key(key), range).await?)
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.bucket.delete(&self.key(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn older_than(&self, before: SystemTime, sender: Sender) {
        let this = self.clone();
        tokio::spawn(async move {
            let prefix = (!this.prefix.as_ref().is_empty()).then_some(&this.prefix);
            let mut batches = this.bucket.list(prefix).chunks(KEYS_MAX);
            while let Some(batch) = batches.next().await {
                let keys: Result<Vec<_>, _> = batch.into_iter().collect();
                let keys = keys.map_err(StoreError::from).map(|found| {
                    let keys = found.iter().map(|object| this.strip(&object.location));
                    keys.filter(|key| crate::store::written_before(key, before))
                        .collect()
                });
                if sender.send(keys).await.is_err() {
                    return;
                }
            }
        });
    }

    fn strip(&self, location: &Key) -> String {
        let rest = location.prefix_match(&self.prefix);
        rest.map(|parts| {
            parts
                .map(|part| part.as_ref().to_owned())
                .collect::<Vec<_>>()
                .join("/")
        })
        .unwrap_or_default()
    }
}
