//! Spam filter (RFC 4496 §4.2): a score from rspamd, and what is done about it.
//!
//! Owns the question to rspamd (`/checkv2`), and the way from its reply to header fields, a mark in the subject, a queue of its own, or a
//! refusal. An engine that cannot be asked fails the transaction: the failure policy of the rule decides, and no mail is taken for clean
//! because nobody looked.

mod config;
mod question;
mod reply;
mod service;

pub use config::{Config, ConfigError, OnAction};
pub use reply::ReplyError;
pub use service::{ACTION_ANNOTATION, SCORE_ANNOTATION, SpamFilter};
