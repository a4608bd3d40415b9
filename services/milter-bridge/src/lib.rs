//! Milter bridge: an unmodified milter, any program written for Sendmail's or Postfix's milter protocol, works as an OPES callout service.
//!
//! Owns both mappings: from the dialog and the mail data to a milter session, from the milter's replies to verdict, edits, envelope and advice.
//! A session lasts one transaction, and what the milter said of earlier ones is not kept. A milter that cannot be reached, breaks the protocol or dies
//! fails the transaction as a whole, so that the failure policy of the rule decides.

mod body;
mod changes;
mod config;
mod connection;
mod dialog;
mod endpoint;
mod headers;
mod recipients;
mod service;
mod verdict;

pub use config::{Config, ConfigError};
pub use connection::MilterError;
pub use endpoint::{Endpoint, EndpointError};
pub use service::MilterBridge;
pub use verdict::BODY_SPLICE_OCTETS_MAX;
