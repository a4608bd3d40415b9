//! A real Kubernetes for tests: control plane alone ([`ControlPlane`]), or a whole node ([`Node`]).
//!
//! What both offer is [`Cluster`]: clients, kubectl, namespaces. Everything that they start is killed and removed when they are
//! dropped, when the test panics, and when its process is killed (see [`group`]). `README.md` says where the programs come from.

pub mod authority;
pub mod cluster;
pub mod control_plane;
pub mod group;
pub mod keda;
pub mod load;
pub mod node;
pub mod programs;
pub mod prometheus;
pub mod wait;

pub use cluster::Cluster;
pub use control_plane::ControlPlane;
pub use keda::Keda;
pub use node::Node;
pub use opes_e2e::ports;
pub use prometheus::Prometheus;
pub use wait::{eventually, is_long};

use std::time::Duration;

/// How long a test waits for something that takes seconds on an idle machine.
pub const DEADLINE: Duration = Duration::from_mins(5);
