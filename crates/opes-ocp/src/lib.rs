//! OCP Core (RFC 4037), both roles, without I/O.
//!
//! [`Processor`] is P, [`CalloutServer`] is S. Each owns the state of one OCP connection: negotiation, service groups,
//! transactions and their two flows. The shell feeds messages in ([`Processor::receive`]), calls what it wants to do, and
//! takes events and messages out; time comes in as a value (`tick`). One object is one connection; objects know nothing of
//! each other, so ids of one connection cannot have an effect on another (RFC 4037 §13).
//!
//! How it fails: a local call that the protocol forbids is a [`CallError`] and changes nothing. A message of the peer that
//! breaks a [`Rule`] ends its transaction with TE 400, or the connection with CE 400 when its scope is the connection
//! (RFC 4037 §5); the shell sees that as `Ended` or `ConnectionEnded` with a [`Failure`]. After the end nothing further
//! happens: calls are refused and messages are dropped and counted.
//!
//! What it does not know: SMTP (fields named `profile`, `parameters` are opaque octets), gRPC, tokio, clocks. It holds no
//! content: payloads pass through as [`bytes::Bytes`], and the original that P keeps for DUY is the shell's.
//!
//! State is bounded by [`Limits`]. Ended transactions leave nothing behind: ids only grow, so one high-water mark tells
//! late messages from invented ones.
//!
//! The queues of events and of output are drained by the shell: do it after each `receive` (or small batch of them).

mod callout_server;
mod connection;
mod error;
mod flow;
mod groups;
mod limits;
mod negotiation;
mod preservation;
mod processor;
mod transactions;
mod violation;
mod wire;

pub use callout_server::{CalloutServer, Select, Selection, ServerConfig, ServerEvent};
pub use connection::Counters;
pub use error::CallError;
pub use limits::{Extensions, ID_MAX, LARGE_OFFSET_MAX, Limits, OFFSET_MAX};
pub use processor::{
    Accept, AdaptedEnd, Processor, ProcessorConfig, ProcessorEvent, StartTransaction, Terms,
};
pub use violation::{Failure, OriginalEnd, Rule};

#[cfg(test)]
mod tests;
