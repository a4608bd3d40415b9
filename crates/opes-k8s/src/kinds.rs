//! The two kinds.

#![allow(
    clippy::duplicated_attributes,
    reason = "several columns have one type"
)]

use crate::status::{CalloutServiceStatus, LastAccepted, OpesRuleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{CustomResource, Resource};
use opes_rules::compile::Candidate;
use opes_rules::object::API_VERSION;
use opes_rules::parse::object_from_value;
use opes_rules::{Diagnostic, Object};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;

/// What the rule says.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[kube(
    group = "opes.dev",
    version = "v1alpha1",
    kind = "OpesRule",
    doc = "A rule for mail: at these processing points, for what matches, call this service or do this.",
    namespaced,
    derive = "PartialEq",
    status = "OpesRuleStatus",
    shortname = "orule",
    category = "opes",
    selectable = ".spec.callout.serviceRef.name",
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(
        name = "Service",
        type_ = "string",
        json_path = ".spec.callout.serviceRef.name"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(name = "At", type_ = "string", json_path = ".spec.at", priority = 1),
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.rollout.mode",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(transparent)]
pub struct RuleSpec(pub Value);

/// What the service is.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[kube(
    group = "opes.dev",
    version = "v1alpha1",
    kind = "CalloutService",
    doc = "A callout service that rules can call: what it may do, where it is or how the operator runs it.",
    namespaced,
    derive = "PartialEq",
    status = "CalloutServiceStatus",
    shortname = "csvc",
    category = "opes",
    selectable = ".spec.class",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Class", type_ = "string", json_path = ".spec.class"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(
        name = "Ready-Pods",
        type_ = "integer",
        json_path = ".status.readyReplicas"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Engine",
        type_ = "string",
        json_path = ".spec.pool.engine",
        priority = 1
    ),
    printcolumn(
        name = "Certificate",
        type_ = "date",
        json_path = ".status.certificateNotAfter",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(transparent)]
pub struct ServiceSpec(pub Value);

/// What both kinds have in common.
pub trait Kind: Resource<DynamicType = ()> {
    /// `OpesRule` or `CalloutService`.
    const KIND: &'static str;

    /// `spec`, as it came.
    fn spec(&self) -> &Value;

    /// What was accepted last.
    fn last_accepted(&self) -> Option<&LastAccepted>;

    /// `NAMESPACE/NAME`.
    fn qualified_name(&self) -> String {
        let ObjectMeta {
            namespace, name, ..
        } = self.meta();
        let namespace = namespace.as_deref().unwrap_or_default();
        format!("{namespace}/{}", name.as_deref().unwrap_or_default())
    }

    /// Reads what is written. On failure at least one of the diagnostics is an error.
    fn object(&self) -> Result<Object, Vec<Diagnostic>> {
        self.object_with(self.spec())
    }

    /// Reads what was accepted last; `None` also if this version of the program cannot read it any more.
    fn last_accepted_object(&self) -> Option<Object> {
        let accepted = self.last_accepted()?;
        self.object_with(&accepted.spec).ok()
    }

    /// For [`opes_rules::compile_isolated`]: what is written and what was accepted last.
    fn candidate(&self) -> Candidate {
        let created = self.meta().creation_timestamp.as_ref();
        let created = created.map_or(i64::MAX, |time| time.0.as_second());
        let candidate = match self.object() {
            Ok(object) => Candidate::read(object, created),
            Err(found) => Candidate::unread(Self::KIND, self.qualified_name(), created, found),
        };
        candidate.with_last_accepted(self.last_accepted_object())
    }

    /// An object of this name with another spec.
    #[doc(hidden)]
    fn object_with(&self, spec: &Value) -> Result<Object, Vec<Diagnostic>> {
        let ObjectMeta {
            namespace, name, ..
        } = self.meta();
        let document = json!({
            "apiVersion": API_VERSION,
            "kind": Self::KIND,
            "metadata": { "namespace": namespace.as_deref().unwrap_or_default(), "name": name.as_deref().unwrap_or_default() },
            "spec": spec,
        });
        let source = format!("{} {}", Self::KIND, self.qualified_name());
        object_from_value(&source, document)
    }
}

impl Kind for OpesRule {
    const KIND: &'static str = "OpesRule";

    fn spec(&self) -> &Value {
        &self.spec.0
    }

    fn last_accepted(&self) -> Option<&LastAccepted> {
        self.status.as_ref()?.last_accepted.as_ref()
    }
}

impl Kind for CalloutService {
    const KIND: &'static str = "CalloutService";

    fn spec(&self) -> &Value {
        &self.spec.0
    }

    fn last_accepted(&self) -> Option<&LastAccepted> {
        self.status.as_ref()?.last_accepted.as_ref()
    }
}

impl JsonSchema for RuleSpec {
    fn schema_name() -> Cow<'static, str> {
        "RuleSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        opes_rules::object::OpesRuleSpec::json_schema(generator)
    }
}

impl JsonSchema for ServiceSpec {
    fn schema_name() -> Cow<'static, str> {
        "ServiceSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        opes_rules::object::CalloutServiceSpec::json_schema(generator)
    }
}
