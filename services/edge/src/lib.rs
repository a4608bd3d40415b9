//! The edge: an OPES processor (RFC 3835) that speaks SMTP, submission and LMTP and triggers callout services by rules.
//!
//! `docs/life-of-a-message.md` walks through these modules in the order in which a message meets them.

mod acceptance;
mod answered;
mod auth;
mod callout;
mod check;
pub mod config;
mod content;
mod context;
mod dialog;
mod edge;
mod edits;
mod engine;
mod fates;
mod header;
mod incidents;
mod listener;
mod mail;
mod metrics;
mod notify;
mod outcome;
mod quarantine;
mod quiet;
mod received;
pub mod report;
mod routing;
mod session;
mod splits;
mod stream;
mod tls;
mod trace;

pub use auth::hash as password_hash;
pub use edge::{ChangeRelay, Drained, EdgeHandle, Hooks, LiveRouting, Load, start};
pub use header::HeaderFields;
pub use metrics::{Metrics, PoolLoad};
pub use opes_callout_client::{ClientTls, MutualFiles};
pub use opes_host::Host;
pub use quarantine::{Fate, Held, Outcome, Quarantine, ReadContent, Release, Releases};
pub use routing::{Endpoints, Instances, Routing, RoutingError};
