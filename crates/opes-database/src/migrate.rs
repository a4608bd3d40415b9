//! How a schema grows: a version in a table of one row, and a list of statements for each.

use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::{AnyPool, AssertSqlSafe};

use crate::{DatabaseError, Schema};

/// Every transaction begins with a write, so that SQLite takes its lock at once.
pub(crate) async fn migrate(
    pool: &AnyPool,
    schema: Schema,
    is_postgres: bool,
) -> Result<(), DatabaseError> {
    let table = schema.table;
    let mut transaction = pool.begin().await?;
    if is_postgres {
        sqlx::query("SELECT pg_advisory_xact_lock($1) IS NULL")
            .bind(schema.lock)
            .execute(&mut *transaction)
            .await?;
    }
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {table} (version BIGINT NOT NULL, made_at BIGINT NOT NULL)"
    );
    sqlx::query(AssertSqlSafe(create))
        .execute(&mut *transaction)
        .await?;
    let found: Option<i64> = sqlx::query_scalar(AssertSqlSafe(version_of(table)))
        .fetch_optional(&mut *transaction)
        .await?;
    let known = known(schema);
    let version = found.unwrap_or(0);
    if version > known {
        return Err(DatabaseError::Newer {
            found: version,
            known,
        });
    }
    let done = usize::try_from(version).unwrap_or(0);
    // A list: the compiler cannot see otherwise that the future may move between threads.
    let missing: Vec<&'static str> = schema
        .migrations
        .iter()
        .skip(done)
        .flat_map(|made| made.iter().copied())
        .collect();
    for statement in missing {
        sqlx::query(statement).execute(&mut *transaction).await?;
    }
    let note = if found.is_some() {
        format!("UPDATE {table} SET version = $1 WHERE $2 > 0")
    } else {
        format!("INSERT INTO {table} (version, made_at) VALUES ($1, $2)")
    };
    sqlx::query(AssertSqlSafe(note))
        .bind(known)
        .bind(now_ms())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// Is it ours, and of this version?
pub(crate) async fn check(pool: &AnyPool, schema: Schema) -> Result<(), DatabaseError> {
    let known = known(schema);
    let not_ready = DatabaseError::NotReady {
        table: schema.table,
        known,
    };
    let version = sqlx::query_scalar(AssertSqlSafe(version_of(schema.table)));
    let found: i64 = match version.fetch_optional(pool).await {
        Ok(Some(found)) => found,
        Ok(None) => return Err(not_ready),
        Err(sqlx::Error::Database(error)) if is_missing_table(error.as_ref()) => {
            return Err(not_ready);
        }
        Err(error) => return Err(error.into()),
    };
    match found.cmp(&known) {
        std::cmp::Ordering::Less => Err(not_ready),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(DatabaseError::Newer { found, known }),
    }
}

/// PostgreSQL has a code for it, SQLite only words.
fn is_missing_table(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_some_and(|code| code == "42P01") || error.message().starts_with("no such table")
}

fn version_of(table: &str) -> String {
    format!("SELECT version FROM {table}")
}

fn known(schema: Schema) -> i64 {
    i64::try_from(schema.migrations.len()).unwrap_or(i64::MAX)
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
