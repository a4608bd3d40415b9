//! The handle: hold, show, read, delete.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use opes_spool::Envelope;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyPool, Row as _, Transaction};
use tokio::io::AsyncReadExt as _;

use crate::contents::{Contents, Files, Objects, S3Config};
use crate::database::{Database, PostgresConfig};
use crate::entry::{
    AuditRecord, Detail, Held, NAME_OCTETS_MAX, REASON_OCTETS_MAX, RecipientState, RecipientStatus,
    Summary, clean,
};
use crate::metrics::{Metrics, Operation};
use crate::summary::{SUMMARY_OCTETS_MAX, summary};
use crate::{StoreError, list};

/// Most records of an entry's history that are shown.
const AUDIT_MAX: i64 = 1000;

/// Most octets of an audit record's detail.
const DETAIL_OCTETS_MAX: usize = 4096;

/// One attempt to store a content; far below the age of an orphan.
const PUT_TIMEOUT: Duration = Duration::from_hours(1);

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
                (Database::sqlite(&folder.join("index.sqlite"))?, contents)
            }
            Backend::Shared { postgres, s3 } => (
                Database::postgres(postgres)?,
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

    /// Takes a message, whose octets are in the file `content`. After `Ok` it survives what database and contents survive. Holding the same
    /// message again changes nothing, also after it was deleted.
    pub async fn hold(&self, held: &Held, content: &Path) -> Result<(), StoreError> {
        let done = self.try_hold(held, content).await;
        self.counted(Operation::Hold, done)
    }

    async fn try_hold(&self, held: &Held, content: &Path) -> Result<(), StoreError> {
        if !Held::is_id(&held.id) || !Held::is_id(&held.edge) {
            return Err(StoreError::Request(format!(
                "`{}` is not an id",
                clean(&held.id, NAME_OCTETS_MAX)
            )));
        }
        // Ids are unique within an edge; another edge may have had the same one.
        let candidates = [held.id.clone(), format!("{}-{}", held.id, held.edge)];
        for id in &candidates {
            let is_ours = match self.owner(id).await? {
                Some(edge) => edge == held.edge,
                None => self.insert(id, held, content).await?,
            };
            if is_ours {
                return Ok(());
            }
        }
        Err(StoreError::Database(format!(
            "the id {} is taken by another edge",
            held.id
        )))
    }

    /// The edge of an entry, also of one that is gone.
    async fn owner(&self, id: &str) -> Result<Option<String>, StoreError> {
        let query = sqlx::query_scalar("SELECT edge FROM quarantine_entries WHERE id = $1");
        Ok(query.bind(id).fetch_optional(self.pool().await?).await?)
    }

    /// Content first, then the row. False: somebody else has the id by now.
    async fn insert(&self, id: &str, held: &Held, content: &Path) -> Result<bool, StoreError> {
        let key = content_key(&held.edge, id, now_ms());
        let summary = head_of(content).await?;
        let put = self.shared.contents.put(&key, content);
        let octets = tokio::time::timeout(PUT_TIMEOUT, put).await.map_err(|_| {
            StoreError::Bucket("storing a message took longer than an hour".into())
        })??;
        let mut transaction = self.pool().await?.begin().await?;
        let inserted = self
            .insert_entry(&mut transaction, id, held, &key, octets, &summary)
            .await?;
        if inserted {
            insert_recipients(&mut transaction, id, &held.envelope).await?;
            let by = if held.rule.is_empty() {
                "rule"
            } else {
                &held.rule
            };
            record(&mut transaction, id, now_ms(), by, "held", &held.reason).await?;
            transaction.commit().await?;
            self.shared.metrics.held.inc();
        } else {
            transaction.rollback().await?;
            self.shared.contents.delete(&key).await?;
        }
        Ok(inserted)
    }

    async fn insert_entry(
        &self,
        transaction: &mut Transaction<'_, Any>,
        id: &str,
        held: &Held,
        key: &str,
        octets: u64,
        summary: &Summary,
    ) -> Result<bool, StoreError> {
        let reason = clean(&held.reason, REASON_OCTETS_MAX);
        let sender = &held.envelope.reverse_path;
        let first = held.envelope.recipients.first();
        let expires = held.held_at_ms.saturating_add(self.shared.keep_ms);
        let query = sqlx::query(
            "INSERT INTO quarantine_entries (id, edge, content, octets, queue, reason, reason_key, rule, service, sender,
               sender_key, sender_domain, first_recipient, recipients, header_from, header_subject, header_date, envelope,
               held_at, expires_at, touched_at, gone_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, 0, 0)
             ON CONFLICT (id) DO NOTHING",
        );
        let done = query
            .bind(id)
            .bind(&held.edge)
            .bind(key)
            .bind(signed(octets))
            .bind(clean(&held.queue, NAME_OCTETS_MAX))
            .bind(&reason)
            .bind(reason.to_lowercase())
            .bind(clean(&held.rule, NAME_OCTETS_MAX))
            .bind(clean(&held.service, NAME_OCTETS_MAX))
            .bind(plain(sender))
            .bind(list::key(sender))
            .bind(list::domain(sender))
            .bind(plain(first.map_or("", |recipient| &recipient.address)))
            .bind(i64::try_from(held.envelope.recipients.len()).unwrap_or(i64::MAX))
            .bind(&summary.from)
            .bind(&summary.subject)
            .bind(&summary.date)
            .bind(to_json(&held.envelope)?)
            .bind(signed(held.held_at_ms))
            .bind(signed(expires))
            .execute(&mut **transaction)
            .await?;
        Ok(done.rows_affected() == 1)
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
        self.shared.database.pool()
    }

    pub(crate) fn contents(&self) -> &Contents {
        &self.shared.contents
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

async fn insert_recipients(
    transaction: &mut Transaction<'_, Any>,
    id: &str,
    envelope: &Envelope,
) -> Result<(), StoreError> {
    for (number, recipient) in (0_i64..).zip(&envelope.recipients) {
        sqlx::query(
            "INSERT INTO quarantine_recipients (entry, number, address, address_key, domain, state, release_id)
             VALUES ($1, $2, $3, $4, $5, 'held', '')",
        )
        .bind(id)
        .bind(number)
        .bind(plain(&recipient.address))
        .bind(list::key(&recipient.address))
        .bind(list::domain(&recipient.address))
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
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

async fn head_of(content: &Path) -> Result<Summary, StoreError> {
    let mut head = Vec::new();
    let read = async {
        let file = tokio::fs::File::open(content).await?;
        file.take(SUMMARY_OCTETS_MAX as u64)
            .read_to_end(&mut head)
            .await
    };
    read.await.map_err(StoreError::file(content))?;
    Ok(summary(&head))
}

/// Each attempt to store a content has a key of its own.
fn content_key(edge: &str, id: &str, now_ms: u64) -> String {
    format!("{edge}/{id}.{now_ms:x}")
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

/// PostgreSQL has no NUL in texts.
fn plain(address: &str) -> String {
    address.replace('\0', "")
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(error.to_string()))
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Database(format!("an envelope cannot be read: {error}")))
}
