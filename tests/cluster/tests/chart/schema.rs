//! `values.schema.json` against `values.yaml`: every key of the one is in the other, and nothing of ours is open.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::helm::file;

/// Follows `$ref`.
fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let target = schema["$ref"].as_str().and_then(|it| it.strip_prefix('#'));
    target.and_then(|it| root.pointer(it)).unwrap_or(schema)
}

fn both() -> Result<(Value, Value)> {
    let values = serde_saphyr::from_str(&file("values.yaml")?)?;
    Ok((values, serde_json::from_str(&file("values.schema.json")?)?))
}

#[test]
fn keys_of_values_and_schema_are_the_same() -> Result<()> {
    let (values, root) = both()?;
    let text = file("values.yaml")?;
    let mut pending = vec![("values".to_owned(), &values, &root)];
    while let Some((path, value, schema)) = pending.pop() {
        let schema = resolved(schema, &root);
        let Some(properties) = schema["properties"].as_object() else {
            continue;
        };
        let value = value
            .as_object()
            .with_context(|| format!("{path} is no map"))?;
        for key in value.keys() {
            assert!(
                properties.contains_key(key),
                "{path}.{key} is not in the schema"
            );
        }
        for (key, schema) in properties {
            let path = format!("{path}.{key}");
            match value.get(key) {
                Some(value) => pending.push((path, value, schema)),
                // Of a map that is empty by default the comment above it names the keys.
                None => assert!(
                    text.contains(key),
                    "{path} is in the schema and not in values.yaml"
                ),
            }
        }
    }
    Ok(())
}

#[test]
fn every_map_of_ours_is_closed_and_every_text_and_list_bounded() -> Result<()> {
    let (_, root) = both()?;
    let mut pending = vec![("#".to_owned(), &root)];
    let mut closed = 0;
    while let Some((path, schema)) = pending.pop() {
        if schema.get("properties").is_some() {
            assert_eq!(schema["additionalProperties"], false, "{path}");
            closed += 1;
        }
        match schema["type"].as_str() {
            Some("string") => {
                let is_bounded = schema.get("enum").is_some() || schema.get("maxLength").is_some();
                assert!(is_bounded, "{path}: a text without maxLength");
            }
            Some("array") => assert!(
                schema.get("maxItems").is_some(),
                "{path}: a list without maxItems"
            ),
            _ => {}
        }
        match schema {
            Value::Object(map) => pending.extend(
                map.iter()
                    .map(|(key, value)| (format!("{path}/{key}"), value)),
            ),
            Value::Array(list) => pending.extend(list.iter().map(|value| (path.clone(), value))),
            _ => {}
        }
    }
    assert!(closed > 40, "{closed}");
    Ok(())
}
