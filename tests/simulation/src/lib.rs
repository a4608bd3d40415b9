//! The whole pipeline in one process, with every message, fault and millisecond decided by a seed (`docs/simulation.md`).
//!
//! Edge, relay, spool, callout client and callout SDK are the production code. Simulated are the network (turmoil), time (tokio's paused
//! clock), what a disk keeps when the power goes, and the hosts around: clients, next hop, the services' verdicts.

mod check;
mod client;
mod disk;
mod edge;
mod hop;
mod ledger;
mod mail;
mod net;
mod plan;
mod services;
mod world;

pub use plan::KnownBug;
pub use world::{Outcome, run};
