//! The database as the writer sees it: events in, old rows out, each within a bounded time.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use opes_database::{Database, DatabaseError};
use sqlx::{Any, Connection as _, pool::PoolConnection};

use crate::config::{Config, ConfigError};
use crate::event::Event;
use crate::rows::{Loss, Rows};
use crate::schema::{EXPIRE, POSTGRES, SCHEMA, SQLITE};
use crate::text::signed;

/// A write that takes longer has failed. Longer than PostgreSQL's own limit, so that this is for servers that are gone without a word.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Rows of each table that one step of retention removes.
pub(crate) const EXPIRE_ROWS: i64 = 1000;

/// Why events are not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("no answer of the database within {WRITE_TIMEOUT:?}")]
    Timeout,
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
    /// Of SQLite; made for its owner only before it is first opened.
    file: Option<PathBuf>,
    has_file: OnceLock<()>,
}

// === impl StoreError ===

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl StoreError {
    /// These very rows are what the database does not like: trying them again would be in vain. SQLSTATE class 22 (data) and 23 (integrity)
    /// of PostgreSQL; "too big", "constraint" and "mismatch" of SQLite.
    pub(crate) fn is_about_rows(&self) -> bool {
        let Self::Database(DatabaseError::Sql(sqlx::Error::Database(error))) = self else {
            return false;
        };
        let code = error.code().unwrap_or_default().into_owned();
        if code.len() == 5 && (code.starts_with("22") || code.starts_with("23")) {
            return true;
        }
        let is_sqlite = code.len() < 5;
        is_sqlite
            && code
                .parse()
                .is_ok_and(|code: u32| matches!(code & 0xff, 18..=20))
    }
}

// === impl Store ===

impl Store {
    /// Connects when first used.
    pub(crate) fn open(config: &Config) -> Result<Self, ConfigError> {
        let wrong = |error: DatabaseError| ConfigError::Database(error);
        if let Some(place) = &config.database.postgres {
            let place = place.read()?;
            let database = Database::postgres(&place, &POSTGRES, SCHEMA).map_err(wrong)?;
            return Ok(Self::new(database, None));
        }
        let file = config.database.sqlite_file();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ConfigError::File { path, source }
        };
        let file = std::path::absolute(&file).map_err(failed(&file))?;
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        let database = Database::sqlite(&file, &SQLITE, SCHEMA).map_err(wrong)?;
        Ok(Self::new(database, Some(file)))
    }

    fn new(database: Database, file: Option<PathBuf>) -> Self {
        Self {
            database,
            file,
            has_file: OnceLock::new(),
        }
    }

    /// All of it, or nothing.
    pub(crate) async fn insert(&self, events: &[Event], losses: &[Loss]) -> Result<(), StoreError> {
        let rows = Rows::of(events, losses);
        let mut connection = self.connection().await?;
        let write = async {
            let mut transaction = connection.begin().await?;
            rows.insert(&mut transaction).await?;
            transaction.commit().await
        };
        match tokio::time::timeout(WRITE_TIMEOUT, write).await {
            Ok(written) => Ok(written?),
            Err(_elapsed) => Err(given_up(connection)),
        }
    }

    /// One step of retention: rows from before `before_ms` go. Gives their number; less than [`EXPIRE_ROWS`] of each table = nothing is left.
    pub(crate) async fn expire(&self, before_ms: u64) -> Result<Expired, StoreError> {
        let mut connection = self.connection().await?;
        let remove = async {
            let mut expired = Expired::default();
            for statement in EXPIRE {
                let done = sqlx::query(statement)
                    .bind(signed(before_ms))
                    .bind(EXPIRE_ROWS)
                    .execute(&mut *connection)
                    .await?;
                expired.add(done.rows_affected());
            }
            Ok::<_, sqlx::Error>(expired)
        };
        match tokio::time::timeout(WRITE_TIMEOUT, remove).await {
            Ok(expired) => Ok(expired?),
            Err(_elapsed) => Err(given_up(connection)),
        }
    }

    async fn connection(&self) -> Result<PoolConnection<Any>, StoreError> {
        self.make_file()?;
        let connect = async { Ok::<_, StoreError>(self.database.pool().await?.acquire().await?) };
        match tokio::time::timeout(WRITE_TIMEOUT, connect).await {
            Ok(connection) => connection,
            Err(_elapsed) => Err(StoreError::Timeout),
        }
    }

    /// SQLite takes an empty file for a new database, and gives the files beside it the same mode.
    fn make_file(&self) -> Result<(), StoreError> {
        let Some(file) = self.file.as_ref().filter(|_| self.has_file.get().is_none()) else {
            return Ok(());
        };
        let mut options = std::fs::OpenOptions::new();
        let made = options.append(true).create(true).mode(0o600).open(file);
        made.map_err(|error| StoreError::File(file.clone(), error))?;
        self.has_file.get_or_init(|| ());
        Ok(())
    }
}

/// Closed, and not given back to the pool: nobody knows what is still on its way.
fn given_up(connection: PoolConnection<Any>) -> StoreError {
    drop(connection.detach());
    StoreError::Timeout
}

/// What a step of retention has removed.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Expired {
    pub(crate) rows: u64,
    /// A table may have more.
    pub(crate) more: bool,
}

impl Expired {
    fn add(&mut self, rows: u64) {
        self.rows += rows;
        self.more |= rows >= EXPIRE_ROWS.unsigned_abs();
    }
}
