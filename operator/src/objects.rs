//! Rules and services as the API server has them, read by the parser that `opes rules check` has: the messages are the same.

use opes_rules::parse::object_from_value;
use opes_rules::{Diagnostic, Object};
use serde_json::{Value, json};

use crate::shared::ObjectKey;

/// A text that was read.
#[derive(Debug)]
pub struct Parsed {
    /// What it says; none: it cannot be read.
    pub object: Option<Object>,
    /// What is wrong with it, and what its author should know.
    pub diagnostics: Vec<Diagnostic>,
}

// === impl Parsed ===

impl Parsed {
    /// Reads a `spec`.
    pub fn of(key: &ObjectKey, spec: &Value) -> Self {
        let (namespace, name) = key.name.split_once('/').unwrap_or_default();
        let document = json!({
            "apiVersion": opes_rules::object::API_VERSION,
            "kind": key.kind,
            "metadata": { "namespace": namespace, "name": name },
            "spec": spec,
        });
        let source = format!("{} {}", key.kind, key.name);
        match object_from_value(&source, document) {
            Ok(object) => Self {
                object: Some(object),
                diagnostics: Vec::new(),
            },
            Err(diagnostics) => Self {
                object: None,
                diagnostics,
            },
        }
    }
}
