//! The revision: a hash over what the objects say to an edge, not over how they are written.

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

/// What is for the operator alone changes nothing that an edge does.
fn canonical(object: &Object) -> String {
    match &object.resource {
        Resource::OpesRule(_) => object.to_json(),
        Resource::CalloutService(_) => object.for_edges().to_json(),
    }
}

/// JSON with the members of every object sorted, so that equal values give equal texts.
pub(crate) fn canonical_json(value: &Value) -> String {
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
                write_text(key, out);
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
        Value::String(text) => write_text(text, out),
        Value::Number(number) if number.is_f64() => {
            out.push_str(&rounded(number).to_string());
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
    }
}

/// Most texts need no escapes.
fn write_text(text: &str, out: &mut String) {
    let plain = |b: u8| b >= b' ' && !matches!(b, b'"' | b'\\');
    if text.bytes().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

/// To 15 significant digits, which come back the same whoever reads and writes them.
fn rounded(number: &serde_json::Number) -> Value {
    let number = number.as_f64().unwrap_or_default();
    let rounded = format!("{number:.14e}").parse::<f64>();
    rounded.map_or(Value::Null, Value::from)
}
