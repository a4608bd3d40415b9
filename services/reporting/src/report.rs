//! What is read out of the database: volume, verdicts, latencies, deliveries, and what is missing.

mod latency;
mod sections;

use std::path::Path;

use opes_database::{Database, DatabaseError, PostgresConfig};
use serde::Serialize;

use crate::config::{Config, ConfigError};
use crate::schema::{READER, SCHEMA};

pub use latency::Latency;

/// Rows of a table that are read at most.
pub const ROWS_MAX: u32 = 1000;

/// One of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Calls of each service.
    Service,
    /// Runs of each rule.
    Rule,
    /// Recipients' domains.
    Domain,
    /// Hours, UTC.
    Hour,
}

/// What to read.
#[derive(Debug, Clone)]
pub struct Query {
    /// Milliseconds since 1970, the first that counts.
    pub since_ms: u64,
    /// Milliseconds since 1970, the first that counts no more.
    pub until_ms: u64,
    /// Tables beside volume, fates, deliveries and losses.
    pub by: Vec<By>,
    /// Rows of a table, at most [`ROWS_MAX`].
    pub rows_max: u32,
}

/// What was read. Of a table that was not asked for there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// As asked.
    pub since_ms: u64,
    /// As asked.
    pub until_ms: u64,
    /// Inbound and outbound.
    pub volume: Vec<VolumeRow>,
    /// What became of messages and refused commands.
    pub fates: Vec<FateRow>,
    /// Attempts to deliver.
    pub attempts: Vec<AttemptRow>,
    /// [`By::Service`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<ServiceRow>>,
    /// [`By::Rule`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<RuleRow>>,
    /// [`By::Domain`], those with most recipients first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domains: Option<Vec<DomainRow>>,
    /// [`By::Hour`], the latest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<Vec<HourRow>>,
    /// Events that are not in the database.
    pub losses: Vec<LossRow>,
}

/// Mail in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRow {
    /// `inbound`, `outbound`.
    pub direction: String,
    /// Complete messages, accepted or not.
    pub messages: u64,
    /// Of them, those that were accepted for somebody.
    pub accepted: u64,
    /// Of mail data.
    pub octets: u64,
    /// Of complete messages.
    pub recipients: u64,
    /// Commands that rules refused.
    pub refused_commands: u64,
}

/// One end of messages or commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FateRow {
    /// `queued`, `relayed`, `quarantined`, `discarded`, `rejected`, `tempfailed`.
    pub fate: String,
    /// The point whose answer it was: `content` for messages.
    pub at: String,
    /// Messages or commands with this end, for some of their recipients at least.
    pub events: u64,
    /// Recipients concerned.
    pub recipients: u64,
}

/// Attempts with one outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptRow {
    /// `delivered`, `deferred`, `bounced`.
    pub outcome: String,
    /// For one recipient each.
    pub attempts: u64,
    /// Since the message was received.
    pub latency_us: Latency,
}

/// Verdicts of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    /// `namespace/name`.
    pub service: String,
    /// Calls that were made, or left out on request.
    pub calls: u64,
    /// What they came to, with their number; failures as `failed: timeout` and so on.
    pub results: Vec<(String, u64)>,
    /// Of the calls that were made, failures included.
    pub latency_us: Latency,
}

/// Verdicts of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleRow {
    /// `namespace/name`.
    pub rule: String,
    /// The service that it calls; empty for an action.
    pub service: String,
    /// How often it ran.
    pub runs: u64,
    /// As for services.
    pub results: Vec<(String, u64)>,
}

/// Mail to one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainRow {
    /// In lower case; empty for addresses without one.
    pub domain: String,
    /// Complete messages.
    pub messages: u64,
    /// Of these messages.
    pub recipients: u64,
    /// Attempts that succeeded.
    pub delivered: u64,
    /// Attempts that failed for now.
    pub deferred: u64,
    /// Recipients that were given up.
    pub bounced: u64,
}

/// Mail in one hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HourRow {
    /// Its beginning, milliseconds since 1970.
    pub hour_ms: u64,
    /// Complete messages.
    pub messages: u64,
    /// Of them, those that were accepted for somebody.
    pub accepted: u64,
    /// Of mail data.
    pub octets: u64,
    /// Of complete messages.
    pub recipients: u64,
    /// Commands that rules refused.
    pub refused_commands: u64,
}

/// Events that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LossRow {
    /// `full` (queue), `rejected` (by the database), `stopped` (waited when the service ended).
    pub reason: String,
    /// Their number.
    pub events: u64,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No file.
    #[error(
        "there is no database {0}; it is made when the reporting service is told of its first message"
    )]
    Missing(String),
    /// The range.
    #[error("nothing is between these times: the first is not before the second")]
    Range,
    /// The place.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for ReportError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Reads a report from the database that `config` names. Nothing is made or changed there.
pub async fn report(config: &Config, query: &Query) -> Result<Report, ReportError> {
    if query.since_ms >= query.until_ms {
        return Err(ReportError::Range);
    }
    let database = match &config.database.postgres {
        Some(place) => server(&place.read()?)?,
        None => file(&config.database.sqlite_file())?,
    };
    sections::read(database.pool_as_it_is().await?, query).await
}

fn server(place: &PostgresConfig) -> Result<Database, ReportError> {
    Ok(Database::postgres(place, &READER, SCHEMA)?)
}

fn file(path: &Path) -> Result<Database, ReportError> {
    let missing = || ReportError::Missing(path.display().to_string());
    let file = std::path::absolute(path).map_err(|_| missing())?;
    if !file.is_file() {
        return Err(missing());
    }
    Ok(Database::sqlite_existing(&file, &READER, SCHEMA)?)
}

#[cfg(test)]
mod tests;
