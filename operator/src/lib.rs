//! The operator: custom resources in, routing tables and callout pools out (docs/adr/0022-kubernetes.md).

pub mod apply;
pub mod backoff;
pub mod certificates;
pub mod config;
pub mod edges;
pub mod endpoints;
pub mod events;
pub mod features;
pub mod index;
pub mod kinds;
pub mod lease;
pub mod metrics;
pub mod metrics_api;
pub mod objects;
pub mod plan;
pub mod run;
pub mod scaler;
pub mod serve;
pub mod shared;
pub mod status;
pub mod tenancy;
pub mod watch;
pub mod world;
