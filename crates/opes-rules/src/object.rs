//! The two object kinds of API group `opes.dev/v1alpha1`, as people write them.
//!
//! These structs are the single source of the file format. They are plain serde types, so that the
//! operator can derive CRDs from them; nothing in here knows Kubernetes. Values are checked for
//! syntax only: what a field means together with others is the compiler's business.

mod scalar;

use crate::diagnostic::Origin;
use crate::permission::Permission;
use crate::point::{Class, OnFailure, Point};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use scalar::{HumanDuration, Network, Quantity};

/// API group and version of both kinds.
pub const API_VERSION: &str = "opes.dev/v1alpha1";
/// API group of both kinds, without the version.
pub const API_GROUP: &str = "opes.dev";
/// Namespace of an object that does not name one.
pub const DEFAULT_NAMESPACE: &str = "default";

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
    /// Annotations; of no meaning here.
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

/// `spec` of an `OpesRule`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpesRuleSpec {
    /// Processing points; at least one.
    pub at: Vec<Point>,
    /// Lower runs first within its stage; ties by namespace/name.
    #[serde(default = "default_priority")]
    pub priority: i32,
    /// All conditions must hold; absent = always.
    #[serde(default, rename = "match")]
    pub matching: Match,
    /// Call a service. Exactly one of `callout` and `action`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callout: Option<Callout>,
    /// Act without a callout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// How much of the traffic it applies to, and whether it changes anything.
    #[serde(default)]
    pub rollout: Rollout,
}

/// Conditions. Each present field must hold; a list holds if one of its members does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Match {
    /// Names of listeners that the client came in on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Vec<String>>,
    /// Networks of the client, CIDR or single addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_networks: Option<Vec<Network>>,
    /// Domains of the reverse-path; `*.example.com` = any subdomain, `<>` = the null reverse-path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_domains: Option<Vec<String>>,
    /// Domains of the recipient; `*.example.com` = any subdomain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_domains: Option<Vec<String>>,
    /// The message has fewer octets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_under: Option<Quantity>,
    /// The message has more octets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_over: Option<Quantity>,
    /// The client connection is encrypted, or is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// The client has authenticated, or has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authenticated: Option<bool>,
    /// A CEL expression with a boolean result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cel: Option<String>,
}

/// Which service to call and what it may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Callout {
    /// A `CalloutService` in the namespace of the rule.
    pub service_ref: ServiceRef,
    /// Less than the service asks for; absent = what it asks for.
    #[serde(default)]
    pub wants: RuleWants,
    /// What the service may do. Empty = nothing but annotate.
    #[serde(default)]
    pub allow: Vec<Permission>,
    /// Time for one transaction, 10 ms to 10 min.
    #[serde(default = "default_timeout")]
    pub timeout: HumanDuration,
    /// What happens when the service fails; `tempfail` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Handed to the service as it is.
    #[serde(default)]
    pub parameters: serde_json::Map<String, serde_json::Value>,
}

/// Name of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceRef {
    /// `metadata.name` of the `CalloutService`.
    pub name: String,
}

/// How much of the content a rule sends to its service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuleWants {
    /// Absent = what the service asks for at negotiation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentChoice>,
    /// Octets, with `content: prefix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Quantity>,
}

/// How much of the mail data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContentChoice {
    /// Nothing.
    None,
    /// The header section.
    Header,
    /// The first `prefix` octets.
    Prefix,
    /// Everything.
    All,
}

/// What the processor does itself. Exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// Refuse for good, 5xx. Terminal.
    Reject(ReplySpec),
    /// Refuse for the time being, 4xx. Terminal.
    Tempfail(ReplySpec),
    /// No later rule of this point is looked at, observers excepted. Terminal.
    Accept {},
    /// Nothing; the rule is only counted and logged.
    Continue {},
    /// Take the message, deliver it to nobody. Terminal.
    Discard {
        /// Must be true: the message is lost and nobody is told.
        #[serde(default, rename = "acknowledgeLoss")]
        acknowledge_loss: bool,
    },
    /// Take the message and hold it. Terminal.
    Quarantine {
        /// Why, for the person who looks at it.
        reason: String,
    },
    /// Add a header field at the top.
    AddHeader {
        /// Field name (RFC 5322 §2.2).
        name: String,
        /// Field body, printable US-ASCII.
        value: String,
    },
    /// Put a mark before the subject, once.
    MarkSubject {
        /// The mark, such as `[SPAM]`.
        text: String,
    },
    /// Send to this next hop.
    Route {
        /// Host name or address.
        host: String,
        /// TCP port; 25, or 24 with `lmtp`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// Speak LMTP (RFC 2033).
        #[serde(default)]
        lmtp: bool,
    },
}

/// An SMTP reply. What is absent is filled in as fits the point.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReplySpec {
    /// Reply code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Enhanced status code (RFC 3463), such as `5.7.1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enhanced: Option<String>,
    /// Text for the client, one line of printable US-ASCII.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// How a rule is introduced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rollout {
    /// Enforce, or only watch.
    pub mode: RolloutMode,
    /// Share of dialogs that the rule applies to, 0 to 100.
    pub percent: i64,
}

/// Whether a rule changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutMode {
    /// The rule acts.
    #[default]
    Enforce,
    /// The rule runs, what it would have done is logged, nothing changes.
    Shadow,
}

/// `spec` of a `CalloutService`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CalloutServiceSpec {
    /// What the service may do; decides the stage it runs in.
    pub class: Class,
    /// A service that comes with OPES. Exactly one of `builtin`, `image`, `endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
    /// A container image for the operator to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Something that already runs: `http://127.0.0.1:9000` or `unix:/run/opes/x.sock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Size of the pool, for the operator.
    #[serde(default)]
    pub pool: Pool,
    /// How the processor talks to it.
    #[serde(default)]
    pub transport: Transport,
    /// Time limits.
    #[serde(default)]
    pub limits: ServiceLimits,
    /// A transaction may be repeated on another instance.
    #[serde(default)]
    pub idempotent: bool,
    /// Its name in trace fields, and whether a sender may ask to leave it out (RFC 3897 §4).
    #[serde(default)]
    pub bypass: BypassPolicy,
}

/// Whether a service may be bypassed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BypassPolicy {
    /// An authenticated sender may have it left out. Never for access control, security and reporting.
    pub allowed: bool,
    /// Absolute URI that names it in trace fields and bypass requests; absent = one below the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

/// A service that comes with OPES.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Builtin {
    /// Name as in `opes service NAME`.
    pub name: String,
    /// Its configuration, checked by the service.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
}

/// A container image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Image reference, such as `registry.example.com/filter:1.2`.
    pub reference: String,
    /// Port that the callout server listens on in the container.
    #[serde(default = "default_container_port")]
    pub port: u16,
    /// Arguments.
    #[serde(default)]
    pub args: Vec<String>,
}

/// Size of a pool of service instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pool {
    /// Fewest instances, at least 1.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// Transactions in flight per instance that scaling aims at.
    pub target_in_flight: u32,
    /// What scales it.
    pub engine: PoolEngine,
    /// Pod disruption budget.
    pub pdb: DisruptionBudget,
}

/// What scales a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PoolEngine {
    /// HorizontalPodAutoscaler.
    #[default]
    Hpa,
    /// KEDA.
    Keda,
}

/// How many instances stay up in a voluntary disruption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DisruptionBudget {
    /// Instances that stay.
    pub min_available: u32,
}

/// How the processor talks to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Transport {
    /// Absent = `mutual`, except on a Unix socket or a loopback address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// Name that the service's certificate must be for; absent = the host of the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Most transactions open at once on one connection.
    pub max_transactions_per_connection: u32,
}

/// Transport security between processor and service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TlsMode {
    /// In the clear.
    None,
    /// TLS with certificates on both sides.
    Mutual,
}

/// Time limits of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceLimits {
    /// For a connection to be usable.
    pub connect_timeout: HumanDuration,
    /// Without progress in a transaction.
    pub idle_timeout: HumanDuration,
}

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}

const fn default_priority() -> i32 {
    100
}

const fn default_timeout() -> HumanDuration {
    HumanDuration::from_secs(30)
}

const fn default_container_port() -> u16 {
    9000
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
}

// === defaults ===

impl Default for Rollout {
    fn default() -> Self {
        Self {
            mode: RolloutMode::Enforce,
            percent: 100,
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            min: 2,
            max: 10,
            target_in_flight: 32,
            engine: PoolEngine::Hpa,
            pdb: DisruptionBudget::default(),
        }
    }
}

impl Default for DisruptionBudget {
    fn default() -> Self {
        Self { min_available: 1 }
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            tls: None,
            server_name: None,
            max_transactions_per_connection: 256,
        }
    }
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            connect_timeout: HumanDuration::from_secs(2),
            idle_timeout: HumanDuration::from_secs(10),
        }
    }
}
