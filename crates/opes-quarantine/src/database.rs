//! The index: one schema for SQLite and PostgreSQL, the same statements for both.
//!
//! Migrations are a list that only grows. Every transaction begins with a write, so that SQLite takes its lock at once and
//! PostgreSQL the row's.

use std::path::Path;

pub use opes_database::PostgresConfig;
use opes_database::{Database, Pool, Schema};

use crate::StoreError;

/// Connections to PostgreSQL from one process.
const POSTGRES: Pool = Pool {
    connections_max: 8,
    setup: &[],
};

/// SQLite has one writer; readers need not wait for it. WAL with FULL: a commit is on disk before it is reported.
const SQLITE: Pool = Pool {
    connections_max: 4,
    setup: &["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"],
};

const SCHEMA: Schema = Schema {
    table: "quarantine_schema",
    lock: 4_496_003,
    migrations: MIGRATIONS,
};

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

pub(crate) fn sqlite(file: &Path) -> Result<Database, StoreError> {
    Ok(Database::sqlite(file, &SQLITE, SCHEMA)?)
}

pub(crate) fn postgres(config: &PostgresConfig) -> Result<Database, StoreError> {
    Ok(Database::postgres(config, &POSTGRES, SCHEMA)?)
}
