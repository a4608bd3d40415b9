//! Mutual TLS between client and server: who is let in, what is said of the others, and certificates that are replaced
//! while transactions run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authority;
mod log;
mod peers;
mod refusals;
mod rotation;
