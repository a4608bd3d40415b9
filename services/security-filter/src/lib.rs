//! Security filter (RFC 4496 §4.1): an attachment policy by detected type, declared type, name and nesting.
//!
//! Owns [`inspect`], which finds what the policy forbids in the octets of a message; [`verdict`], which decides what to do about
//! it; [`SecurityFilter`], which is both behind the callout SDK. What cannot be looked at completely is treated as configured,
//! refused by default; a message is never let through because looking at it failed.

pub mod config;
pub mod formats;
pub mod inspect;
pub mod names;
mod service;
pub mod verdict;

pub use config::{Config, ConfigError};
pub use service::SecurityFilter;
