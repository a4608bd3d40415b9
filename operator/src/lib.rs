//! The operator: custom resources in, routing tables and callout pools out (docs/adr/0022-kubernetes.md).

pub mod certificates;
pub mod config;
pub mod edges;
pub mod metrics_api;
pub mod scaler;
pub mod serve;
pub mod shared;
