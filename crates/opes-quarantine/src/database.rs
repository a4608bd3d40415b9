//! The index: one schema for SQLite and PostgreSQL, the same statements for both.
//!
//! Migrations are a list that only grows. Every transaction begins with a write, so that SQLite takes its lock at once and
//! PostgreSQL the row's.

use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyPool, Executor as _};
use tokio::sync::OnceCell;

use crate::StoreError;
use crate::store::{now_ms, signed};

/// Connections to PostgreSQL from one process.
const POSTGRES_CONNECTIONS_MAX: u32 = 8;

/// SQLite has one writer; readers need not wait for it.
const SQLITE_CONNECTIONS_MAX: u32 = 4;

/// How long a statement waits for a connection.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Edges that start at the same time migrate one after another; any number that nobody else uses.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(4496003) IS NULL";

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS quarantine_schema (version BIGINT NOT NULL, made_at BIGINT NOT NULL)";

/// Version n is made by the first n.
const MIGRATIONS: &[&[&str]] = &[&[
    "CREATE TABLE quarantine_entries (
        id TEXT PRIMARY KEY, edge TEXT NOT NULL, content TEXT NOT NULL, octets BIGINT NOT NULL,
        queue TEXT NOT NULL, reason TEXT NOT NULL, reason_key TEXT NOT NULL, rule TEXT NOT NULL, service TEXT NOT NULL,
        sender TEXT NOT NULL, sender_key TEXT NOT NULL, sender_domain TEXT NOT NULL,
        first_recipient TEXT NOT NULL, recipients BIGINT NOT NULL,
        header_from TEXT NOT NULL, header_subject TEXT NOT NULL, header_date TEXT NOT NULL, envelope TEXT NOT NULL,
        held_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, touched_at BIGINT NOT NULL, gone_at BIGINT NOT NULL)",
    "CREATE INDEX quarantine_entries_held ON quarantine_entries (gone_at, held_at, id)",
    "CREATE INDEX quarantine_entries_expiry ON quarantine_entries (gone_at, expires_at)",
    "CREATE INDEX quarantine_entries_content ON quarantine_entries (content)",
    "CREATE TABLE quarantine_recipients (
        entry TEXT NOT NULL, number BIGINT NOT NULL, address TEXT NOT NULL, address_key TEXT NOT NULL, domain TEXT NOT NULL,
        state TEXT NOT NULL, release_id TEXT NOT NULL, PRIMARY KEY (entry, number))",
    "CREATE INDEX quarantine_recipients_address ON quarantine_recipients (address_key)",
    "CREATE INDEX quarantine_recipients_domain ON quarantine_recipients (domain)",
    "CREATE INDEX quarantine_recipients_release ON quarantine_recipients (release_id)",
    "CREATE TABLE quarantine_releases (
        id TEXT PRIMARY KEY, entry TEXT NOT NULL, edge TEXT NOT NULL, numbers TEXT NOT NULL, state TEXT NOT NULL,
        begun_at BIGINT NOT NULL)",
    "CREATE INDEX quarantine_releases_edge ON quarantine_releases (edge, state)",
    "CREATE INDEX quarantine_releases_entry ON quarantine_releases (entry)",
    "CREATE TABLE quarantine_audit (
        entry TEXT NOT NULL, done_at BIGINT NOT NULL, actor TEXT NOT NULL, what TEXT NOT NULL, detail TEXT NOT NULL)",
    "CREATE INDEX quarantine_audit_entry ON quarantine_audit (entry, done_at)",
]];

/// A PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// `postgres://USER@HOST/DATABASE`, `?sslmode=verify-full&sslrootcert=…` as libpq has them.
    pub url: String,
    /// Kept out of the URL.
    pub password: Option<SecretString>,
}

/// A pool that connects, and migrates, when it is first used: a program starts while its database is away.
#[derive(Debug)]
pub(crate) struct Database {
    pool: AnyPool,
    is_postgres: bool,
    migrated: OnceCell<()>,
}

impl Database {
    pub(crate) fn sqlite(file: &Path) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let pool = pool_options(SQLITE_CONNECTIONS_MAX).after_connect(|connection, _| {
            Box::pin(async move {
                // WAL with FULL: a commit is on disk before it is reported.
                connection.execute("PRAGMA journal_mode = WAL").await?;
                connection.execute("PRAGMA synchronous = FULL").await?;
                Ok(())
            })
        });
        Ok(Self {
            pool: pool.connect_lazy_with(sqlite_options(file)?),
            is_postgres: false,
            migrated: OnceCell::new(),
        })
    }

    pub(crate) fn postgres(config: &PostgresConfig) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let pool = pool_options(POSTGRES_CONNECTIONS_MAX);
        Ok(Self {
            pool: pool.connect_lazy_with(postgres_options(config)?),
            is_postgres: true,
            migrated: OnceCell::new(),
        })
    }

    /// Connected and migrated.
    pub(crate) fn pool(&self) -> BoxFuture<'_, Result<&AnyPool, StoreError>> {
        // Boxed: the compiler cannot see otherwise that the futures of statements may move between threads.
        Box::pin(async {
            let migrate = || migrate(&self.pool, self.is_postgres);
            self.migrated.get_or_try_init(migrate).await?;
            Ok(&self.pool)
        })
    }
}

fn pool_options(connections_max: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
}

fn sqlite_options(file: &Path) -> Result<AnyConnectOptions, StoreError> {
    let mut options: AnyConnectOptions = "sqlite:///?mode=rwc".parse()?;
    let path = file
        .to_str()
        .ok_or_else(|| StoreError::Config(format!("{} is not UTF-8", file.display())))?;
    // Escapes what must be.
    options.database_url.set_path(path);
    Ok(options)
}

fn postgres_options(config: &PostgresConfig) -> Result<AnyConnectOptions, StoreError> {
    let wrong = |message: &str| StoreError::Config(format!("postgres.url: {message}"));
    let mut options: AnyConnectOptions = config
        .url
        .parse()
        .map_err(|_| wrong("is no URL; write postgres://USER@HOST/DATABASE"))?;
    if !matches!(options.database_url.scheme(), "postgres" | "postgresql") {
        return Err(wrong("write postgres://USER@HOST/DATABASE"));
    }
    if let Some(password) = &config.password {
        let set = options
            .database_url
            .set_password(Some(password.expose_secret()));
        set.map_err(|()| wrong("a password needs a host in the URL"))?;
    }
    Ok(options)
}

async fn migrate(pool: &AnyPool, is_postgres: bool) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    if is_postgres {
        sqlx::query(MIGRATION_LOCK)
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::query(SCHEMA).execute(&mut *transaction).await?;
    let found: Option<i64> = sqlx::query_scalar("SELECT version FROM quarantine_schema")
        .fetch_optional(&mut *transaction)
        .await?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let version = found.unwrap_or(0);
    if version > known {
        return Err(StoreError::Newer {
            found: version,
            known,
        });
    }
    let done = usize::try_from(version).unwrap_or(0);
    let missing: Vec<&'static str> = MIGRATIONS
        .iter()
        .skip(done)
        .flat_map(|made| made.iter().copied())
        .collect();
    for statement in missing {
        sqlx::query(statement).execute(&mut *transaction).await?;
    }
    let note = if found.is_some() {
        "UPDATE quarantine_schema SET version = $1 WHERE $2 > 0"
    } else {
        "INSERT INTO quarantine_schema (version, made_at) VALUES ($1, $2)"
    };
    sqlx::query(note)
        .bind(known)
        .bind(signed(now_ms()))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}
