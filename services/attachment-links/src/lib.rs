//! Attachments become links (RFC 4496 §4.9): large parts go to a folder or a bucket while the message arrives, a signed link that expires
//! takes their place, and a small web server hands them out.
//!
//! Owns which parts are moved ([`choose`]), the [`store`], the [`link`]s, what is written into messages ([`insert`]) and the [`web`] pages.
//! A part is durable in the store before the answer that takes it out of the message; whatever fails before fails the callout, and what was
//! stored for it is removed.

pub mod choose;
mod config;
pub mod insert;
mod intake;
pub mod link;
mod metrics;
mod names;
mod service;
pub mod store;
mod sweep;
pub mod web;

pub use config::{Config, ConfigError, Replacement, S3, Settings, StoreConfig};
pub use service::{AttachmentLinks, MOVED_ANNOTATION};
