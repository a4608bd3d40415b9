//! Rerouting: recipients are rewritten, or sent to another server, by a map or a directory (RFC 4496 §4.7).
//!
//! At RCPT the command line comes back with the new address and the parameters it had (command modification), or with a
//! next hop. Owns the map and its reloading, and what the entries of a directory mean. A map that cannot be read keeps the service
//! from starting; later it keeps the last good one in force. A directory that cannot be asked fails the transaction.

mod config;
mod directory;
mod map;
mod service;
pub mod verdict;

pub use directory::{AnswerConfig, DirectoryOptions, OnUnknown, Question, Questions};
pub use map::{
    DETAIL_SEPARATOR, ENTRIES_MAX, Map, MapError, NextHop, Origin, RewriteError, Route, Target,
};
pub use service::Rerouting;
