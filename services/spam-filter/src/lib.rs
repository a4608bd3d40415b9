//! Spam filter (RFC 4496 §4.2): a score from rspamd, or from our own checks of the sender, and what is done about it.
//!
//! Owns the question to rspamd (`/checkv2`), our own engine (SPF, DKIM, DMARC, DNS lists, what the header shows), and the way from a judgement
//! to header fields, a mark in the subject, a queue of its own, or a refusal. An engine that cannot be asked fails the transaction: the failure
//! policy of the rule decides, and no mail is taken for clean because nobody looked. DNS is no such engine unless `dnsFailure` says so: its
//! silence is shown, and weighs nothing.

mod config;
mod metrics;
mod own;
mod question;
mod reply;
mod service;
mod verdict;

pub use config::own::{DnsFailure, DnsblConfig, OwnConfig, OwnError, Thresholds};
pub use config::{Config, ConfigError, EngineConfig, OnAction, RspamdConfig};
pub use own::score::Symbol;
pub use own::{DKIM_ANNOTATION, DMARC_ANNOTATION, SPF_ANNOTATION};
pub use reply::ReplyError;
pub use service::SpamFilter;
pub use verdict::{ACTION_ANNOTATION, SCORE_ANNOTATION};
