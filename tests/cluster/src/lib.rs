//! A real Kubernetes for tests: control plane alone, or a whole node.

pub mod load;
