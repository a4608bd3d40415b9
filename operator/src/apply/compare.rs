//! Whether an object has everything that was planned for it already: then nothing is sent.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use kube::api::DynamicObject;
use serde_json::Value;

/// Members by which elements of a list are told apart, where the list is a set of named things to which others may add.
const NAMES: [&str; 2] = ["name", "uid"];

/// Is all of `planned` in `live`? Others may have added members, and elements to lists of named things. A list without names is
/// either ours as it is, or it is not.
pub(super) fn is_within(planned: &Value, live: &Value) -> bool {
    match (planned, live) {
        (Value::Object(planned), Value::Object(live)) => {
            planned.iter().all(|(key, value)| match live.get(key) {
                Some(there) => is_within(value, there),
                None => is_nothing(value),
            })
        }
        (Value::Array(planned), Value::Array(live)) => {
            if planned.iter().all(is_named) && !planned.is_empty() {
                planned
                    .iter()
                    .all(|value| live.iter().any(|there| is_within(value, there)))
            } else {
                planned.len() == live.len()
                    && planned
                        .iter()
                        .zip(live)
                        .all(|(value, there)| is_within(value, there))
            }
        }
        (planned, live) => planned == live,
    }
}

/// An object without what changes by itself: versions and status.
pub(super) fn content(object: &DynamicObject) -> Value {
    // What came as JSON is JSON.
    let mut content = serde_json::to_value(object).unwrap_or_default();
    if let Some(members) = content.as_object_mut() {
        members.remove("status");
    }
    if let Some(metadata) = content.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
        metadata.remove("generation");
    }
    content
}

/// Equal for equal content, within this process.
pub(super) fn fingerprint(content: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.to_string().hash(&mut hasher);
    hasher.finish()
}

fn is_named(element: &Value) -> bool {
    NAMES
        .iter()
        .any(|name| element.get(name).is_some_and(Value::is_string))
}

/// What the API server leaves out when it is empty.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.values().all(is_nothing),
        Value::Array(elements) => elements.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn additions_of_others_do_not_matter_and_changes_do() {
        let planned = json!({ "a": { "b": 1 }, "empty": {}, "list": [{ "name": "x", "v": 1 }], "ports": [{ "port": 1 }] });
        let same = |live: Value| is_within(&planned, &live);
        assert!(same(
            json!({ "a": { "b": 1, "c": 2 }, "z": 1, "list": [{ "name": "y" }, { "name": "x", "v": 1, "w": 2 }], "ports": [{ "port": 1, "protocol": "TCP" }] })
        ));
        assert!(!same(
            json!({ "a": { "b": 2 }, "list": [{ "name": "x", "v": 1 }], "ports": [{ "port": 1 }] })
        ));
        assert!(!same(
            json!({ "a": { "b": 1 }, "list": [{ "name": "y", "v": 1 }], "ports": [{ "port": 1 }] })
        ));
        assert!(!same(
            json!({ "a": { "b": 1 }, "list": [{ "name": "x", "v": 1 }], "ports": [{ "port": 1 }, { "port": 2 }] })
        ));
        assert!(!same(json!({ "a": { "b": 1 }, "ports": [{ "port": 1 }] })));
    }

    #[test]
    fn an_open_door_is_not_hidden_by_its_neighbours() {
        let planned = json!({ "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "a": "b" } } }] }] });
        let opened = json!({ "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "a": "b" } } }] }, {}] });
        assert!(!is_within(&planned, &opened));
    }
}
