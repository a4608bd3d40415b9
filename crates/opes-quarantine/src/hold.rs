//! Taking a message: the octets first, then the row that names them.

use std::path::Path;
use std::time::Duration;

use opes_spool::Envelope;
use sqlx::{Any, Transaction};
use tokio::io::AsyncReadExt as _;

use crate::entry::{Held, NAME_OCTETS_MAX, REASON_OCTETS_MAX, Summary, clean};
use crate::metrics::Operation;
use crate::store::{now_ms, record, signed, to_json};
use crate::summary::{SUMMARY_OCTETS_MAX, summary};
use crate::{Store, StoreError, list};

/// One attempt to store a content; far below the age of an orphan.
const PUT_TIMEOUT: Duration = Duration::from_hours(1);

impl Store {
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
        let put = self.contents().put(&key, content);
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
            self.metrics().held.inc();
        } else {
            transaction.rollback().await?;
            self.contents().delete(&key).await?;
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
        let expires = held.held_at_ms.saturating_add(self.keep_ms());
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

/// PostgreSQL has no NUL in texts.
fn plain(address: &str) -> String {
    address.replace('\0', "")
}
