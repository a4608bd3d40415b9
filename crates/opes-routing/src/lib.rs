//! How an edge follows the routing table that operators serve (`proto/opes/routing/v1`), and keeps the last good one.
//!
//! A [`Follower`] has a stream to each replica of the operator, takes tables from one of them, compiles them, and says to
//! all what is in force and how busy the pools are. What to make of a table is its owner's: [`News`] go out, what came of
//! them comes back by [`Follower::in_force`] and [`Follower::refuse`]. It fails by going on with what it has: an operator
//! that is away, an unreadable table or a broken file on disk never take away the table in force, however old it is. It
//! knows nothing of Kubernetes, SMTP or callouts.

mod backoff;
mod cache;
mod choice;
mod config;
mod dial;
mod follower;
mod hub;
mod line;
mod loads;
mod read;
mod status;

pub use config::{Address, AddressError, FollowerConfig, PEERS_MAX};
pub use follower::{Follower, News, Update};
pub use loads::{LOAD_INTERVAL, LOAD_LOOK_INTERVAL};
pub use opes_proto::routing::{Endpoints, Fault, Pool, PoolLoad, TABLE_OCTETS_MAX, Table};
pub use opes_tls::{ClientTls, MutualFiles};
pub use read::{FAULTS_MAX, read};
pub use status::{Source, Status, StatusView};
