//! The revision: a hash over what the objects say, not over how they are written.

use crate::object::{Object, Resource};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Octets of the hash that are kept: enough to tell revisions apart, short enough to read out.
const REVISION_OCTETS: usize = 8;

/// Revision of a set of objects: 16 hexadecimal digits, independent of order and formatting.
pub(super) fn of(objects: &[Object]) -> String {
    let mut lines: Vec<String> = objects.iter().map(canonical).collect();
    lines.sort_unstable();
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    hash.finalize()
        .iter()
        .take(REVISION_OCTETS)
        .fold(String::new(), |mut hex, octet| {
            let _ = write!(hex, "{octet:02x}");
            hex
        })
}

fn canonical(object: &Object) -> String {
    let spec = match &object.resource {
        Resource::OpesRule(rule) => serde_json::to_value(&rule.spec),
        Resource::CalloutService(service) => serde_json::to_value(&service.spec),
    };
    // A spec holds nothing that JSON cannot say: maps have text keys, numbers are finite.
    let spec = spec.unwrap_or(Value::Null);
    let name = object.metadata().qualified_name();
    format!("{} {name} {}", object.kind(), canonical_json(&spec))
}

/// JSON with the members of every object sorted, so that equal values give equal texts.
pub(super) fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(&Value::String(key.clone()), out);
                out.push(':');
                write_canonical(member, out);
            }
            out.push('}');
        }
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(element, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
