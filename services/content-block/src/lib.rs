//! Content block (RFC 4496 §4.8): mail is refused during the dialog, before anybody has taken responsibility for it.
//!
//! Senders and recipients on a list are refused in the reply to MAIL and RCPT; words and patterns in the decoded subject and text in the reply
//! to the content. Owns the lists, and what text a reader would see ([`text`]). Changes nothing in mail that passes.

mod addresses;
mod config;
mod service;
pub mod text;
mod words;

pub use addresses::AddressList;
pub use config::{Config, ConfigError, ENTRIES_MAX, Place};
pub use service::{ContentBlock, MATCH_ANNOTATION};
pub use words::{Found, WordError, Words};
