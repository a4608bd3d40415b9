//! Client and server together over real sockets on loopback, every transaction with a deadline of its own.

mod commands;
mod failures;
mod flows;
mod harness;
mod lifecycle;
