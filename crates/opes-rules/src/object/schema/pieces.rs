//! Choices between names.

use schemars::Schema;
use serde_json::{Value, json};

/// Longest name of a choice.
const NAME_CHARS_MAX: u32 = 32;

/// An enumeration of names: what each means goes into the description, which is all that `kubectl explain` shows.
pub(crate) fn choice(schema: &mut Schema) {
    let Some(members) = schema.as_object_mut() else {
        return;
    };
    let variants = match members.remove("oneOf") {
        Some(Value::Array(variants)) => variants,
        _ => Vec::new(),
    };
    let plain = members.get("enum").and_then(Value::as_array).cloned();
    let mut names = plain.unwrap_or_default();
    let mut meanings = Vec::new();
    for variant in &variants {
        if let Some(Value::Array(undescribed)) = variant.get("enum") {
            names.extend(undescribed.iter().cloned());
        }
        if let Some(name) = variant.get("const") {
            names.push(name.clone());
            let meaning = variant.get("description").and_then(Value::as_str);
            let meaning = meaning.unwrap_or_default().trim_end_matches('.');
            meanings.push(format!("{}: {meaning}", name.as_str().unwrap_or_default()));
        }
    }
    if !meanings.is_empty() {
        members.insert(super::MEANINGS.into(), meanings.join("; ").into());
    }
    members.insert("type".into(), json!("string"));
    members.insert("enum".into(), names.into());
    members.insert("maxLength".into(), NAME_CHARS_MAX.into());
    super::unfold(members);
}
