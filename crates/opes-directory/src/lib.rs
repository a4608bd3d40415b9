//! Directory: bounded look-ups over LDAP and SQL, for services whose answer depends on who somebody is (RFC 4496 §4.4, §4.7).
//!
//! Owns the connections with their health, the cache, the breaker and every bound: time and octets of an answer, entries,
//! look-ups that wait. What is asked for reaches the directory as a value, never as a piece of a filter or statement. A look-up
//! that cannot be answered is an error, which is not remembered; nothing is taken for unknown because nobody could say.
//! Must not know what the answers mean.

mod answer;
mod breaker;
mod config;
mod directory;
mod ldap;
mod metrics;
mod sql;
mod template;

pub use answer::{Answer, Entry, LookupError};
pub use config::{CacheConfig, ConfigError, DirectoryConfig, LdapConfig, Scope, SqlConfig};
pub use directory::Directory;
pub use metrics::Metrics;
pub use template::{FilterTemplate, Inputs, QueryTemplate};
