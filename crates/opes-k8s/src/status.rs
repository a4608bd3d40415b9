//! What the operator says of an object. Conditions are a map by `type`; all types of a kind are there from the first look on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Types of conditions.
pub mod condition {
    /// Rules and services: what is written is right, and runs.
    pub const ACCEPTED: &str = "Accepted";
    /// Rules: the service that it calls is there and accepted.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// Rules: every edge runs this generation.
    pub const PROGRAMMED: &str = "Programmed";
    /// Services: at least one instance is ready.
    pub const AVAILABLE: &str = "Available";
    /// Services: instances are being made, replaced or taken away.
    pub const PROGRESSING: &str = "Progressing";
    /// Services: something scales the pool and has figures to do so.
    pub const SCALING_ACTIVE: &str = "ScalingActive";
    /// Services: all of the above; what `kubectl wait` is for.
    pub const READY: &str = "Ready";

    /// All of an `OpesRule`.
    pub const OF_RULES: [&str; 3] = [ACCEPTED, RESOLVED_REFS, PROGRAMMED];
    /// All of a `CalloutService`.
    pub const OF_SERVICES: [&str; 5] = [ACCEPTED, AVAILABLE, PROGRESSING, SCALING_ACTIVE, READY];
}

/// Reasons of conditions, by the condition that they are used with.
pub mod reason {
    /// Accepted=True: it runs as it is written.
    pub const ACCEPTED: &str = "Accepted";
    /// Accepted=False: what is written is in error; the last accepted version runs, or nothing.
    pub const INVALID: &str = "Invalid";
    /// Accepted=False: an older object contradicts it; the message names it.
    pub const CONFLICTED: &str = "Conflicted";
    /// Accepted=False: its namespace may not do that.
    pub const NOT_PERMITTED: &str = "NotPermitted";

    /// ResolvedRefs=True: what it refers to is there, or it refers to nothing.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// ResolvedRefs=False: there is no such `CalloutService`; the rule runs as its `onFailure`.
    pub const BACKEND_NOT_FOUND: &str = "BackendNotFound";
    /// ResolvedRefs=False: the `CalloutService` was never accepted; the rule runs as its `onFailure`.
    pub const BACKEND_NOT_ACCEPTED: &str = "BackendNotAccepted";

    /// Programmed=True: every edge runs this generation.
    pub const PROGRAMMED: &str = "Programmed";
    /// Programmed=False or Unknown: edges are being told.
    pub const PENDING: &str = "Pending";
    /// Programmed=False: an edge has refused the table; the message says which and why.
    pub const REFUSED: &str = "Refused";
    /// Programmed=Unknown: no edge is connected.
    pub const NO_EDGES: &str = "NoEdges";
    /// Programmed=False: this generation is not in the table, because it is not accepted.
    pub const NOT_ACCEPTED: &str = "NotAccepted";

    /// Available=True: enough instances are ready.
    pub const INSTANCES_READY: &str = "InstancesReady";
    /// Available=False: no instance is ready.
    pub const NO_INSTANCES: &str = "NoInstances";
    /// Available=True: scaled to zero, because nothing is asked of it.
    pub const SCALED_TO_ZERO: &str = "ScaledToZero";
    /// Available=Unknown, and the like: the operator does not run this service.
    pub const NOT_MANAGED: &str = "NotManaged";

    /// Progressing=False: what runs is what is written.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// Progressing=True: pods are made, replaced or taken away.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// Progressing=False: the roll-out does not get any further; the message says why.
    pub const STALLED: &str = "Stalled";

    /// ScalingActive=True: the autoscaler has figures.
    pub const SCALING: &str = "Scaling";
    /// ScalingActive=False: the autoscaler has none.
    pub const NO_METRICS: &str = "NoMetrics";
    /// ScalingActive=False: `pool.engine: none`, or nothing to scale.
    pub const SCALING_OFF: &str = "ScalingOff";
    /// ScalingActive=Unknown: the autoscaler has not said anything yet.
    pub const SCALING_PENDING: &str = "ScalingPending";

    /// Ready=True.
    pub const READY: &str = "Ready";
    /// Ready=False: see the other conditions.
    pub const NOT_READY: &str = "NotReady";
}

/// What the operator says of a rule.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OpesRuleStatus {
    /// Generation that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted (what is written is right, and runs), ResolvedRefs (its service is there), Programmed (every edge runs it).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// What was accepted last, and runs while what is written is in error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_accepted: Option<LastAccepted>,
}

/// What the operator says of a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CalloutServiceStatus {
    /// Generation that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted (what is written is right, and runs), Available (an instance is ready), Progressing, ScalingActive, Ready (all of it).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Pods of the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Pods of the pool that are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Label selector of the pods, as the scale subresource needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// What was accepted last, and runs while what is written is in error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_accepted: Option<LastAccepted>,
    /// When the certificate of its pods ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub certificate_not_after: Option<Time>,
}

/// A version that was accepted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LastAccepted {
    /// Generation of the object when it was accepted.
    pub generation: i64,
    /// `spec` as it was then.
    #[schemars(schema_with = "any_object")]
    pub spec: Value,
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "x-kubernetes-preserve-unknown-fields": true,
        // A copy: merged with the last one, `{}` in it would become `null`.
        "x-kubernetes-map-type": "atomic",
    })
}

fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "maxLength": 64 })
}

/// As `metav1.Condition` has it, with its bounds.
fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One thing that is so, is not so, or is not known.",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "type": "string",
                    "description": "What it is about.",
                    "maxLength": 316,
                },
                "status": {
                    "type": "string",
                    "description": "True, False or Unknown.",
                    "enum": ["True", "False", "Unknown"],
                    "maxLength": 7,
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "description": "Generation of the object that it was said of.",
                    "minimum": 0,
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When status changed last.",
                    "maxLength": 64,
                },
                "reason": {
                    "type": "string",
                    "description": "Why, in one word for programs.",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {
                    "type": "string",
                    "description": "Why, for people: field, what is wrong, what to do about it.",
                    "maxLength": 32768,
                },
            },
        },
    })
}
