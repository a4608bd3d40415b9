//! The quarantine: held messages with their envelopes, until they are released, deleted, or expire.
//!
//! Owns the index (SQLite, or PostgreSQL for many edges), the octets (files, or an S3 bucket) and the API of operators. The octets
//! are durable before the row that names them, and go after it; what is left over by a crash is swept. A release is a row that is
//! decided once: the edge makes the message durable in its spool first and delivers it only after [`Store::finish_release`] said so.
//! `docs/operate/quarantine.md` is the operator's page, `docs/adr/0007-quarantine-store.md` says why it is built this way.
//!
//! Fails with [`StoreError`]; nothing here can take the mail path down, as edges hand messages over in the background.
//! Must not know: SMTP dialogs, rules, delivery.

pub mod api;
mod client;
mod contents;
mod database;
mod entry;
mod error;
mod expire;
mod hold;
mod list;
mod metrics;
mod release;
mod store;
mod summary;

pub use client::{Client, ClientError, Endpoint};
pub use contents::S3Config;
pub use database::PostgresConfig;
pub use entry::{AuditRecord, Detail, Entry, Held, RecipientState, RecipientStatus, Summary};
pub use error::StoreError;
pub use list::{Filter, PAGE_MAX, Page};
pub use metrics::Metrics;
pub use release::{Fate, Release, ReleaseRequest};
pub use store::{Backend, Store, StoreConfig};

#[cfg(test)]
mod tests;
