//! SMTP, submission and LMTP as cores without I/O: grammar, replies, the receiving and the sending side.
//!
//! Octets and decisions go in, actions come out; sockets, clocks, TLS and disk belong to the caller. Everything here is
//! driven by a peer that may be hostile, so nothing panics on input and every length and count has a limit in [`limits`].

pub mod auth;
pub mod client;
pub mod command;
#[cfg(any(test, feature = "dialog"))]
pub mod dialog;
pub mod grammar;
pub mod limits;
pub mod proxy;
pub mod reply;
pub mod server;
