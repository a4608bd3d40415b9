//! `docs/reference/crd.md`, made from the schemas, so that it cannot say anything else.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;
use std::fmt::Write;

use crate::CrdError;
use crate::definition::document;

const INTRODUCTION: &str = "<!-- Generated from crates/opes-k8s: cargo run -p opes-k8s --example crds -->
# Custom resources

Every field of the two kinds, as the API server has them (`kubectl explain opesrule.spec --recursive`). What the fields mean together is in
[rules.md](../rules.md). Nothing is filled in by the API server: an object is stored as it was written.

A change that a rule below forbids is refused by `kubectl apply`. What needs more than one object to be seen (a service that is missing, rules that
contradict each other) is in `status.conditions`.
";

/// The page.
pub fn page(definitions: &[CustomResourceDefinition]) -> Result<String, CrdError> {
    let mut page = INTRODUCTION.to_owned();
    for definition in definitions {
        kind(&document(definition)?, &mut page);
    }
    Ok(page)
}

fn kind(definition: &Value, page: &mut String) {
    let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str);
    let name = text("/spec/names/kind").unwrap_or_default();
    let short = text("/spec/names/shortNames/0").unwrap_or_default();
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    let about = text(&format!("{schema}/description")).unwrap_or_default();
    let _ = writeln!(page, "\n## {name}\n{about} Short name: `{short}`.\n");
    let Some(schema) = definition.pointer(schema) else {
        return;
    };
    page.push_str("| field | type | |\n| --- | --- | --- |\n");
    let mut rules = Vec::new();
    for part in ["spec", "status"] {
        if let Some(schema) = schema.pointer(&format!("/properties/{part}")) {
            field(part, schema, true, page, &mut rules);
        }
    }
    page.push_str("\n| refused | unless (CEL) |\n| --- | --- |\n");
    for (path, message, rule) in rules {
        let rule = rule.replace('|', "\\|");
        let _ = writeln!(page, "| `{path}`: {message} | `{rule}` |");
    }
}

fn field<'s>(
    path: &str,
    schema: &'s Value,
    required: bool,
    page: &mut String,
    rules: &mut Vec<(String, &'s str, &'s str)>,
) {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    let about = text("description").unwrap_or_default().replace('|', "\\|");
    let needed = if required { "" } else { "optional; " };
    let _ = writeln!(page, "| `{path}` | {needed}{} | {about} |", type_of(schema));
    let validations = schema.get("x-kubernetes-validations");
    for rule in validations.and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
        rules.push((path.to_owned(), text("message"), text("rule")));
    }
    let required = schema.get("required").and_then(Value::as_array);
    let is_required =
        |name: &str| required.is_some_and(|names| names.iter().any(|required| required == name));
    let fields = schema.get("properties").and_then(Value::as_object);
    for (name, below) in fields.into_iter().flatten() {
        field(
            &format!("{path}.{name}"),
            below,
            is_required(name),
            page,
            rules,
        );
    }
    if let Some(items) = schema.get("items") {
        members(&format!("{path}[]"), items, page, rules);
    }
    if let Some(values) = schema.get("additionalProperties").filter(|s| s.is_object()) {
        members(&format!("{path}.*"), values, page, rules);
    }
}

/// Members of a list or map: only what has fields or rules of its own gets lines.
fn members<'s>(
    path: &str,
    schema: &'s Value,
    page: &mut String,
    rules: &mut Vec<(String, &'s str, &'s str)>,
) {
    if schema.get("properties").is_some() || schema.get("x-kubernetes-validations").is_some() {
        field(path, schema, true, page, rules);
    }
}

fn type_of(schema: &Value) -> String {
    if let Some(Value::Array(names)) = schema.get("enum") {
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        return format!("`{}`", names.join("`, `"));
    }
    let bound = |key: &str| schema.get(key).map(ToString::to_string);
    let name = match schema.get("type").and_then(Value::as_str) {
        Some("array") => {
            let of = schema.get("items").map(type_of).unwrap_or_default();
            format!("list ({of})")
        }
        Some("object") if schema.get("x-kubernetes-preserve-unknown-fields").is_some() => {
            "anything".into()
        }
        Some("object") if schema.get("additionalProperties").is_some() => "map".into(),
        Some("string") => "text".into(),
        Some(name) => name.into(),
        None => "integer or text".into(),
    };
    let (least, most) = match name.as_str() {
        "anything" => (None, None),
        "integer" => (bound("minimum"), bound("maximum")),
        list if list.starts_with("list") => (bound("minItems"), bound("maxItems")),
        _ => (None, bound("maxLength").or_else(|| bound("maxProperties"))),
    };
    match (least, most) {
        (Some(least), Some(most)) => format!("{name}, {least} to {most}"),
        (None, Some(most)) => format!("{name}, at most {most}"),
        (Some(least), None) => format!("{name}, at least {least}"),
        (None, None) => name,
    }
}
