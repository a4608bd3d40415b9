//! `OpesRule` and `CalloutService` as custom resources: what the API server is told of them, and their status.
//!
//! What may stand in `spec` is defined once, in [`opes_rules::object`]; here it is JSON as it came, because an object that a program
//! cannot read must not keep it from reading the others. [`OpesRule::object`] and [`CalloutService::object`] read it, [`Kind`] does
//! for both. [`crds`] gives the definitions, which are committed in `charts/opes/crds-src`; [`reference`] the page about them.
//!
//! Nothing here talks to an API server.

mod definition;
mod kinds;
pub mod reference;
pub mod status;

pub use definition::{CrdError, crds, yaml};
pub use kinds::{CalloutService, Kind, OpesRule, RuleSpec, ServiceSpec};
pub use status::{CalloutServiceStatus, LastAccepted, OpesRuleStatus};

#[cfg(test)]
mod tests;
