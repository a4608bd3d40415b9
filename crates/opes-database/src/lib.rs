//! SQLite or PostgreSQL behind one pool, with a schema that is brought up to date when the database is first used.
//!
//! Owns how a place becomes a pool ([`Database`]) and how a [`Schema`] grows. The same statements run on both engines (sqlx `Any`, `$n`).
//! Fails with [`DatabaseError`]; a database that is away is an error of the operation, never of the start. Must not know: what is stored.

mod migrate;
mod options;

use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::AnyPool;
use tokio::sync::OnceCell;

pub use options::{Pool, PostgresConfig};

/// How long a statement waits for a connection.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The tables of one store. Migrations are a list that only grows.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Table with the version: a name of ours, never a text from outside.
    pub table: &'static str,
    /// PostgreSQL's advisory lock under which processes that start at the same time migrate one after another; any number that nobody else
    /// uses.
    pub lock: i64,
    /// Version n is made by the first n. Statements must suit both engines.
    pub migrations: &'static [&'static [&'static str]],
}

/// A pool that connects, and migrates, when it is first used: a program starts while its database is away.
#[derive(Debug)]
pub struct Database {
    pool: AnyPool,
    schema: Schema,
    is_postgres: bool,
    ready: OnceCell<()>,
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The place makes no sense.
    #[error("{0}")]
    Config(String),
    /// Written by a newer version.
    #[error("the database has schema {found}, this version knows {known}; start the newer version")]
    Newer {
        /// In the database.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Nobody has written to it, or an older version.
    #[error(
        "the database has no schema {known} of {table}; the program that writes to it makes it when it is first used"
    )]
    NotReady {
        /// Table with the version.
        table: &'static str,
        /// Ours.
        known: i64,
    },
    /// The engine said no, or is away.
    #[error("{}", said(.0))]
    Sql(#[from] sqlx::Error),
}

fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::PoolTimedOut => format!(
            "no connection within {ACQUIRE_TIMEOUT:?}; is the database up, and are address, user and password right?"
        ),
        other => other.to_string(),
    }
}

// === impl Database ===

impl Database {
    /// A file, which is made if it is not there. Its folder must be.
    pub fn sqlite(file: &Path, pool: &Pool, schema: Schema) -> Result<Self, DatabaseError> {
        let options = options::sqlite(file, "rwc")?;
        Ok(Self::lazy(
            pool.build().connect_lazy_with(options),
            schema,
            false,
        ))
    }

    /// A file that is there.
    pub fn sqlite_existing(
        file: &Path,
        pool: &Pool,
        schema: Schema,
    ) -> Result<Self, DatabaseError> {
        let options = options::sqlite(file, "rw")?;
        Ok(Self::lazy(
            pool.build().connect_lazy_with(options),
            schema,
            false,
        ))
    }

    /// A server.
    pub fn postgres(
        config: &PostgresConfig,
        pool: &Pool,
        schema: Schema,
    ) -> Result<Self, DatabaseError> {
        let options = options::postgres(config)?;
        Ok(Self::lazy(
            pool.build().connect_lazy_with(options),
            schema,
            true,
        ))
    }

    fn lazy(pool: AnyPool, schema: Schema, is_postgres: bool) -> Self {
        Self {
            pool,
            schema,
            is_postgres,
            ready: OnceCell::new(),
        }
    }

    /// Connected and migrated.
    pub fn pool(&self) -> BoxFuture<'_, Result<&AnyPool, DatabaseError>> {
        // Boxed: the compiler cannot see otherwise that the futures of statements may move between threads.
        Box::pin(async {
            let migrate = || migrate::migrate(&self.pool, self.schema, self.is_postgres);
            self.ready.get_or_try_init(migrate).await?;
            Ok(&self.pool)
        })
    }

    /// Connected, and nothing is made or changed: for readers.
    pub fn pool_as_it_is(&self) -> BoxFuture<'_, Result<&AnyPool, DatabaseError>> {
        Box::pin(async {
            let check = || migrate::check(&self.pool, self.schema);
            self.ready.get_or_try_init(check).await?;
            Ok(&self.pool)
        })
    }

    /// Not SQLite.
    pub fn is_postgres(&self) -> bool {
        self.is_postgres
    }
}

#[cfg(test)]
mod tests;
