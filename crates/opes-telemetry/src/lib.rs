//! What every program shows of itself: logs, metrics, health, and [`bug!`].
//!
//! Owns the log format, the metrics [`Registry`], the readiness [`Health`] and the small admin server that serves both.
//! Fails loudly at start (bad log level) and never afterwards: no function here can take the mail path down.
//! Knows nothing of mail; metric names and readiness reasons belong to the programs.

mod admin;
pub mod bugs;
mod health;
mod logs;
mod process;
mod registry;

pub use admin::{ADMIN_CONNECTIONS_MAX, serve_admin};
pub use health::{Health, NotReady};
pub use logs::{Format, LogsError, init_logs};
/// The metric types that [`Registry::register`] takes.
pub use prometheus_client as metrics;
pub use registry::Registry;

#[doc(hidden)]
pub use tracing as __tracing;
