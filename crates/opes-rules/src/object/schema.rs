//! What an API server is told of the object kinds beyond their types: bounds, how lists are merged, and what CEL can say about fields
//! together. Nothing here is looked at when files are read; the compiler checks the same and more.
//!
//! Each function finishes the derived schema of one type. What results is a structural schema: no alternatives, no `null`, no
//! defaults (an object is stored as its author wrote it), every list, map and text bounded.

mod pieces;
mod rule;
mod scalars;
mod service;

use schemars::Schema;
use serde_json::{Map, Value, json};

pub(crate) use pieces::choice;
pub(crate) use rule::{action, callout, matching, reply, rollout, rule, service_ref, wants};
pub(crate) use service::{
    builtin, bypass, disruption_budget, image, limits, mount, pod, pool, pull_secret, resources,
    service, transport,
};

/// Pattern of a DNS subdomain name (RFC 1123).
const NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Where the meanings of names wait for the description of the field that they are possible in.
const MEANINGS: &str = "x-meanings";

/// Merges keywords into the schema of the field at this path below `properties`, such as `at` or `endpoints/items`.
fn set(schema: &mut Schema, path: &str, keywords: Value) {
    let field = schema.pointer_mut(&format!("/properties/{path}"));
    if let (Some(Value::Object(field)), Value::Object(keywords)) = (field, keywords) {
        field.extend(keywords);
    } else {
        debug_assert!(false, "there is no field {path}");
    }
}

/// A text of `min` to `max` characters.
fn text(min: u32, max: u32) -> Value {
    json!({ "minLength": min, "maxLength": max })
}

/// A text of at most `max` characters that matches.
fn pattern(max: u32, pattern: &str) -> Value {
    json!({ "minLength": 1, "maxLength": max, "pattern": pattern })
}

fn name() -> Value {
    pattern(253, NAME)
}

fn range(min: i64, max: i64) -> Value {
    json!({ "minimum": min, "maximum": max })
}

/// A list whose members are each there once.
fn list_set(min: u32, max: u32) -> Value {
    json!({ "minItems": min, "maxItems": max, "x-kubernetes-list-type": "set" })
}

/// A list that is replaced as a whole.
fn list(max: u32) -> Value {
    json!({ "maxItems": max, "x-kubernetes-list-type": "atomic" })
}

/// A list of objects that are told apart by one field.
fn list_map(max: u32, key: &str) -> Value {
    json!({
        "maxItems": max,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
    })
}

/// Whatever the service makes of it.
fn free_form(schema: &mut Schema, field: &str) {
    if let Some(Value::Object(members)) = schema.pointer_mut(&format!("/properties/{field}")) {
        members.remove("additionalProperties");
    }
    set(
        schema,
        field,
        json!({
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "maxProperties": 256,
        }),
    );
    set(schema, field, whole());
}

/// Of an object that is replaced as a whole. API servers make `null` of any other one whose last field an applied document leaves out,
/// and refuse it or store that (kubernetes/kubernetes#104694); where `{}` says something, it must stay `{}`.
fn whole() -> Value {
    json!({ "x-kubernetes-map-type": "atomic" })
}

/// One CEL rule with what its author is told.
fn rule_of(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}

/// CEL rules for all of an object.
fn require(schema: &mut Schema, rules: &[(&str, &str)]) {
    let rules = rules.iter().map(|(rule, message)| rule_of(rule, message));
    let rules = rules.collect::<Vec<_>>();
    schema.insert("x-kubernetes-validations".into(), Value::Array(rules));
}

/// CEL rules for one field.
fn require_of(schema: &mut Schema, path: &str, rules: &[(&str, &str)]) {
    let rules = rules.iter().map(|(rule, message)| rule_of(rule, message));
    let rules = rules.collect::<Vec<_>>();
    set(schema, path, json!({ "x-kubernetes-validations": rules }));
}

/// `has(self.a)` for each field; as CEL numbers that can be added.
fn count(fields: &[&str]) -> String {
    let each: Vec<String> = fields
        .iter()
        .map(|field| format!("(has(self.{field}) ? 1 : 0)"))
        .collect();
    each.join(" + ")
}

/// What all types have in common.
fn finish(schema: &mut Schema) {
    let Some(members) = schema.as_object_mut() else {
        return;
    };
    members.insert("type".into(), "object".into());
    members.remove("additionalProperties");
    members.remove("title");
    unfold(members);
    let Some(Value::Object(fields)) = members.get_mut("properties") else {
        return;
    };
    for field in fields.values_mut().filter_map(Value::as_object_mut) {
        field.remove("default");
        field.remove("format");
        present(field);
        explain(field);
        unfold(field);
        if let Some(Value::Object(items)) = field.get_mut("items") {
            explain(items);
            unfold(items);
        }
    }
}

/// A field that may be absent is absent or has a value: `null` is neither.
fn present(field: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = field.get("type") {
        let some = types.iter().find(|name| *name != "null").cloned();
        field.extend(some.map(|name| ("type".to_owned(), name)));
    }
    let is_null = |schema: &Value| schema.get("type").is_some_and(|name| name == "null");
    let Some(Value::Array(choices)) = field.get("anyOf") else {
        return;
    };
    if !choices.iter().any(is_null) {
        return;
    }
    let some = choices.iter().find(|choice| !is_null(choice)).cloned();
    field.remove("anyOf");
    for (key, value) in some
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        field.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

/// `kubectl explain` shows the description of a field and nothing of the names that are possible in it.
fn explain(field: &mut Map<String, Value>) {
    let Some(Value::String(meanings)) = field.remove(MEANINGS) else {
        return;
    };
    let about = field.get("description").and_then(Value::as_str);
    let text = format!("{} {meanings}.", about.unwrap_or_default());
    field.insert("description".into(), text.trim().into());
}

/// Lines of a comment to a paragraph.
fn unfold(members: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = members.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
}
