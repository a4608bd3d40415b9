//! Objects that come as JSON: from an API server, or from the operator to an edge.

use super::tree::{Entry, Node, Value};
use super::{DEPTH_MAX, NODES_MAX, Parsed, TEXT_OCTETS_MAX, read_document};
use crate::diagnostic::{Diagnostic, Origin, Position};
use crate::object::Object;
use serde_json::Value as Json;

/// Reads one object from its JSON text of at most [`TEXT_OCTETS_MAX`]. `source_name` is what diagnostics call it. On failure at least
/// one of the diagnostics is an error.
pub fn object_from_json(source_name: &str, text: &str) -> Result<Object, Vec<Diagnostic>> {
    let origin = Origin::named(source_name);
    if text.len() > TEXT_OCTETS_MAX {
        let message = format!(
            "{} octets are more than the {TEXT_OCTETS_MAX} allowed",
            text.len()
        );
        return Err(vec![origin.error("", message, "")]);
    }
    match serde_json::from_str(text) {
        Ok(value) => object_from_value(source_name, value),
        Err(error) => Err(vec![origin.error(
            "",
            format!("not valid JSON: {error}"),
            "",
        )]),
    }
}

/// Reads one object that is JSON already.
pub fn object_from_value(source_name: &str, value: Json) -> Result<Object, Vec<Diagnostic>> {
    let mut nodes = NODES_MAX;
    let Some(document) = node(value, 0, DEPTH_MAX, &mut nodes) else {
        let message =
            format!("is nested deeper than {DEPTH_MAX} levels or has more than {NODES_MAX} values");
        return Err(vec![Origin::named(source_name).error("", message, "")]);
    };
    let mut parsed = Parsed::default();
    read_document(source_name, document, &mut parsed);
    match parsed.objects.pop() {
        Some(mut object) => {
            // There are no lines to point to.
            object.origin.places.clear();
            Ok(object)
        }
        None => Err(parsed.diagnostics),
    }
}

/// A tree without places; `None` beyond the limits.
fn node(value: Json, ordinal: usize, depth: usize, left: &mut usize) -> Option<Node> {
    *left = left.checked_sub(1)?;
    let depth = depth.checked_sub(1)?;
    let value = match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => scalar(&number),
        Json::String(text) => Value::Text(text),
        Json::Array(elements) => {
            let elements = elements.into_iter().enumerate();
            let nodes = elements.map(|(at, element)| node(element, at, depth, left));
            Value::List(nodes.collect::<Option<_>>()?)
        }
        Json::Object(members) => {
            let entries = members.into_iter().map(|(key, member)| {
                Some(Entry {
                    key,
                    key_position: Position::default(),
                    node: node(member, 0, depth, left)?,
                })
            });
            Value::Map(entries.collect::<Option<_>>()?)
        }
    };
    Some(Node {
        position: Position::default(),
        ordinal,
        value,
    })
}

fn scalar(number: &serde_json::Number) -> Value {
    if let Some(whole) = number.as_u64() {
        Value::Unsigned(whole)
    } else if let Some(whole) = number.as_i64() {
        Value::Signed(whole)
    } else {
        Value::Float(number.as_f64().unwrap_or_default())
    }
}
