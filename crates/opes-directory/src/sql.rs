//! A database: SQLite or PostgreSQL, opened for reading, one prepared statement.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use secrecy::ExposeSecret as _;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::{AnyPool, AssertSqlSafe, Column as _, Executor as _, Row as _};

use crate::answer::{Answer, Entry};
use crate::config::{
    ConfigError, DirectoryConfig, SqlConfig, in_the_clear, is_this_machine, password, wrong,
};
use crate::directory::Failure;
use crate::template::QueryTemplate;

#[derive(Debug)]
pub(crate) struct Sql {
    query: QueryTemplate,
    /// The query within one that bounds its rows.
    statement: String,
    settings: Settings,
    pool: OnceLock<AnyPool>,
    entries_max: u32,
    size_max: usize,
}

struct Settings {
    options: AnyConnectOptions,
    is_postgres: bool,
    connections_max: u32,
    timeout: Duration,
}

// === impl Sql ===

impl Sql {
    pub(crate) fn new(
        sql: &SqlConfig,
        config: &DirectoryConfig,
        inputs: &[&str],
    ) -> Result<Self, ConfigError> {
        let query = QueryTemplate::parse(&sql.query, inputs);
        let query = query.map_err(|reason| wrong("sql.query", reason))?;
        sqlx::any::install_default_drivers();
        let (options, is_postgres) = match sql.url.strip_prefix("sqlite:") {
            Some(path) => (sqlite(path)?, false),
            None => (postgres(sql)?, true),
        };
        // The end of a line comment in the query is ours.
        let statement = format!(
            "SELECT * FROM (\n{}\n) AS answer LIMIT {}",
            query.sql(),
            config.entries_max + 1
        );
        Ok(Self {
            query,
            statement,
            settings: Settings {
                options,
                is_postgres,
                connections_max: config.connections_max,
                timeout: config.timeout(),
            },
            pool: OnceLock::new(),
            entries_max: config.entries_max,
            size_max: config.size_max,
        })
    }

    pub(crate) fn inputs(&self) -> &[String] {
        self.query.names()
    }

    /// The caller sets the time.
    pub(crate) fn search<'a>(
        &'a self,
        values: &'a [String],
    ) -> BoxFuture<'a, Result<Answer, Failure>> {
        // Boxed: the compiler cannot see otherwise that the future may move between threads.
        Box::pin(async move {
            let pool = self.pool.get_or_init(|| self.settings.pool());
            let mut query = sqlx::query(AssertSqlSafe(self.statement.clone()));
            for value in values {
                query = query.bind(value.clone());
            }
            let mut rows = query.fetch(pool);
            let mut answer = Answer::default();
            while let Some(row) = rows.next().await {
                let row = row.map_err(|error| failure(&error))?;
                let entry = entry(answer.entries.len() + 1, &row)?;
                answer.entries.push(entry);
                if answer.entries.len() > self.entries_max as usize {
                    return Err(Failure::Excess(format!(
                        "more than entriesMax ({}) rows; narrow the query",
                        self.entries_max
                    )));
                }
                if answer.octets() > self.size_max {
                    return Err(Failure::Excess(
                        "more than sizeMax octets; narrow the query, or raise it".to_owned(),
                    ));
                }
            }
            Ok(answer)
        })
    }
}

// === impl Settings ===

impl Settings {
    /// Connects to nothing yet; needs a runtime.
    fn pool(&self) -> AnyPool {
        let (is_postgres, timeout) = (self.is_postgres, self.timeout.as_millis());
        AnyPoolOptions::new()
            .max_connections(self.connections_max)
            .acquire_timeout(self.timeout)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if is_postgres {
                        let set = format!(
                            "SET default_transaction_read_only = on; SET statement_timeout = {timeout}"
                        );
                        connection.execute(AssertSqlSafe(set)).await?;
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(self.options.clone())
    }
}

impl std::fmt::Debug for Settings {
    /// The options hold the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

fn url_error(reason: impl Into<String>) -> ConfigError {
    wrong("sql.url", reason.into())
}

/// `path`: behind `sqlite:`.
fn sqlite(path: &str) -> Result<AnyConnectOptions, ConfigError> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if !Path::new(path).is_absolute() || path.contains('?') {
        return Err(url_error(
            "write sqlite:///PATH, with the whole path and nothing behind it",
        ));
    }
    let mut options: AnyConnectOptions = "sqlite:///?mode=ro"
        .parse()
        .map_err(|error: sqlx::Error| url_error(error.to_string()))?;
    options.database_url.set_path(path);
    Ok(options)
}

fn postgres(sql: &SqlConfig) -> Result<AnyConnectOptions, ConfigError> {
    const FORM: &str = "write postgres://USER@HOST/DATABASE or sqlite:///PATH";
    let mut options: AnyConnectOptions = sql.url.parse().map_err(|_| url_error(FORM))?;
    let url = &mut options.database_url;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(url_error(FORM));
    }
    if url.password().is_some() {
        return Err(url_error("passwords belong into sql.passwordFile"));
    }
    let find = |wanted: &str| {
        let mut pairs = url.query_pairs().filter(|(name, _)| name == wanted);
        pairs.next().map(|(_, value)| value.into_owned())
    };
    let host = find("host").or_else(|| url.host_str().map(str::to_owned));
    let host = host
        .filter(|host| !host.is_empty())
        .ok_or_else(|| url_error("name the host; a Unix socket is ?host=/run/postgresql"))?;
    let mode = find("sslmode");
    let is_here = host.starts_with('/') || is_this_machine(&host);
    match mode.as_deref() {
        Some("verify-full" | "verify-ca") => {}
        None | Some(_) if is_here || sql.insecure_plaintext => {}
        None => {
            url.query_pairs_mut().append_pair("sslmode", "verify-full");
        }
        Some(_) => return Err(url_error(in_the_clear(&host, "sslmode=verify-full"))),
    }
    if let Some(path) = &sql.ca_file {
        let path = path
            .to_str()
            .ok_or_else(|| wrong("sql.caFile", "is not UTF-8".to_owned()))?;
        url.query_pairs_mut().append_pair("sslrootcert", path);
    }
    if let Some(path) = &sql.password_file {
        let password = password(path).map_err(|reason| wrong("sql.passwordFile", reason))?;
        url.set_password(Some(password.expose_secret()))
            .map_err(|()| url_error("a password needs a user and a host"))?;
    }
    Ok(options)
}

/// Texts, whole numbers and truth values; the driver knows no others (cast them in the query).
fn entry(number: usize, row: &AnyRow) -> Result<Entry, Failure> {
    let mut entry = Entry::new(format!("row {number}"));
    for column in row.columns() {
        let index = column.ordinal();
        let text = row.try_get::<Option<String>, _>(index).or_else(|_| {
            let number = row.try_get::<Option<i64>, _>(index);
            number.map(|number| number.map(|number| number.to_string()))
        });
        let value = text.or_else(|_| {
            let truth = row.try_get::<Option<bool>, _>(index);
            truth.map(|truth| truth.map(|truth| truth.to_string()))
        });
        let value = value.map_err(|_| {
            Failure::Refused(format!(
                "column `{}` is no text; cast it in the query",
                column.name()
            ))
        })?;
        entry.add(column.name(), value);
    }
    Ok(entry)
}

fn failure(error: &sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(said) => Failure::Refused(said.message().to_owned()),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::AnyDriverError(_) => {
            Failure::Refused(format!("{error}; cast that column to text in the query"))
        }
        error => Failure::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
