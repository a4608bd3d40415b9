//! The handle: open, show, read, delete.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use opes_database::Database;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyPool, Row as _, Transaction};

use crate::contents::{Contents, Files, Objects, S3Config};
use crate::database::{self, PostgresConfig};
use crate::entry::{AuditRecord, Detail, NAME_OCTETS_MAX, RecipientState, RecipientStatus, clean};
use crate::metrics::{Metrics, Operation};
use crate::{StoreError, list};

/// Most records of an entry's history that are shown.
const AUDIT_MAX: i64 = 1000;

/// Most octets of an audit record's detail.
const DETAIL_OCTETS_MAX: usize = 4096;

/// Where index and octets are.
#[derive(Debug, Clone)]
pub enum Backend {
    /// SQLite and files in this folder, for one edge.
    Folder(PathBuf),
    /// PostgreSQL and a bucket, for many edges.
    Shared {
        /// The index.
        postgres: PostgresConfig,
        /// The octets.
        s3: S3Config,
    },
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where.
    pub backend: Backend,
    /// How long messages are kept.
    pub keep: Duration,
}

/// A quarantine. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    contents: Contents,
    keep_ms: u64,
    metrics: Metrics,
}

impl Store {
    /// Checks the configuration and makes folders. Connects when first used: a database that is away is an error of the operation.
    pub fn open(config: &StoreConfig, metrics: Metrics) -> Result<Self, StoreError> {
        let (database, contents) = match &config.backend {
            Backend::Folder(folder) => {
                let contents = Contents::Files(Files::open(&folder.join("contents"))?);
                (database::sqlite(&folder.join("index.sqlite"))?, contents)
            }
            Backend::Shared { postgres, s3 } => (
                database::postgres(postgres)?,
                Contents::Objects(Objects::open(s3)?),
            ),
        };
        let keep_ms = u64::try_from(config.keep.as_millis()).unwrap_or(u64::MAX);
        let shared = Shared {
            database,
            contents,
            keep_ms,
            metrics,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// All that is known of an entry.
    pub async fn show(&self, id: &str) -> Result<Detail, StoreError> {
        let shown = self.try_show(id).await;
        self.counted(Operation::Show, shown)
    }

    async fn try_show(&self, id: &str) -> Result<Detail, StoreError> {
        let pool = self.pool().await?;
        let row = sqlx::query(list::SELECT_ONE)
            .bind(id)
            .fetch_optional(pool)
            .await?;
        let Some(row) = row else {
            return Err(self.missing(id).await);
        };
        Ok(Detail {
            entry: list::entry(&row)?,
            edge: row.try_get("edge")?,
            envelope: from_json(&row.try_get::<String, _>("envelope")?)?,
            status: status(pool, id).await?,
            audit: audit(pool, id).await?,
        })
    }

    /// Octets of an entry's content from `offset`, at most 256 KiB; empty at the end.
    pub async fn read(&self, id: &str, offset: u64) -> Result<Bytes, StoreError> {
        let octets = self.try_read(id, offset).await;
        self.counted(Operation::Read, octets)
    }

    async fn try_read(&self, id: &str, offset: u64) -> Result<Bytes, StoreError> {
        let row = sqlx::query(
            "SELECT content, octets FROM quarantine_entries WHERE id = $1 AND gone_at = 0",
        )
        .bind(id)
        .fetch_optional(self.pool().await?)
        .await?;
        let Some(row) = row else {
            return Err(self.missing(id).await);
        };
        let key: String = row.try_get("content")?;
        let octets = unsigned(row.try_get("octets")?);
        self.shared.contents.read(&key, offset, octets).await
    }

    /// Removes an entry. What was released stays released; a release that is not finished is withdrawn.
    pub async fn delete(&self, id: &str, by: &str) -> Result<(), StoreError> {
        let done = self.remove(id, by, "deleted").await;
        let done = self.counted(Operation::Delete, done);
        if done.is_ok() {
            self.shared.metrics.deleted.inc();
        }
        done
    }

    /// The row is marked first: what is left of the content after a crash is an orphan. Its id stays known for a while, so that neither a
    /// late hand-over nor an unfinished release can bring it back.
    pub(crate) async fn remove(&self, id: &str, by: &str, what: &str) -> Result<(), StoreError> {
        let now = now_ms();
        let mut transaction = self.pool().await?.begin().await?;
        let marked = sqlx::query(
            "UPDATE quarantine_entries SET gone_at = $1, envelope = '{}', header_from = '', header_subject = '', header_date = ''
             WHERE id = $2 AND gone_at = 0",
        );
        let marked = marked
            .bind(signed(now))
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        if marked.rows_affected() == 0 {
            transaction.rollback().await?;
            return Err(self.missing(id).await);
        }
        for statement in [
            "UPDATE quarantine_releases SET state = 'cancelled' WHERE entry = $1 AND state = 'releasing'",
            "DELETE FROM quarantine_recipients WHERE entry = $1",
        ] {
            sqlx::query(statement)
                .bind(id)
                .execute(&mut *transaction)
                .await?;
        }
        record(&mut transaction, id, now, by, what, "").await?;
        let key: String =
            sqlx::query_scalar("SELECT content FROM quarantine_entries WHERE id = $1")
                .bind(id)
                .fetch_one(&mut *transaction)
                .await?;
        transaction.commit().await?;
        if let Err(error) = self.shared.contents.delete(&key).await {
            tracing::warn!(%error, "a content is left over; it is removed later");
        }
        Ok(())
    }

    /// Why there is no such entry.
    pub(crate) async fn missing(&self, id: &str) -> StoreError {
        let last = async {
            sqlx::query(
                "SELECT what, actor FROM quarantine_audit WHERE entry = $1 AND what IN ('deleted', 'expired') ORDER BY done_at DESC LIMIT 1",
            )
            .bind(id)
            .fetch_optional(self.pool().await?)
            .await
            .map_err(StoreError::from)
        };
        let shown = clean(id, NAME_OCTETS_MAX);
        match last.await {
            Err(error) => error,
            Ok(None) => StoreError::NotFound(shown),
            Ok(Some(row)) => StoreError::Gone {
                id: shown,
                what: row.try_get("what").unwrap_or_default(),
                by: row.try_get("actor").unwrap_or_default(),
            },
        }
    }

    pub(crate) fn pool(&self) -> BoxFuture<'_, Result<&AnyPool, StoreError>> {
        Box::pin(async { Ok(self.shared.database.pool().await?) })
    }

    pub(crate) fn contents(&self) -> &Contents {
        &self.shared.contents
    }

    /// How long messages are kept, milliseconds.
    pub(crate) fn keep_ms(&self) -> u64 {
        self.shared.keep_ms
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub(crate) fn counted<T>(
        &self,
        operation: Operation,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if result.as_ref().is_err_and(StoreError::is_failure) {
            self.shared.metrics.fail(operation);
        }
        result
    }
}

/// Adds a line to an entry's history.
pub(crate) async fn record(
    transaction: &mut Transaction<'_, Any>,
    id: &str,
    at_ms: u64,
    by: &str,
    what: &str,
    detail: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO quarantine_audit (entry, done_at, actor, what, detail) VALUES ($1, $2, $3, $4, $5)")
        .bind(id)
        .bind(signed(at_ms))
        .bind(clean(by, NAME_OCTETS_MAX))
        .bind(what)
        .bind(clean(detail, DETAIL_OCTETS_MAX))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

async fn status(pool: &AnyPool, id: &str) -> Result<Vec<RecipientStatus>, StoreError> {
    let rows = sqlx::query("SELECT address, state, release_id FROM quarantine_recipients WHERE entry = $1 ORDER BY number")
        .bind(id)
        .fetch_all(pool)
        .await?;
    let status = |row: &AnyRow| {
        Ok(RecipientStatus {
            address: row.try_get("address")?,
            state: RecipientState::parse(&row.try_get::<String, _>("state")?),
            release: row.try_get("release_id")?,
        })
    };
    rows.iter().map(status).collect()
}

async fn audit(pool: &AnyPool, id: &str) -> Result<Vec<AuditRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT done_at, actor, what, detail FROM quarantine_audit WHERE entry = $1 ORDER BY done_at LIMIT $2",
    )
    .bind(id)
    .bind(AUDIT_MAX)
    .fetch_all(pool)
    .await?;
    let record = |row: &AnyRow| {
        Ok(AuditRecord {
            at_ms: unsigned(row.try_get("done_at")?),
            by: row.try_get("actor")?,
            what: row.try_get("what")?,
            detail: row.try_get("detail")?,
        })
    };
    rows.iter().map(record).collect()
}

/// When a content was stored, milliseconds since 1970; none if the key is not ours.
pub(crate) fn written_at(key: &str) -> Option<u64> {
    let (_, attempt) = key.rsplit_once('.')?;
    u64::from_str_radix(attempt, 16).ok()
}

/// Keys that are not ours are never old.
pub(crate) fn written_before(key: &str, before: SystemTime) -> bool {
    let before = before.duration_since(UNIX_EPOCH).unwrap_or_default();
    written_at(key).is_some_and(|written| u128::from(written) < before.as_millis())
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Databases have no unsigned numbers.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(error.to_string()))
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Database(format!("an envelope cannot be read: {error}")))
}
