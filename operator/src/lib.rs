//! The operator: custom resources in, routing tables and callout pools out (docs/adr/0022-kubernetes.md).

pub mod config;
pub mod edges;
pub mod shared;
