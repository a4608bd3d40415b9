//! `spec` of a `CalloutService`, as people write it.

use super::{HumanDuration, PodSettings};
use crate::point::Class;
use serde::{Deserialize, Serialize};

/// What the service may do, where it is or how it is run, and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::service))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CalloutServiceSpec {
    /// What the service may do; decides the stage that it runs in. It cannot be changed.
    pub class: Class,
    /// A service that comes with OPES, for the operator to run. Exactly one of `builtin`, `image`, `endpoint` and `endpoints`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
    /// A container image for the operator to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Something that already runs: `http://127.0.0.1:9000`, `unix:/run/opes/x.sock` or `dns://filter.example.com:9000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Several instances of something that already runs, each as in `endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<String>>,
    /// How many instances the operator runs, and what decides that. Not used with `endpoint` and `endpoints`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pool: Pool,
    /// How many instances, with `pool.engine: none` only; absent = `pool.min`. `kubectl scale` and autoscalers of your own change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// The pods that the operator runs. Not possible with `endpoint` and `endpoints`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pod: PodSettings,
    /// How edges talk to it.
    #[serde(default)]
    pub transport: Transport,
    /// Time limits, and how much is asked of it at once.
    #[serde(default)]
    pub limits: ServiceLimits,
    /// A transaction that was interrupted may be repeated on another instance; false if absent.
    #[serde(default)]
    pub idempotent: bool,
    /// Its name in trace fields, and whether a sender may ask to leave it out (RFC 3897 §4).
    #[serde(default)]
    pub bypass: BypassPolicy,
}

/// Whether a service may be bypassed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::bypass))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BypassPolicy {
    /// An authenticated sender may have it left out; false if absent. Never for access control, security and reporting.
    pub allowed: bool,
    /// Absolute URI that names it in trace fields and bypass requests; one below the system's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

/// A service that comes with OPES.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::builtin))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Builtin {
    /// Name as in `opes service NAME`. It cannot be changed.
    pub name: String,
    /// Its configuration, which the service itself checks.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
}

/// A container image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::image))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Image reference, such as `registry.example.com/filter:1.2`.
    pub reference: String,
    /// Port that the callout server listens on in the container; 9000 if absent.
    #[serde(default = "default_container_port")]
    pub port: u16,
    /// Arguments of the program.
    #[serde(default)]
    pub args: Vec<String>,
}

/// Size of a pool of service instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::pool))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pool {
    /// Fewest instances; 2 if absent. 0 only with `engine: keda`, and only if every rule that calls the service has `onFailure`
    /// `tempfail` or `accept`: the first messages after a pause meet no instance.
    pub min: u32,
    /// Most instances; 10 if absent.
    pub max: u32,
    /// Transactions in flight per instance that scaling aims at; 32 if absent.
    pub target_in_flight: u32,
    /// CPU use that scaling aims at as well, in percent of what a pod requests; 80 if absent, 0 = CPU is not looked at.
    pub target_cpu_percent: u32,
    /// What scales the pool; `hpa` if absent.
    pub engine: PoolEngine,
    /// How many instances stay up while nodes are drained.
    pub pdb: DisruptionBudget,
}

/// What scales a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::choice))]
#[serde(rename_all = "camelCase")]
pub enum PoolEngine {
    /// A HorizontalPodAutoscaler.
    #[default]
    Hpa,
    /// A ScaledObject of KEDA.
    Keda,
    /// Nothing of ours: `replicas` instances.
    None,
}

/// How many instances stay up in a voluntary disruption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::disruption_budget))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DisruptionBudget {
    /// Instances that stay; 1 if absent.
    pub min_available: u32,
}

/// How the processor talks to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::transport))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Transport {
    /// How the connection is protected; `mutual` if absent, except on a Unix socket and a loopback address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// Name that the service's certificate must be for; the host of the endpoint if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Most transactions open at once on one connection; 256 if absent.
    pub max_transactions_per_connection: u32,
}

/// Transport security between processor and service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::choice))]
#[serde(rename_all = "camelCase")]
pub enum TlsMode {
    /// In the clear.
    None,
    /// TLS with certificates on both sides.
    Mutual,
}

/// Limits of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::limits))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceLimits {
    /// Time until a connection is usable, from `10ms` to `600s`; `2s` if absent.
    pub connect_timeout: HumanDuration,
    /// Time without progress in a transaction while it is the service's turn, from `10ms` to `600s`; `60s` if absent.
    pub idle_timeout: HumanDuration,
    /// Transactions open at once, per edge; 1000 if absent.
    pub max_in_flight: u32,
    /// Transactions that wait for others to end, per edge; 1000 if absent.
    pub max_queued: u32,
}

const fn default_container_port() -> u16 {
    9000
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

// === impl CalloutServiceSpec ===

impl CalloutServiceSpec {
    /// The operator runs its pods.
    pub const fn has_pods(&self) -> bool {
        self.builtin.is_some() || self.image.is_some()
    }

    /// There may be times without any instance.
    pub fn scales_to_zero(&self) -> bool {
        self.has_pods() && self.pool.engine == PoolEngine::Keda && self.pool.min == 0
    }

    /// What an edge needs to know of it: not how the operator runs it.
    #[must_use]
    pub fn for_edges(&self) -> Self {
        Self {
            pool: Pool::default(),
            replicas: None,
            pod: PodSettings::default(),
            ..self.clone()
        }
    }
}

// === defaults ===

impl Default for Pool {
    fn default() -> Self {
        Self {
            min: 2,
            max: 10,
            target_in_flight: 32,
            target_cpu_percent: 80,
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
            idle_timeout: HumanDuration::from_secs(60),
            max_in_flight: 1000,
            max_queued: 1000,
        }
    }
}
