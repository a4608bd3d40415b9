//! What the edge calls: one [`ServiceClient`] per callout service, transactions multiplexed on few OCP connections.
//!
//! It owns connections (opened when needed, opened anew when lost) and streams the original while it grows. The message
//! stays the caller's: whatever happens to the service, nothing of it is lost. A failure ends its own transaction with a
//! [`CalloutError`]; nothing sticks. The protocol's rules are `opes-ocp`'s; what an answer means is the edge's.

mod answer;
mod ask;
mod client;
mod config;
mod connection;
mod context;
mod copies;
mod error;
mod extent;
mod groups;
mod naming;
mod negotiated;
mod own;
mod pool;
mod reassembly;
mod request;
mod sender;
mod task;
mod tls;
mod transaction;
mod wire;

pub use client::ServiceClient;
pub use config::ServiceClientConfig;
pub use error::CalloutError;
pub use opes_tls::{ClientTls, MutualFiles};
pub use request::{Answer, AnswerCopy, ContentWant, Group, Request};
pub use tls::TLS_CONNECTION_AGE_MAX;
