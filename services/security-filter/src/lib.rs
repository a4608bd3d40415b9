//! Security filter (RFC 4496 §4.1): an attachment policy by detected type, declared type, name and nesting, with archives opened, and
//! a search for viruses by ClamAV.
//!
//! Owns [`inspect`], which finds what the policy forbids in the octets of a message; [`archive`], which opens archives within limits;
//! [`clamd`], which asks ClamAV; [`verdict`], which decides what to do about it; [`SecurityFilter`], which is all of them behind the
//! callout SDK. What cannot be looked at completely is treated as configured, refused by default; a message is never let through
//! because looking at it failed.

pub mod archive;
pub mod clamd;
pub mod config;
pub mod formats;
pub mod inspect;
pub mod names;
mod policy;
mod service;
pub mod verdict;

pub use config::{Config, ConfigError};
pub use service::SecurityFilter;
