//! Client and server together over real sockets on loopback, every transaction with a deadline of its own.

// Unwrapping is how these tests fail.
#![allow(clippy::unwrap_used)]

mod commands;
mod copies;
mod edges;
mod failures;
mod flows;
mod harness;
mod lifecycle;
mod raw;
