//! Releases: each recipient once.
//!
//! `releasing` → `released` or `cancelled`, decided by one row in one transaction. The edge writes the message into its spool while the row says
//! `releasing`, and delivers it only when [`Store::finish_release`] answers [`Fate::Deliver`].

use std::collections::BTreeSet;

use bytes::Bytes;
use opes_spool::Envelope;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{Any, Row as _, Transaction};

use crate::entry::{NAME_OCTETS_MAX, RecipientState, clean};
use crate::metrics::Operation;
use crate::store::{from_json, now_ms, record, signed, to_json, unsigned};
use crate::{Store, StoreError};

/// Unfinished releases that are given to an edge at once.
const UNFINISHED_MAX: i64 = 1000;

/// What an operator asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Addresses of recipients; none = all that it is still held for.
    #[serde(default)]
    pub recipients: Option<Vec<String>>,
    /// Also those that were released before; replaces a release that is not finished.
    #[serde(default)]
    pub again: bool,
}

/// A release that was begun: to be stored in the spool of its edge, with [`Release::id`] in the envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// Unique for all times.
    pub id: String,
    /// The entry.
    pub entry: String,
    /// The original envelope with the released recipients only.
    pub envelope: Envelope,
    /// Size of the content.
    pub octets: u64,
    content: String,
}

/// What the edge does with the message that it stored for a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Deliver it: the recipients count as released from now on.
    Deliver,
    /// Forget it: the release was cancelled.
    Withdraw,
}

/// A recipient as the decision needs it.
struct Candidate {
    number: i64,
    address: String,
    state: RecipientState,
    release: String,
}

impl Store {
    /// Begins a release by the edge `edge`. Nothing is delivered until [`Store::finish_release`].
    pub async fn begin_release(
        &self,
        id: &str,
        request: &ReleaseRequest,
        edge: &str,
        by: &str,
    ) -> Result<Release, StoreError> {
        let begun = self.try_begin(id, request, edge, by).await;
        self.counted(Operation::Release, begun)
    }

    async fn try_begin(
        &self,
        id: &str,
        request: &ReleaseRequest,
        edge: &str,
        by: &str,
    ) -> Result<Release, StoreError> {
        let now = now_ms();
        let mut transaction = self.pool().await?.begin().await?;
        // Locks the entry: two operators come one after the other.
        let touched = sqlx::query(
            "UPDATE quarantine_entries SET touched_at = $1 WHERE id = $2 AND gone_at = 0",
        )
        .bind(signed(now))
        .bind(id)
        .execute(&mut *transaction)
        .await?;
        if touched.rows_affected() == 0 {
            transaction.rollback().await?;
            return Err(self.missing(id).await);
        }
        let candidates = candidates(&mut transaction, id).await?;
        let chosen = choose(id, &candidates, request)?;
        if request.again {
            cancel(&mut transaction, &chosen).await?;
        } else {
            refuse_busy(&mut transaction, &chosen).await?;
        }
        let release = insert(&mut transaction, id, edge, now, &chosen).await?;
        let to: Vec<_> = chosen
            .iter()
            .map(|candidate| candidate.address.as_str())
            .collect();
        let detail = format!("to {} (release {release})", to.join(", "));
        record(&mut transaction, id, now, by, "released", &detail).await?;
        let numbers = chosen.iter().map(|candidate| candidate.number).collect();
        let release = load(&mut transaction, &release, id, &numbers).await?;
        transaction.commit().await?;
        Ok(release)
    }

    /// Decides on a release whose message is durable in the spool. Gives the same answer however often it is asked.
    pub async fn finish_release(&self, release: &str) -> Result<Fate, StoreError> {
        let fate = self.try_finish(release).await;
        self.counted(Operation::Release, fate)
    }

    async fn try_finish(&self, release: &str) -> Result<Fate, StoreError> {
        let mut transaction = self.pool().await?.begin().await?;
        let finished = sqlx::query("UPDATE quarantine_releases SET state = 'released' WHERE id = $1 AND state = 'releasing'")
            .bind(release)
            .execute(&mut *transaction)
            .await?;
        if finished.rows_affected() == 1 {
            let released = sqlx::query(
                "UPDATE quarantine_recipients SET state = 'released' WHERE release_id = $1",
            )
            .bind(release)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            self.metrics().released.inc_by(released.rows_affected());
            return Ok(Fate::Deliver);
        }
        let state: Option<String> =
            sqlx::query_scalar("SELECT state FROM quarantine_releases WHERE id = $1")
                .bind(release)
                .fetch_optional(&mut *transaction)
                .await?;
        transaction.rollback().await?;
        Ok(match state.as_deref() {
            Some("cancelled") => Fate::Withdraw,
            // A release that nobody remembers was finished long ago, or the database was replaced: a message is not lost for that.
            _ => Fate::Deliver,
        })
    }

    /// Releases by `edge` that were begun and not decided, oldest first, at most 1,000.
    pub async fn unfinished_releases(&self, edge: &str) -> Result<Vec<Release>, StoreError> {
        let found = self.try_unfinished(edge).await;
        self.counted(Operation::Release, found)
    }

    async fn try_unfinished(&self, edge: &str) -> Result<Vec<Release>, StoreError> {
        let mut transaction = self.pool().await?.begin().await?;
        let rows = sqlx::query(
            "SELECT id, entry, numbers FROM quarantine_releases WHERE edge = $1 AND state = 'releasing' ORDER BY begun_at LIMIT $2",
        )
        .bind(edge)
        .bind(UNFINISHED_MAX)
        .fetch_all(&mut *transaction)
        .await?;
        let mut releases = Vec::new();
        for row in rows {
            let (id, entry): (String, String) = (row.try_get("id")?, row.try_get("entry")?);
            let numbers: BTreeSet<i64> = from_json(&row.try_get::<String, _>("numbers")?)?;
            releases.push(load(&mut transaction, &id, &entry, &numbers).await?);
        }
        transaction.rollback().await?;
        Ok(releases)
    }

    /// Octets of a release's content from `offset`, at most 256 KiB; empty at the end.
    pub async fn read_release(&self, release: &Release, offset: u64) -> Result<Bytes, StoreError> {
        let octets = self
            .contents()
            .read(&release.content, offset, release.octets)
            .await;
        self.counted(Operation::Read, octets)
    }
}

async fn candidates(
    transaction: &mut Transaction<'_, Any>,
    id: &str,
) -> Result<Vec<Candidate>, StoreError> {
    let rows = sqlx::query(
        "SELECT number, address, state, release_id FROM quarantine_recipients WHERE entry = $1 ORDER BY number",
    )
    .bind(id)
    .fetch_all(&mut **transaction)
    .await?;
    let candidate = |row: &AnyRow| {
        Ok(Candidate {
            number: row.try_get("number")?,
            address: row.try_get("address")?,
            state: RecipientState::parse(&row.try_get::<String, _>("state")?),
            release: row.try_get("release_id")?,
        })
    };
    rows.iter().map(candidate).collect()
}

/// Whom the request is about; refuses what went out before, unless it is asked for again.
fn choose<'a>(
    id: &str,
    candidates: &'a [Candidate],
    request: &ReleaseRequest,
) -> Result<Vec<&'a Candidate>, StoreError> {
    let chosen: Vec<_> = match &request.recipients {
        Some(addresses) => named(id, candidates, addresses)?,
        None if request.again => candidates.iter().collect(),
        None => {
            let open = |candidate: &&Candidate| candidate.state != RecipientState::Released;
            let open: Vec<_> = candidates.iter().filter(open).collect();
            if open.is_empty() {
                return Err(StoreError::AlreadyReleased {
                    addresses: format!("all recipients of {id}"),
                });
            }
            open
        }
    };
    let out: Vec<_> = chosen
        .iter()
        .filter(|candidate| candidate.state == RecipientState::Released)
        .map(|candidate| candidate.address.as_str())
        .collect();
    if out.is_empty() || request.again {
        return Ok(chosen);
    }
    Err(StoreError::AlreadyReleased {
        addresses: out.join(", "),
    })
}

fn named<'a>(
    id: &str,
    candidates: &'a [Candidate],
    addresses: &[String],
) -> Result<Vec<&'a Candidate>, StoreError> {
    let is_named = |candidate: &Candidate, address: &String| {
        candidate.address.to_lowercase() == address.to_lowercase()
    };
    let stranger = addresses.iter().find(|address| {
        !candidates
            .iter()
            .any(|candidate| is_named(candidate, address))
    });
    if let Some(address) = stranger {
        return Err(StoreError::NotARecipient {
            id: id.into(),
            address: clean(address, NAME_OCTETS_MAX),
        });
    }
    if addresses.is_empty() {
        return Err(StoreError::Request(
            "recipients: name one, or leave the list out for all".into(),
        ));
    }
    let chosen = candidates
        .iter()
        .filter(|candidate| addresses.iter().any(|address| is_named(candidate, address)));
    Ok(chosen.collect())
}

async fn refuse_busy(
    transaction: &mut Transaction<'_, Any>,
    chosen: &[&Candidate],
) -> Result<(), StoreError> {
    let busy: Vec<_> = chosen
        .iter()
        .filter(|candidate| candidate.state == RecipientState::Releasing)
        .collect();
    let Some(first) = busy.first() else {
        return Ok(());
    };
    let edge: Option<String> =
        sqlx::query_scalar("SELECT edge FROM quarantine_releases WHERE id = $1")
            .bind(&first.release)
            .fetch_optional(&mut **transaction)
            .await?;
    let addresses: Vec<_> = busy
        .iter()
        .map(|candidate| candidate.address.as_str())
        .collect();
    Err(StoreError::UnderWay {
        addresses: addresses.join(", "),
        edge: edge.unwrap_or_default(),
    })
}

/// Unfinished releases to any of these recipients end here; their other recipients are held again.
async fn cancel(
    transaction: &mut Transaction<'_, Any>,
    chosen: &[&Candidate],
) -> Result<(), StoreError> {
    let unfinished: BTreeSet<_> = chosen
        .iter()
        .filter(|candidate| candidate.state == RecipientState::Releasing)
        .map(|candidate| candidate.release.as_str())
        .collect();
    for release in unfinished {
        for statement in [
            "UPDATE quarantine_releases SET state = 'cancelled' WHERE id = $1 AND state = 'releasing'",
            "UPDATE quarantine_recipients SET state = 'held', release_id = '' WHERE release_id = $1 AND state = 'releasing'",
        ] {
            sqlx::query(statement)
                .bind(release)
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}

async fn insert(
    transaction: &mut Transaction<'_, Any>,
    id: &str,
    edge: &str,
    now: u64,
    chosen: &[&Candidate],
) -> Result<String, StoreError> {
    let count: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM quarantine_releases WHERE entry = $1")
            .bind(id)
            .fetch_one(&mut **transaction)
            .await?;
    // The entry is locked, and its releases are never removed before it is.
    let release = format!("{id}.r{}", count + 1);
    let numbers: Vec<i64> = chosen.iter().map(|candidate| candidate.number).collect();
    sqlx::query("INSERT INTO quarantine_releases (id, entry, edge, numbers, state, begun_at) VALUES ($1, $2, $3, $4, 'releasing', $5)")
        .bind(&release)
        .bind(id)
        .bind(edge)
        .bind(to_json(&numbers)?)
        .bind(signed(now))
        .execute(&mut **transaction)
        .await?;
    for number in numbers {
        sqlx::query("UPDATE quarantine_recipients SET state = $1, release_id = $2 WHERE entry = $3 AND number = $4")
            .bind(RecipientState::Releasing.word())
            .bind(&release)
            .bind(id)
            .bind(number)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(release)
}

async fn load(
    transaction: &mut Transaction<'_, Any>,
    release: &str,
    entry: &str,
    numbers: &BTreeSet<i64>,
) -> Result<Release, StoreError> {
    let row = sqlx::query("SELECT envelope, octets, content FROM quarantine_entries WHERE id = $1")
        .bind(entry)
        .fetch_one(&mut **transaction)
        .await?;
    let mut envelope: Envelope = from_json(&row.try_get::<String, _>("envelope")?)?;
    let recipients = std::mem::take(&mut envelope.recipients);
    envelope.recipients = (0_i64..)
        .zip(recipients)
        .filter(|(number, _)| numbers.contains(number))
        .map(|(_, recipient)| recipient)
        .collect();
    Ok(Release {
        id: release.into(),
        entry: entry.into(),
        envelope,
        octets: unsigned(row.try_get("octets")?),
        content: row.try_get("content")?,
    })
}
