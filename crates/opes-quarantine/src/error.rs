//! Why the quarantine could not do what it was asked.

use std::path::PathBuf;

use opes_database::{ACQUIRE_TIMEOUT, DatabaseError};

/// What went wrong, with the remedy where there is one.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said no, or is away.
    #[error("quarantine database: {0}")]
    Database(String),
    /// A file cannot be read or written.
    #[error("quarantine file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bucket said no, or is away.
    #[error("quarantine bucket: {0}")]
    Bucket(String),
    /// The configuration cannot work.
    #[error("quarantine configuration: {0}")]
    Config(String),
    /// Written by a newer version.
    #[error(
        "the quarantine database has schema {found}, this version knows {known}; start the newer version"
    )]
    Newer {
        /// In the database.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// No such entry.
    #[error(
        "nothing is held as `{0}`; `opes quarantine list` shows what is (a message appears some moments after it was accepted)"
    )]
    NotFound(String),
    /// It was here.
    #[error("`{id}` is gone: {what} by {by}")]
    Gone {
        /// The entry.
        id: String,
        /// `deleted` or `expired`.
        what: String,
        /// Operator.
        by: String,
    },
    /// Not a recipient of this message.
    #[error("`{address}` is not a recipient of `{id}`; `opes quarantine show {id}` lists them")]
    NotARecipient {
        /// The entry.
        id: String,
        /// As asked for.
        address: String,
    },
    /// It went out before.
    #[error("{addresses}: released already, and not again without --again")]
    AlreadyReleased {
        /// Those concerned.
        addresses: String,
    },
    /// Another release is not finished.
    #[error(
        "{addresses}: a release by edge {edge} is not finished; it is finished as soon as that edge runs, or give --again to replace it"
    )]
    UnderWay {
        /// Those concerned.
        addresses: String,
        /// The edge whose spool it is for.
        edge: String,
    },
    /// The release is recorded; the edge could not finish it yet.
    #[error("the release is recorded, and the edge will finish it by itself: {0}")]
    Pending(String),
    /// A request that makes no sense.
    #[error("{0}")]
    Request(String),
}

impl StoreError {
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }

    /// The store's own fault, which passes or must be mended; not the caller's.
    pub fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Database(_) | Self::File { .. } | Self::Bucket(_) | Self::Config(_)
        )
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Config(message) => Self::Config(message),
            DatabaseError::Newer { found, known } => Self::Newer { found, known },
            DatabaseError::Sql(sqlx::Error::PoolTimedOut) => Self::Database(format!(
                "no connection within {ACQUIRE_TIMEOUT:?}; is the database up, and are address, user and password those of `quarantine.postgres`?"
            )),
            other @ (DatabaseError::NotReady { .. } | DatabaseError::Sql(_)) => {
                Self::Database(other.to_string())
            }
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        Self::Bucket(error.to_string())
    }
}
