//! Reporting (RFC 4496 §4.3): what became of each message, what it came from and how long it took, kept in a database. Metadata only.
//!
//! Owns what is kept of an event ([`Reporting`], an observer), how it gets into SQLite or PostgreSQL, and what is read out of it
//! ([`report()`]). Mail never waits for it: events go through a bounded queue, and what finds no room is counted. An event counts once,
//! however often its transaction is repeated. `docs/services/reporting.md` is the operator's page, `docs/adr/0015-reporting.md` says why.

mod address;
mod config;
mod event;
mod metrics;
mod queue;
mod report;
mod rows;
mod schema;
mod service;
mod store;
mod text;
mod writer;

pub use address::KeyError;
pub use config::{AddressMode, Config, ConfigError, DatabaseConfig, PostgresPlace};
pub use metrics::Metrics;
pub use report::{
    AttemptRow, By, DomainRow, FateRow, HourRow, Latency, LossRow, Query, ROWS_MAX, Report,
    ReportError, RuleRow, ServiceRow, VolumeRow, report,
};
pub use service::Reporting;
