//! Delivery of accepted mail: to a Maildir, or over SMTP or LMTP to a next hop.
//!
//! Owns the queue of handles in memory, the connections to next hops and the schedule of retries. Takes [`Queued`] messages from
//! the spool, and settles each recipient there right after the peer's (or the disk's) confirmation and before anything
//! else, so that only a crash in between can make a duplicate (RFC 1047). In cut-through mode there is no spool: the message
//! goes out while its client waits, over the same connections.
//!
//! Fails per recipient with a reply: transient ones are tried again until [`RetrySchedule::give_up_after`], permanent ones are
//! settled as failed, told to the sender in a delivery report ([`Reports`]) and reported as a [`DeliveryEvent`]. A next hop that cannot be reached holds its queue, not each message.
//! Must not know: listeners, rules, callouts.
//!
//! ```text
//! Relay ── lane per destination ── workers (a worker is a connection, or a batch of Maildir files)
//!     └── delayed: messages that wait for their next attempt, one task, one timer
//! ```

mod config;
mod connection;
mod delayed;
mod event;
mod job;
mod lane;
mod maildir;
mod relay;
mod report;
mod source;
mod tls;
mod worker;

pub use config::{Backoff, RelayConfig, RetrySchedule, Route, Timeouts};
pub use event::{DeliveryEvent, DeliveryOutcome, OnEvent};
pub use opes_spool::Queued;
pub use relay::Relay;
pub use report::{OnReport, ReportResult, Reports, Senders};
pub use tls::{Tls, TlsError};
