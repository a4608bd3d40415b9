use super::*;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use opes_rules::compile::{Outcome, Runs, compile_isolated};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Far below what `kubectl apply` can annotate (262,144 octets).
const FILE_OCTETS_MAX: usize = 200_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn definitions() -> Vec<CustomResourceDefinition> {
    crds().unwrap().into_iter().map(|(_, crd)| crd).collect()
}

#[test]
fn what_is_committed_is_what_is_generated() {
    let again = "run: cargo run -p opes-k8s --example crds";
    for (file, definition) in crds().unwrap() {
        let path = root().join("charts/opes/crds-src").join(file);
        let committed = std::fs::read_to_string(&path).unwrap();
        let generated = yaml(&definition).unwrap();
        assert!(committed == generated, "{} is old; {again}", path.display());
        assert!(generated.len() < FILE_OCTETS_MAX, "{}", generated.len());
    }
    let committed = std::fs::read_to_string(root().join("docs/reference/crd.md")).unwrap();
    let generated = reference::page(&definitions()).unwrap();
    assert!(
        committed == generated,
        "docs/reference/crd.md is old; {again}"
    );
}

/// Calls `look` for every schema with its path.
fn walk(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
    look(path, schema);
    let fields = schema.get("properties").and_then(Value::as_object);
    for (name, below) in fields.into_iter().flatten() {
        walk(&format!("{path}.{name}"), below, look);
    }
    if let Some(items) = schema.get("items") {
        walk(&format!("{path}[]"), items, look);
    }
    if let Some(values) = schema.get("additionalProperties") {
        walk(&format!("{path}.*"), values, look);
    }
}

fn each_schema(mut look: impl FnMut(&str, &Value)) {
    for definition in definitions() {
        let value = serde_json::to_value(&definition).unwrap();
        let schema = value.pointer("/spec/versions/0/schema/openAPIV3Schema");
        let kind = definition.spec.names.kind;
        walk(&kind, schema.unwrap(), &mut look);
    }
}

#[test]
fn everything_is_bounded() {
    let mut seen = 0;
    each_schema(|path, schema| {
        seen += 1;
        let has = |key: &str| schema.get(key).is_some();
        let free = has("x-kubernetes-preserve-unknown-fields");
        assert!(!free || has("x-kubernetes-map-type"), "{path} is merged");
        let bound = match schema.get("type").and_then(Value::as_str) {
            Some("array") => {
                assert!(has("x-kubernetes-list-type"), "{path}");
                "maxItems"
            }
            Some("string") => "maxLength",
            Some("object") if free || has("additionalProperties") => "maxProperties",
            Some("object" | "boolean") => return,
            Some("integer") if path.contains("status") || path.ends_with("lation") => return,
            Some("integer") => "maximum",
            None if has("x-kubernetes-int-or-string") => "maxLength",
            other => panic!("{path}: {other:?}"),
        };
        assert!(has(bound), "{path} has no {bound}: {schema}");
    });
    assert!(seen > 100, "{seen}");
}

#[test]
fn every_field_is_described() {
    each_schema(|path, schema| {
        let fields = schema.get("properties").and_then(Value::as_object);
        for (name, field) in fields.into_iter().flatten() {
            let about = field.get("description").and_then(Value::as_str);
            let about = about.unwrap_or_default();
            assert!(about.len() > 10, "{path}.{name}: {about:?}");
            for jargon in ["Option<", "Vec<", "[`", "::<", "serde", "struct", "\n"] {
                assert!(!about.contains(jargon), "{path}.{name}: {about}");
            }
        }
    });
}

#[test]
fn schemas_are_structural() {
    each_schema(|path, schema| {
        for key in [
            "oneOf",
            "allOf",
            "nullable",
            "default",
            "$ref",
            "x-meanings",
        ] {
            assert!(schema.get(key).is_none(), "{path} has {key}");
        }
        let values = schema.get("enum").and_then(Value::as_array);
        assert!(
            !values.is_some_and(|values| values.contains(&Value::Null)),
            "{path}"
        );
        assert!(schema.get("additionalProperties") != Some(&Value::Bool(false)));
        let rules = schema.get("x-kubernetes-validations");
        for rule in rules.and_then(Value::as_array).into_iter().flatten() {
            assert!(rule.get("message").is_some(), "{path}: {rule}");
        }
    });
}

#[test]
fn names_are_not_those_of_others() {
    // Short names, singular and plural names of what every cluster has.
    let taken = [
        "cm",
        "cs",
        "csr",
        "crd",
        "deploy",
        "ds",
        "ep",
        "ev",
        "hpa",
        "ing",
        "limits",
        "netpol",
        "no",
        "ns",
        "pc",
        "pdb",
        "po",
        "psp",
        "pv",
        "pvc",
        "quota",
        "rc",
        "rs",
        "sa",
        "sc",
        "sts",
        "svc",
        "all",
        "api-extensions",
    ];
    for definition in definitions() {
        let names = definition.spec.names;
        for name in names
            .short_names
            .into_iter()
            .chain(names.categories)
            .flatten()
        {
            assert!(!taken.contains(&name.as_str()), "{name}");
        }
    }
}

fn rule(spec: &Value, status: &Value) -> OpesRule {
    serde_json::from_value(json!({
        "apiVersion": "opes.dev/v1alpha1",
        "kind": "OpesRule",
        "metadata": {
            "name": "scan",
            "namespace": "mail",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "managedFields": [],
        },
        "spec": spec,
        "status": status,
    }))
    .unwrap()
}

#[test]
fn an_object_that_cannot_be_read_runs_as_it_was_accepted() {
    let good = json!({ "at": ["data"], "action": { "continue": {} } });
    let bad = json!({ "at": ["never"], "colour": 7 });
    let status = json!({
        "observedGeneration": 3,
        "conditions": [{
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }],
        "lastAccepted": { "generation": 3, "spec": good },
    });
    let rule = rule(&bad, &status);
    assert_eq!(rule.qualified_name(), "mail/scan");
    let found = rule.object().unwrap_err();
    assert!(found.iter().any(|d| d.field == "spec.at[0]"), "{found:?}");
    assert!(found.iter().any(|d| d.field == "spec.colour"), "{found:?}");
    let isolated = compile_isolated(&[rule.candidate()]);
    let judgement = isolated.judgements.first().unwrap();
    assert_eq!(judgement.outcome, Outcome::LastAccepted);
    assert_eq!(judgement.runs, Runs::LastAccepted);
    assert_eq!(serde_json::to_value(&rule.status).unwrap(), status);
}

#[test]
fn without_a_status_there_is_nothing_to_fall_back_to() {
    let rule = rule(&json!({ "at": [] }), &Value::Null);
    assert!(rule.last_accepted_object().is_none());
    let isolated = compile_isolated(&[rule.candidate()]);
    assert!(isolated.objects.is_empty());
}
