//! The tables. The same statements make them in SQLite and PostgreSQL; every row bears its time, so that no report needs a join for it.

use opes_database::{Pool, Schema};

/// One connection writes, and what is left serves retention and reports.
pub(crate) const SQLITE: Pool = Pool {
    connections_max: 2,
    // WAL: reports read while events are written. NORMAL: a power cut may take the last moments, never the database.
    setup: &["PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"],
};

/// The server gives up a statement before we give up the connection.
pub(crate) const POSTGRES: Pool = Pool {
    connections_max: 2,
    setup: &["SET statement_timeout = '20s'"],
};

/// For readers: a long range takes its time.
pub(crate) const READER: Pool = Pool {
    connections_max: 1,
    setup: &[],
};

pub(crate) const SCHEMA: Schema = Schema {
    table: "report_schema",
    lock: 4_496_015,
    migrations: MIGRATIONS,
};

/// Version n is made by the first n.
const MIGRATIONS: &[&[&str]] = &[&[
    "CREATE TABLE report_events (
        id TEXT PRIMARY KEY, at_ms BIGINT NOT NULL, dialog TEXT NOT NULL, listener TEXT NOT NULL, direction TEXT NOT NULL,
        point TEXT NOT NULL, octets BIGINT NOT NULL, sender TEXT NOT NULL, sender_domain TEXT NOT NULL,
        recipients BIGINT NOT NULL, accepted BIGINT NOT NULL, elapsed_us BIGINT NOT NULL)",
    "CREATE INDEX report_events_at ON report_events (at_ms)",
    "CREATE TABLE report_recipients (
        event TEXT NOT NULL, number BIGINT NOT NULL, at_ms BIGINT NOT NULL, point TEXT NOT NULL, address TEXT NOT NULL,
        domain TEXT NOT NULL, recipients BIGINT NOT NULL, PRIMARY KEY (event, number))",
    "CREATE INDEX report_recipients_at ON report_recipients (at_ms)",
    "CREATE TABLE report_fates (
        event TEXT NOT NULL, number BIGINT NOT NULL, at_ms BIGINT NOT NULL, point TEXT NOT NULL, fate TEXT NOT NULL,
        queue_id TEXT NOT NULL, recipients BIGINT NOT NULL, code BIGINT NOT NULL, enhanced TEXT NOT NULL,
        PRIMARY KEY (event, number))",
    "CREATE INDEX report_fates_at ON report_fates (at_ms)",
    "CREATE INDEX report_fates_queue ON report_fates (queue_id)",
    "CREATE TABLE report_steps (
        event TEXT NOT NULL, number BIGINT NOT NULL, at_ms BIGINT NOT NULL, rule TEXT NOT NULL, service TEXT NOT NULL,
        result TEXT NOT NULL, failure TEXT NOT NULL, elapsed_us BIGINT NOT NULL, PRIMARY KEY (event, number))",
    "CREATE INDEX report_steps_at ON report_steps (at_ms)",
    "CREATE TABLE report_attempts (
        id TEXT PRIMARY KEY, at_ms BIGINT NOT NULL, dialog TEXT NOT NULL, queue_id TEXT NOT NULL, outcome TEXT NOT NULL,
        address TEXT NOT NULL, domain TEXT NOT NULL, code BIGINT NOT NULL, enhanced TEXT NOT NULL, elapsed_ms BIGINT NOT NULL)",
    "CREATE INDEX report_attempts_at ON report_attempts (at_ms)",
    "CREATE INDEX report_attempts_queue ON report_attempts (queue_id)",
    "CREATE TABLE report_losses (
        id TEXT PRIMARY KEY, at_ms BIGINT NOT NULL, reason TEXT NOT NULL, events BIGINT NOT NULL)",
    "CREATE INDEX report_losses_at ON report_losses (at_ms)",
]];

/// Removes the oldest rows before $1, at most $2, a statement a table.
pub(crate) const EXPIRE: [&str; 6] = [
    "DELETE FROM report_recipients WHERE (event, number) IN
        (SELECT event, number FROM report_recipients WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)",
    "DELETE FROM report_fates WHERE (event, number) IN
        (SELECT event, number FROM report_fates WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)",
    "DELETE FROM report_steps WHERE (event, number) IN
        (SELECT event, number FROM report_steps WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)",
    "DELETE FROM report_events WHERE id IN (SELECT id FROM report_events WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)",
    "DELETE FROM report_attempts WHERE id IN (SELECT id FROM report_attempts WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)",
    "DELETE FROM report_losses WHERE id IN (SELECT id FROM report_losses WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)",
];
