//! The SDK of callout services: a service is a struct with one or two async methods ([`Service`]); this crate is all the
//! rest: OCP/SMTP over gRPC, negotiation, credit, data preservation, health, reflection, drain.
//!
//! It owns connections and transactions; a handler owns its [`Message`]. A handler that fails, panics or is too slow
//! harms its own transaction only: the processor still has the original. The protocol's rules are `opes-ocp`'s; here are
//! tasks and sockets. It knows nothing of a particular service.

mod adapted;
mod answer;
mod command;
mod config;
mod connection;
mod copies;
mod handler;
mod host;
mod link;
mod listener;
mod message;
mod options;
mod outgoing;
mod run;
mod serve;
mod service;
mod tls;
mod transaction;

pub use adapted::{Adapted, AdaptedMessage, FRAGMENT_OCTETS_MAX};
pub use answer::Answer;
pub use command::{Command, CommandAnswer, GroupParameters};
pub use config::ServerConfig;
pub use copies::CopiesError;
pub use listener::Listener;
pub use message::{Message, MessageError};
pub use opes_tls::{MutualFiles, ServerTls};
pub use options::{LISTEN_DEFAULT, ListenOptions};
pub use run::{run, run_on, shutdown_on_signal};
pub use serve::{STOP_TIMEOUT, serve};
pub use service::{Description, Service};
pub use tls::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, TELL_INTERVAL};
