//! Objects as the JSON documents that operator and edges exchange.

use super::{API_VERSION, CalloutService, Object, Resource};
use crate::compile::canonical_json;
use serde_json::{Value, json};

impl Object {
    /// The document: `apiVersion`, `kind`, `metadata` (name, namespace, and the annotation of a stand-in), `spec`. Equal objects
    /// give equal texts: members are sorted, defaults are written out.
    ///
    /// [`crate::parse::object_from_json`] and [`crate::parse()`] read it back to an equal object, labels and other annotations
    /// excepted.
    pub fn to_json(&self) -> String {
        let metadata = self.metadata();
        let mut document = json!({
            "apiVersion": API_VERSION,
            "kind": self.kind(),
            "metadata": { "name": metadata.name, "namespace": metadata.namespace },
            "spec": self.spec_json(),
        });
        if metadata.is_stand_in()
            && let Some(written) = document.pointer_mut("/metadata")
        {
            let annotations = json!({ super::STAND_IN: "true" });
            if let Some(members) = written.as_object_mut() {
                members.insert("annotations".into(), annotations);
            }
        }
        canonical_json(&document)
    }

    /// What an edge needs to know: without what is for the operator alone (`pool`, `replicas`, `pod`). The revision is the same.
    #[must_use]
    pub fn for_edges(&self) -> Self {
        let resource = match &self.resource {
            Resource::OpesRule(_) => self.resource.clone(),
            Resource::CalloutService(service) => {
                Resource::CalloutService(Box::new(CalloutService {
                    metadata: service.metadata.clone(),
                    spec: service.spec.for_edges(),
                }))
            }
        };
        Self {
            origin: self.origin.clone(),
            resource,
        }
    }

    fn spec_json(&self) -> Value {
        let spec = match &self.resource {
            Resource::OpesRule(rule) => serde_json::to_value(&rule.spec),
            Resource::CalloutService(service) => serde_json::to_value(&service.spec),
        };
        // A spec holds nothing that JSON cannot say: maps have text keys, numbers are finite.
        spec.unwrap_or(Value::Null)
    }
}
