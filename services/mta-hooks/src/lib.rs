//! MTA Hooks: a scanner that speaks HTTP and JSON, as Stalwart Labs documented it, works as an OPES callout service, unmodified.
//!
//! Owns both mappings: from a command or message to the hook's request, from its response to verdict, header operations, envelope changes and
//! one splice of the body. A scanner that cannot be reached, or says what cannot be read or done, fails the transaction as a whole, so that
//! the failure policy of the rule decides; a half of its answer is never applied.

mod config;
mod request;
mod response;
mod service;

pub use config::{Config, ConfigError};
pub use response::{MODIFICATIONS_MAX, ResponseError};
pub use service::MtaHooks;
