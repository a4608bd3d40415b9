//! Format normalisation (RFC 4496 §4.6): mail with an illegal or uncommon format is repaired, so that everybody behind reads the same.
//!
//! Owns what is repaired and how ([`normalise()`]), and which commands are refused because no repair is possible. A message that is fine passes to
//! the octet; what is repaired is fine afterwards, and nothing that cannot be repaired without loss is touched.

mod commands;
mod config;
pub mod normalise;
mod service;

pub use config::{Config, ConfigError, Repair};
pub use normalise::{Normalised, normalise};
pub use service::{DONE_ANNOTATION, Normalizer};
