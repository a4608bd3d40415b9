//! Rerouting: recipients are rewritten, or sent to another server, by a map file (RFC 4496 §4.7).
//!
//! At RCPT the command line comes back with the new address and the parameters it had (command modification), or with a
//! next hop. Owns the map and its reloading. A map that cannot be read keeps the service from starting; later it keeps the
//! last good one in force.

mod config;
mod map;
mod service;
pub mod verdict;

pub use map::{DETAIL_SEPARATOR, ENTRIES_MAX, Map, MapError, NextHop, RewriteError, Route, Target};
pub use service::Rerouting;
