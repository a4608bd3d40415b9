//! Where reports are kept, and how much of an address: the `config` of a `CalloutService`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use opes_database::PostgresConfig;
use serde::Deserialize;

use crate::address::KeyError;

/// Database in the working directory if none is named.
const SQLITE_DEFAULT: &str = "reporting.sqlite";

/// A hundred years.
const KEEP_DAYS_MAX: u64 = 36_525;

/// Events that may wait, whatever the configuration says.
const QUEUE_MAX: usize = 1_000_000;

/// Events in one transaction of the database, whatever the configuration says.
const BATCH_MAX: usize = 5_000;

/// What `config` may hold; every field has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Where reports are kept.
    pub database: DatabaseConfig,
    /// How much of an address is kept.
    pub addresses: AddressMode,
    /// Key of hashed addresses: 64 hexadecimal digits. Beside a SQLite database it is made; with PostgreSQL it must be named.
    pub key_file: Option<PathBuf>,
    /// What comes in on these listeners is outbound, as is everything from authenticated clients.
    pub outbound_listeners: Vec<String>,
    /// Events that wait for the database; more are dropped and counted.
    pub queue_max: usize,
    /// Events written in one transaction.
    pub batch_max: usize,
    /// Milliseconds that a first event waits for others.
    pub flush_ms: u64,
    /// Days until an event is removed.
    pub keep_days: u64,
    /// Milliseconds that what waits gets to be written in when the service is told to go; at most 10,000.
    pub stop_ms: u64,
}

/// A file, or a server that several instances share.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// A SQLite file; its folder is made.
    pub sqlite: Option<PathBuf>,
    /// A PostgreSQL database.
    pub postgres: Option<PostgresPlace>,
}

/// Where PostgreSQL is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostgresPlace {
    /// `postgres://USER@HOST/DATABASE`, with parameters as libpq has them.
    pub url: String,
    /// The password, on one line.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// How much of an address is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AddressMode {
    /// A keyed hash: equal addresses can be counted, and found by who has the key and the address.
    #[default]
    Hashed,
    /// As it is.
    Full,
    /// Nothing but its domain.
    Domains,
}

/// Why a configuration makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the fields above.
    #[error("{0}; docs/services/reporting.md lists the fields")]
    Fields(#[from] serde_json::Error),
    /// Both places.
    #[error("database: sqlite and postgres are two places; name one of them")]
    TwoPlaces,
    /// Out of bounds.
    #[error("{field}: {found} is not between {min} and {max}")]
    Range {
        /// Its name.
        field: &'static str,
        /// As written.
        found: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// Hashes of several instances must be comparable.
    #[error(
        "keyFile: hashed addresses need a key that all instances share; make one with `openssl rand -hex 32`, or choose `addresses: domains`"
    )]
    NoKey,
    /// The key.
    #[error("keyFile: {0}")]
    Key(#[from] KeyError),
    /// The place.
    #[error("database: {0}")]
    Database(opes_database::DatabaseError),
    /// A file or folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            database: DatabaseConfig::default(),
            addresses: AddressMode::default(),
            key_file: None,
            outbound_listeners: vec!["submission".into()],
            queue_max: 10_000,
            batch_max: 500,
            flush_ms: 1_000,
            keep_days: 90,
            stop_ms: 5_000,
        }
    }
}

impl Config {
    /// Reads and checks it.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ConfigError> {
        let config = Self::deserialize(json)?;
        if config.database.sqlite.is_some() && config.database.postgres.is_some() {
            return Err(ConfigError::TwoPlaces);
        }
        let octets = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        for (field, found, min, max) in [
            ("queueMax", octets(config.queue_max), 1, octets(QUEUE_MAX)),
            ("batchMax", octets(config.batch_max), 1, octets(BATCH_MAX)),
            ("flushMs", config.flush_ms, 1, 60_000),
            ("keepDays", config.keep_days, 1, KEEP_DAYS_MAX),
            ("stopMs", config.stop_ms, 0, 10_000),
        ] {
            if !(min..=max).contains(&found) {
                return Err(ConfigError::Range {
                    field,
                    found,
                    min,
                    max,
                });
            }
        }
        Ok(config)
    }

    /// Where the key of hashed addresses is, and whether it may be made there.
    pub(crate) fn key_place(&self) -> Result<(PathBuf, bool), ConfigError> {
        match (&self.key_file, &self.database.postgres) {
            (Some(path), _) => Ok((path.clone(), self.database.postgres.is_none())),
            (None, None) => {
                let mut path = self.database.sqlite_file().into_os_string();
                path.push(".key");
                Ok((path.into(), true))
            }
            (None, Some(_)) => Err(ConfigError::NoKey),
        }
    }

    pub(crate) fn keep(&self) -> Duration {
        Duration::from_hours(self.keep_days.saturating_mul(24))
    }
}

// === impl DatabaseConfig ===

impl DatabaseConfig {
    /// The SQLite file; meaningless if there is a PostgreSQL database.
    pub fn sqlite_file(&self) -> PathBuf {
        self.sqlite
            .clone()
            .unwrap_or_else(|| PathBuf::from(SQLITE_DEFAULT))
    }
}

// === impl PostgresPlace ===

impl PostgresPlace {
    /// With the password.
    pub(crate) fn read(&self) -> Result<PostgresConfig, ConfigError> {
        let password = self.password_file.as_deref().map(one_line).transpose()?;
        Ok(PostgresConfig {
            url: self.url.clone(),
            password: password.map(Into::into),
        })
    }
}

fn one_line(path: &Path) -> Result<String, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(ConfigError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (config, said) in [
            (json!({ "data": {} }), "unknown field `data`"),
            (
                json!({ "database": { "mysql": "x" } }),
                "unknown field `mysql`",
            ),
            (
                json!({ "database": { "sqlite": "a", "postgres": { "url": "postgres://a@b/c" } } }),
                "name one of them",
            ),
            (json!({ "addresses": "none" }), "unknown variant `none`"),
            (json!({ "queueMax": 0 }), "queueMax: 0 is not between 1 and"),
            (json!({ "batchMax": 9_999 }), "batchMax"),
            (json!({ "flushMs": 0 }), "flushMs"),
            (json!({ "keepDays": 0 }), "keepDays"),
            (json!({ "stopMs": 10_001 }), "stopMs"),
        ] {
            let error = Config::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn the_key_is_beside_the_file_and_must_be_named_for_a_server() {
        let config = Config::from_json(&json!({ "database": { "sqlite": "a/b.sqlite" } })).unwrap();
        assert_eq!(
            config.key_place().unwrap(),
            (PathBuf::from("a/b.sqlite.key"), true)
        );
        let shared = json!({ "database": { "postgres": { "url": "postgres://a@b/c" } } });
        let error = Config::from_json(&shared).unwrap().key_place().unwrap_err();
        assert!(
            error.to_string().contains("openssl rand -hex 32"),
            "{error}"
        );
    }
}
