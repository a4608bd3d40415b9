//! Mutual TLS between client and server: who is let in, what is said of the others, and certificates that are replaced
//! while transactions run.

mod authority;
mod log;
mod peers;
mod refusals;
mod rotation;
