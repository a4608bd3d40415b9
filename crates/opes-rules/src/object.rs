//! The two object kinds of API group `opes.dev/v1alpha1`, as people write them.
//!
//! These structs are the single source of the file format. They are plain serde types, so that the
//! operator can derive CRDs from them; nothing in here knows Kubernetes. Values are checked for
//! syntax only: what a field means together with others is the compiler's business.

mod json;
mod pod;
mod rule;
mod scalar;
#[cfg(feature = "schema")]
pub(crate) mod schema;
mod service;

use crate::diagnostic::Origin;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use pod::{Mount, PodSettings, PullSecret, Resources};
pub use rule::{
    Action, Callout, ContentChoice, Match, OpesRuleSpec, ReplySpec, Rollout, RolloutMode,
    RuleWants, ServiceRef,
};
pub use scalar::{HumanDuration, Network, Quantity, ResourceAmount};
pub use service::{
    Builtin, BypassPolicy, CalloutServiceSpec, DisruptionBudget, Image, Pool, PoolEngine,
    ServiceLimits, TlsMode, Transport,
};

/// API group and version of both kinds.
pub const API_VERSION: &str = "opes.dev/v1alpha1";
/// API group of both kinds, without the version.
pub const API_GROUP: &str = "opes.dev";
/// Namespace of an object that does not name one.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Annotation of a rule that stands in for one that cannot run as it was written. It is not looked at when rules are searched
/// for contradictions: it must not matter for its neighbours. Only `compile_isolated` writes it.
pub const STAND_IN: &str = "opes.dev/stand-in";

/// One object with the place that it came from.
#[derive(Debug, Clone)]
pub struct Object {
    /// File and positions, for diagnostics.
    pub origin: Origin,
    /// The object itself.
    pub resource: Resource,
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// When to do what.
    OpesRule(Box<OpesRule>),
    /// A service that rules can call.
    CalloutService(Box<CalloutService>),
}

/// Name and labels of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectMeta {
    /// Name, unique for its kind within the namespace; a DNS subdomain name (RFC 1123).
    pub name: String,
    /// Namespace; `default` if absent.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Labels; of no meaning here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations; of no meaning here, except [`STAND_IN`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A rule: at these points, for what matches, do this.
#[derive(Debug, Clone, PartialEq)]
pub struct OpesRule {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// The rule.
    pub spec: OpesRuleSpec,
}

/// A callout service and how to reach it.
#[derive(Debug, Clone, PartialEq)]
pub struct CalloutService {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// The service.
    pub spec: CalloutServiceSpec,
}

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}

// === impl Object ===

impl Object {
    /// Name and namespace.
    pub fn metadata(&self) -> &ObjectMeta {
        match &self.resource {
            Resource::OpesRule(rule) => &rule.metadata,
            Resource::CalloutService(service) => &service.metadata,
        }
    }

    /// `OpesRule` or `CalloutService`.
    pub fn kind(&self) -> &'static str {
        match &self.resource {
            Resource::OpesRule(_) => "OpesRule",
            Resource::CalloutService(_) => "CalloutService",
        }
    }
}

// === impl ObjectMeta ===

impl ObjectMeta {
    /// `namespace/name`.
    pub fn qualified_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The rule stands in for one that cannot run: [`STAND_IN`].
    pub fn is_stand_in(&self) -> bool {
        self.annotations
            .get(STAND_IN)
            .is_some_and(|is| is == "true")
    }
}
