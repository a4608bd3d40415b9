//! From a place to the options of a pool.

use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::Executor as _;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};

use crate::{ACQUIRE_TIMEOUT, DatabaseError};

/// A PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// `postgres://USER@HOST/DATABASE`, `?sslmode=verify-full&sslrootcert=…` as libpq has them.
    pub url: String,
    /// Kept out of the URL.
    pub password: Option<SecretString>,
}

/// What a pool is like.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    /// Connections at once.
    pub connections_max: u32,
    /// Run on every new connection, such as `PRAGMA journal_mode = WAL`.
    pub setup: &'static [&'static str],
}

// === impl Pool ===

impl Pool {
    pub(crate) fn build(self) -> AnyPoolOptions {
        sqlx::any::install_default_drivers();
        let setup = self.setup;
        AnyPoolOptions::new()
            .max_connections(self.connections_max)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    for statement in setup {
                        connection.execute(*statement).await?;
                    }
                    Ok(())
                })
            })
    }
}

/// `mode` as SQLite's URIs have it: `rwc`, `rw`.
pub(crate) fn sqlite(file: &Path, mode: &str) -> Result<AnyConnectOptions, DatabaseError> {
    let mut options: AnyConnectOptions = format!("sqlite:///?mode={mode}").parse()?;
    // A URL has no relative paths: `.opes/x` would be read as `/.opes/x`.
    let whole = std::path::absolute(file)
        .map_err(|error| DatabaseError::Config(format!("{}: {error}", file.display())))?;
    let path = whole
        .to_str()
        .ok_or_else(|| DatabaseError::Config(format!("{} is not UTF-8", file.display())))?;
    // Escapes what must be.
    options.database_url.set_path(path);
    Ok(options)
}

pub(crate) fn postgres(config: &PostgresConfig) -> Result<AnyConnectOptions, DatabaseError> {
    let wrong = |message: &str| DatabaseError::Config(format!("postgres.url: {message}"));
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
