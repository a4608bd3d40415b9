//! YAML text to typed objects.
//!
//! One text may hold many documents. Every mistake is reported with line, column, field and remedy;
//! an object with a mistake is left out, its neighbours are not. Unknown fields are mistakes. The
//! members that an API server writes (`status`, `metadata.uid`, …) are ignored, so that what
//! `kubectl get -o yaml` prints can be read back. Objects of other API groups are passed over with
//! a warning. [`object_from_json`] reads one object that is JSON, as it comes from an API server.
//! Sizes are bounded: [`TEXT_OCTETS_MAX`], and the depth and node limits of the reader.

mod json;
mod suggest;
mod tree;
mod typed;

use crate::diagnostic::{Diagnostic, Origin, Position};
use crate::object::{
    API_GROUP, API_VERSION, CalloutService, Object, ObjectMeta, OpesRule, Resource,
};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use tree::{Entry, Node, Value};

pub use json::{object_from_json, object_from_value};
pub(crate) use suggest::remedy as suggestion;

/// Largest text that is read, in octets.
pub const TEXT_OCTETS_MAX: usize = 4 << 20;
/// Deepest nesting of mappings and lists.
const DEPTH_MAX: usize = 32;
/// Most nodes in one text.
const NODES_MAX: usize = 100_000;
/// Most uses of YAML anchors in one text.
const ALIASES_MAX: usize = 1_000;

const KINDS: [&str; 2] = ["OpesRule", "CalloutService"];
const ENVELOPE: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
/// Members of `metadata` that the API server writes or that mean nothing outside a cluster.
const SERVER_METADATA: [&str; 11] = [
    "uid",
    "resourceVersion",
    "generation",
    "generateName",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "selfLink",
];

/// What one text holds.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) objects: Vec<Object>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Kind and `namespace/name` of objects that have mistakes: references to them are not wrong.
    pub(crate) broken: Vec<(String, String)>,
}

/// Reads all objects of a text. `source_name` is what diagnostics call it.
pub fn parse(source_name: &str, text: &str) -> (Vec<Object>, Vec<Diagnostic>) {
    let parsed = parse_all(source_name, text);
    (parsed.objects, parsed.diagnostics)
}

/// Like [`parse()`], and names the objects that were left out.
pub(crate) fn parse_all(source_name: &str, text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    match documents(source_name, text) {
        Ok(documents) => {
            for document in documents {
                read_document(source_name, document, &mut parsed);
            }
        }
        Err(diagnostic) => parsed.diagnostics.push(diagnostic),
    }
    parsed
}

/// The documents of a text, or what is wrong with its YAML.
fn documents(source_name: &str, text: &str) -> Result<Vec<Node>, Diagnostic> {
    let origin = Origin::named(source_name);
    if text.len() > TEXT_OCTETS_MAX {
        let message = format!(
            "{} octets are more than the {TEXT_OCTETS_MAX} allowed",
            text.len()
        );
        return Err(origin.error("", message, "split the file"));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_aliases: ALIASES_MAX,
        },
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options::<Node>(text, options).map_err(|error| {
        let mut origin = origin;
        if let Some(location) = error.location() {
            origin
                .places
                .insert(String::new(), tree::position(location));
        }
        let said = error.without_snippet().to_string();
        // The place is in front of the message already.
        let message = said.split(" at line ").next().unwrap_or_default();
        origin.error("", format!("not valid YAML: {message}"), "")
    })
}

fn read_document(source_name: &str, document: Node, parsed: &mut Parsed) {
    let mut origin = Origin::named(source_name);
    document.record("", &mut origin.places);
    let kind = match check_envelope(&origin, &document, &mut parsed.diagnostics) {
        Some(kind) => kind.to_owned(),
        None => return,
    };
    let errors_before = parsed.diagnostics.len();
    let name = document.get("metadata").map(|entry| name_in(&entry.node));
    let resource = read_resource(&kind, document, &origin, &mut parsed.diagnostics);
    match resource {
        Some(resource) if parsed.diagnostics.len() == errors_before => {
            parsed.objects.push(Object { origin, resource });
        }
        _ => parsed.broken.extend(name.map(|name| (kind, name))),
    }
}

fn name_in(metadata: &Node) -> String {
    let namespace = metadata
        .text("namespace")
        .unwrap_or(crate::object::DEFAULT_NAMESPACE);
    format!("{namespace}/{}", metadata.text("name").unwrap_or_default())
}

/// Looks at `apiVersion` and `kind`; gives the kind if the document is one of ours.
fn check_envelope<'d>(
    origin: &Origin,
    document: &'d Node,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<&'d str> {
    if !matches!(document.value, Value::Map(_)) {
        let remedy = "write apiVersion, kind, metadata and spec";
        diagnostics.push(origin.error("", "expected an object", remedy));
        return None;
    }
    let version = document.text("apiVersion");
    match version {
        Some(API_VERSION) => {}
        Some(version) if version.split('/').next() != Some(API_GROUP) => {
            let message = format!("an object of `{version}` is passed over");
            let remedy = format!("rules and services have apiVersion: {API_VERSION}");
            diagnostics.push(origin.warning("apiVersion", message, remedy));
            return None;
        }
        Some(version) => {
            let message = format!("version `{version}` is not known");
            diagnostics.push(origin.error("apiVersion", message, format!("use {API_VERSION}")));
            return None;
        }
        None => {
            let remedy = format!("write apiVersion: {API_VERSION}");
            diagnostics.push(origin.error("apiVersion", "is missing", remedy));
            return None;
        }
    }
    match document.text("kind") {
        Some(kind) if KINDS.contains(&kind) => Some(kind),
        Some(kind) => {
            let message = format!("unknown kind `{kind}`");
            diagnostics.push(origin.error("kind", message, suggestion(kind, &KINDS)));
            None
        }
        None => {
            diagnostics.push(origin.error("kind", "is missing", "write kind: OpesRule"));
            None
        }
    }
}

fn read_resource(
    kind: &str,
    mut document: Node,
    origin: &Origin,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Resource> {
    refuse_unknown_members(&document, origin, diagnostics);
    let metadata = document.take("metadata").map(|mut entry| {
        forget_server_metadata(&mut entry.node);
        entry
    });
    let metadata = read_member::<ObjectMeta>("metadata", metadata, origin, diagnostics);
    let spec = document.take("spec");
    if kind == "OpesRule" {
        let spec = read_member("spec", spec, origin, diagnostics);
        Some(Resource::OpesRule(Box::new(OpesRule {
            metadata: metadata?,
            spec: spec?,
        })))
    } else {
        let spec = read_member("spec", spec, origin, diagnostics);
        let service = CalloutService {
            metadata: metadata?,
            spec: spec?,
        };
        Some(Resource::CalloutService(Box::new(service)))
    }
}

fn refuse_unknown_members(document: &Node, origin: &Origin, diagnostics: &mut Vec<Diagnostic>) {
    let Value::Map(entries) = &document.value else {
        return;
    };
    for entry in entries
        .iter()
        .filter(|entry| !ENVELOPE.contains(&entry.key.as_str()))
    {
        let message = format!("unknown field `{}`", entry.key);
        let remedy = suggestion(&entry.key, &ENVELOPE);
        diagnostics.push(placed(
            origin,
            &entry.key,
            message,
            remedy,
            entry.key_position,
        ));
    }
}

fn forget_server_metadata(metadata: &mut Node) {
    if let Value::Map(entries) = &mut metadata.value {
        entries.retain(|entry| !SERVER_METADATA.contains(&entry.key.as_str()));
    }
}

fn read_member<T: DeserializeOwned>(
    member: &str,
    entry: Option<Entry>,
    origin: &Origin,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<T> {
    let Some(entry) = entry else {
        diagnostics.push(origin.error(member, "is missing", ""));
        return None;
    };
    let position = entry.node.position;
    match typed::read(entry.node) {
        Ok(value) => Some(value),
        Err(faults) => {
            for fault in faults {
                let below = fault.field();
                let field = if below.is_empty() {
                    member.to_owned()
                } else {
                    tree::join(member, &below)
                };
                let at = fault.position.unwrap_or(position);
                diagnostics.push(placed(origin, &field, fault.message, fault.remedy, at));
            }
            None
        }
    }
}

/// An error whose place is known better than by its field.
fn placed(
    origin: &Origin,
    field: &str,
    message: String,
    remedy: String,
    position: Position,
) -> Diagnostic {
    let places = BTreeMap::from([(field.to_owned(), position)]);
    Origin {
        source: origin.source.clone(),
        places,
    }
    .error(field, message, remedy)
}
