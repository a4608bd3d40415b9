//! What goes by itself: entries whose time is over, contents without an entry, the memory of what is gone.

use std::time::{Duration, SystemTime};

use sqlx::{AssertSqlSafe, Row as _};
use tokio_util::sync::CancellationToken;

use crate::metrics::Operation;
use crate::store::{now_ms, signed, unsigned, written_at};
use crate::{Store, StoreError};

/// Entries that one round removes; the rest waits for the next.
pub(crate) const ROUND_MAX: u32 = 512;

/// Between two rounds; at once after a full one.
const ROUND_INTERVAL: Duration = Duration::from_mins(1);

/// Orphans come from crashes only.
const ORPHANS_INTERVAL: Duration = Duration::from_hours(6);

/// A content that is younger may belong to an entry that is being written.
pub(crate) const ORPHAN_AGE: Duration = Duration::from_hours(24);

/// How long the id of a removed entry is known, and who removed it.
const GONE_KEEP: Duration = Duration::from_hours(30 * 24);

/// An entry with a release that is not finished does not expire before this: the edge may come back.
const RELEASING_KEEP: Duration = Duration::from_hours(7 * 24);

/// Written in the audit as the one who did it.
const EXPIRY: &str = "expiry";

impl Store {
    /// Removes entries whose time was over at `now_ms` (milliseconds since 1970), at most 512, and gives their number.
    pub async fn expire(&self, now_ms: u64) -> Result<u32, StoreError> {
        let expired = self.try_expire(now_ms).await;
        self.counted(Operation::Sweep, expired)
    }

    async fn try_expire(&self, now_ms: u64) -> Result<u32, StoreError> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT e.id FROM quarantine_entries e WHERE e.gone_at = 0 AND e.expires_at <= $1 AND NOT EXISTS
               (SELECT 1 FROM quarantine_releases r WHERE r.entry = e.id AND r.state = 'releasing' AND r.begun_at > $2)
             ORDER BY e.expires_at LIMIT $3",
        )
        .bind(signed(now_ms))
        .bind(signed(before(now_ms, RELEASING_KEEP)))
        .bind(i64::from(ROUND_MAX))
        .fetch_all(self.pool().await?)
        .await?;
        let mut expired = 0;
        for id in ids {
            match self.remove(&id, EXPIRY, "expired").await {
                Ok(()) => expired += 1,
                // Another edge, or an operator, was faster.
                Err(StoreError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.metrics().expired.inc_by(expired.into());
        Ok(expired)
    }

    /// Forgets entries that are gone for 30 days, at most 512.
    pub(crate) async fn forget(&self, now_ms: u64) -> Result<u32, StoreError> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM quarantine_entries WHERE gone_at > 0 AND gone_at <= $1 ORDER BY gone_at LIMIT $2",
        )
        .bind(signed(before(now_ms, GONE_KEEP)))
        .bind(i64::from(ROUND_MAX))
        .fetch_all(self.pool().await?)
        .await?;
        let forgotten = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        for id in ids {
            let mut transaction = self.pool().await?.begin().await?;
            for statement in [
                "DELETE FROM quarantine_audit WHERE entry = $1",
                "DELETE FROM quarantine_releases WHERE entry = $1",
                "DELETE FROM quarantine_recipients WHERE entry = $1",
                "DELETE FROM quarantine_entries WHERE id = $1",
            ] {
                sqlx::query(statement)
                    .bind(&id)
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
        }
        Ok(forgotten)
    }

    /// Removes contents written before `before` that no entry names, and gives their number. Those that are older than the index stay: it may
    /// have been replaced, and they are all that is left of the entries of the old one.
    pub async fn remove_orphans(&self, before: SystemTime) -> Result<u64, StoreError> {
        let removed = self.try_remove_orphans(before).await;
        self.counted(Operation::Sweep, removed)
    }

    async fn try_remove_orphans(&self, before: SystemTime) -> Result<u64, StoreError> {
        let made_at: i64 = sqlx::query_scalar("SELECT MIN(made_at) FROM quarantine_schema")
            .fetch_one(self.pool().await?)
            .await?;
        let made_at = unsigned(made_at);
        let mut removed = 0;
        let mut batches = self.contents().older_than(before);
        while let Some(keys) = batches.recv().await {
            let mut keys = keys?;
            keys.retain(|key| written_at(key).is_some_and(|written| written >= made_at));
            for key in self.orphans(keys).await? {
                self.contents().delete(&key).await?;
                self.metrics().orphans.inc();
                removed += 1;
            }
        }
        Ok(removed)
    }

    async fn orphans(&self, mut keys: Vec<String>) -> Result<Vec<String>, StoreError> {
        if keys.is_empty() {
            return Ok(keys);
        }
        let places: Vec<_> = (1..=keys.len()).map(|place| format!("${place}")).collect();
        // Numbered places only; the keys are bound.
        let mut query = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT content FROM quarantine_entries WHERE gone_at = 0 AND content IN ({})",
            places.join(", ")
        )));
        for key in &keys {
            query = query.bind(key.clone());
        }
        let named: Vec<String> = query.fetch_all(self.pool().await?).await?;
        keys.retain(|key| !named.contains(key));
        Ok(keys)
    }

    async fn measure(&self) -> Result<(), StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS entries, CAST(COALESCE(SUM(octets), 0) AS BIGINT) AS octets FROM quarantine_entries WHERE gone_at = 0",
        )
        .fetch_one(self.pool().await?)
        .await?;
        self.metrics().entries.set(row.try_get("entries")?);
        self.metrics().octets.set(row.try_get("octets")?);
        Ok(())
    }

    /// Sweeps and measures until `stop`. Failures are logged and tried again.
    pub async fn sweep(&self, stop: CancellationToken) {
        let mut orphans_due = tokio::time::Instant::now();
        loop {
            let full = match self.round().await {
                Ok(done) => done >= ROUND_MAX,
                Err(error) => {
                    tracing::warn!(%error, "the quarantine cannot be swept");
                    false
                }
            };
            if tokio::time::Instant::now() >= orphans_due {
                orphans_due = tokio::time::Instant::now() + ORPHANS_INTERVAL;
                if let Err(error) = self.remove_orphans(SystemTime::now() - ORPHAN_AGE).await {
                    tracing::warn!(%error, "contents without an entry cannot be swept");
                }
            }
            let pause = if full { Duration::ZERO } else { ROUND_INTERVAL };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn round(&self) -> Result<u32, StoreError> {
        let now = now_ms();
        let expired = self.expire(now).await?;
        let forgotten = self.forget(now).await?;
        self.measure().await?;
        Ok(expired.max(forgotten))
    }
}

fn before(now_ms: u64, age: Duration) -> u64 {
    now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}
