//! The `CustomResourceDefinition`s, as they are committed and installed.

use crate::{CalloutService, OpesRule};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value};

/// First lines of a generated file.
const HEADER: &str = "# Generated from crates/opes-k8s: cargo run -p opes-k8s --example crds\n";

/// A definition cannot be written as YAML: a mistake of this crate.
#[derive(Debug)]
pub struct CrdError(String);

/// File name and definition of each kind.
pub fn crds() -> Result<[(&'static str, CustomResourceDefinition); 2], CrdError> {
    Ok([
        ("calloutservices.yaml", tidied(&CalloutService::crd())?),
        ("opesrules.yaml", tidied(&OpesRule::crd())?),
    ])
}

/// A definition as a file; equal definitions give equal files.
pub fn yaml(definition: &CustomResourceDefinition) -> Result<String, CrdError> {
    let value = document(definition)?;
    let text = serde_saphyr::to_string(&value).map_err(CrdError::of)?;
    Ok(format!("{HEADER}{}\n", text.trim_end()))
}

/// A definition as a document: bounds are whole numbers, which the types of the API have no place for.
pub(crate) fn document(definition: &CustomResourceDefinition) -> Result<Value, CrdError> {
    let mut value = serde_json::to_value(definition).map_err(CrdError::of)?;
    whole(&mut value);
    Ok(value)
}

fn whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let text = number.to_string();
            let written = text.strip_suffix(".0").unwrap_or(&text);
            if let Ok(whole) = written.parse::<i64>() {
                *value = whole.into();
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(whole),
        Value::Object(members) => members.values_mut().for_each(whole),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn tidied(definition: &CustomResourceDefinition) -> Result<CustomResourceDefinition, CrdError> {
    let mut value = serde_json::to_value(definition).map_err(CrdError::of)?;
    if let Some(schema) = value.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        tidy(schema);
    }
    serde_json::from_value(value).map_err(CrdError::of)
}

/// What the derived schema has and an API server has no use for: `null` as a value, formats that it does not know, defaults.
fn tidy(schema: &mut Value) {
    let Value::Object(members) = schema else {
        return;
    };
    members.remove("nullable");
    members.remove("default");
    if members.get("additionalProperties") == Some(&Value::Bool(false)) {
        members.remove("additionalProperties");
    }
    if members
        .get("format")
        .is_some_and(|format| !is_known(format))
    {
        members.remove("format");
    }
    if let Some(Value::String(text)) = members.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Object(fields)) = members.get_mut("properties") {
        fields.values_mut().for_each(tidy);
    }
    for below in ["items", "additionalProperties"] {
        if let Some(below) = members.get_mut(below) {
            tidy(below);
        }
    }
    drop_empty(members);
}

fn drop_empty(members: &mut Map<String, Value>) {
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    members.retain(|key, value| key != "required" || !empty(value));
}

fn is_known(format: &Value) -> bool {
    format
        .as_str()
        .is_some_and(|format| matches!(format, "int32" | "int64" | "date-time"))
}

impl CrdError {
    pub(crate) fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl std::fmt::Display for CrdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "definition: {}", self.0)
    }
}

impl std::error::Error for CrdError {}
