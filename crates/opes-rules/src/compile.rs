//! Objects to a routing table, or everything that is wrong with them.
//!
//! All checks that need more than one field are here: references, what a class can do at a point,
//! what can be known at a point, contradictions between rules. Every mistake is found in one go.
//! The result depends on the objects only, not on their order or on the files they were in.

mod action;
mod conflict;
mod isolate;
mod revision;
mod rule;
mod service;

use crate::diagnostic::{Diagnostic, Origin};
use crate::object::{Object, Resource};
use crate::parse::{Parsed, parse_all};
use crate::point::POINTS;
use crate::table::{RoutingTable, Rule, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use isolate::{
    Candidate, Fault, FaultKind, Isolated, Judgement, Outcome, Runs, compile_isolated,
};

pub(crate) use action::is_field_name;
pub(crate) use revision::canonical_json;

/// Most objects in one table.
const OBJECTS_MAX: usize = 10_000;
/// Longest name of an object (RFC 1123 §2.1, as Kubernetes has it).
const NAME_OCTETS_MAX: usize = 253;

/// Collects what is wrong with one object.
struct Report<'o> {
    origin: &'o Origin,
    found: &'o mut Vec<Diagnostic>,
}

/// A rule that compiled and where it came from.
struct Compiled<'o> {
    rule: Arc<Rule>,
    origin: &'o Origin,
}

/// Compiles objects. On failure at least one of the diagnostics is an error.
#[allow(
    clippy::needless_pass_by_value,
    reason = "a table replaces the objects it was made from"
)]
pub fn compile(objects: Vec<Object>) -> Result<RoutingTable, Vec<Diagnostic>> {
    compile_beside(&objects, &BTreeSet::new())
}

/// Parses and compiles texts, each with the name that diagnostics call it.
pub fn load<'s>(
    sources: impl IntoIterator<Item = (&'s str, &'s str)>,
) -> Result<RoutingTable, Vec<Diagnostic>> {
    let mut all = Parsed::default();
    for (name, text) in sources {
        let parsed = parse_all(name, text);
        all.objects.extend(parsed.objects);
        all.diagnostics.extend(parsed.diagnostics);
        all.broken.extend(parsed.broken);
    }
    let broken = all.broken.into_iter().collect();
    let compiled = compile_beside(&all.objects, &broken);
    let mut diagnostics = all.diagnostics;
    match compiled {
        Ok(mut table) if !diagnostics.iter().any(Diagnostic::is_error) => {
            table.warnings.append(&mut diagnostics);
            table.warnings.sort();
            Ok(table)
        }
        Ok(table) => {
            diagnostics.extend(table.warnings);
            diagnostics.sort();
            Err(diagnostics)
        }
        Err(more) => {
            diagnostics.extend(more);
            diagnostics.sort();
            Err(diagnostics)
        }
    }
}

/// Compiles objects; a reference to one of the `broken` ones, by kind and name, is not wrong.
fn compile_beside(
    objects: &[Object],
    broken: &BTreeSet<(String, String)>,
) -> Result<RoutingTable, Vec<Diagnostic>> {
    let mut found = Vec::new();
    check_names(objects, &mut found);
    let services = compile_services(objects, &mut found);
    let mut rules = compile_rules(objects, &services, broken, &mut found);
    rules.sort_by(|a, b| (a.rule.priority, &a.rule.name).cmp(&(b.rule.priority, &b.rule.name)));
    conflict::check(objects, &rules, &mut found);
    // Who would call it may be in a rule that could not be read.
    if !broken.iter().any(|(kind, _)| kind == "OpesRule") {
        conflict::unused_services(objects, &mut found);
    }
    found.sort();
    if found.iter().any(Diagnostic::is_error) {
        return Err(found);
    }
    let rules = rules.into_iter().map(|compiled| compiled.rule).collect();
    Ok(assemble(objects, rules, services, found))
}

/// Puts what has compiled into running order.
fn assemble(
    objects: &[Object],
    mut rules: Vec<Arc<Rule>>,
    services: BTreeMap<String, Service>,
    warnings: Vec<Diagnostic>,
) -> RoutingTable {
    rules.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
    RoutingTable {
        revision: revision::of(objects),
        by_point: index(&rules),
        rules,
        services: services
            .into_iter()
            .map(|(name, service)| (name, Arc::new(service)))
            .collect(),
        warnings,
    }
}

fn index(rules: &[Arc<Rule>]) -> [Vec<u32>; POINTS] {
    let mut by_point: [Vec<u32>; POINTS] = Default::default();
    for (number, rule) in (0..).zip(rules) {
        for point in &rule.points {
            if let Some(indexes) = by_point.get_mut(point.index()) {
                indexes.push(number);
            }
        }
    }
    by_point
}

/// Names are well formed, and each is there once for its kind.
fn check_names(objects: &[Object], found: &mut Vec<Diagnostic>) {
    if objects.len() > OBJECTS_MAX {
        let message = format!(
            "{} objects are more than the {OBJECTS_MAX} allowed",
            objects.len()
        );
        found.push(Origin::default().error("", message, ""));
    }
    let mut seen: BTreeMap<(&str, String), &Origin> = BTreeMap::new();
    for object in objects {
        let mut report = Report {
            origin: &object.origin,
            found: &mut *found,
        };
        let metadata = object.metadata();
        for (field, name) in [("name", &metadata.name), ("namespace", &metadata.namespace)] {
            if !is_object_name(name) {
                let message = format!("`{name}` is not a name");
                let remedy = "write lower case letters, digits, `-` and `.`";
                report.error(format!("metadata.{field}"), message, remedy);
            }
        }
        let name = metadata.qualified_name();
        let first = seen
            .entry((object.kind(), name.clone()))
            .or_insert(&object.origin);
        if !std::ptr::eq(*first, &raw const object.origin) {
            let place = first.place("metadata.name");
            let message = format!(
                "{} {name} is defined twice, first at {}:{}",
                object.kind(),
                first.source,
                place.line
            );
            report.error("metadata.name", message, "rename or remove one of them");
        }
    }
}

fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes
                .iter()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    name.len() <= NAME_OCTETS_MAX && name.split('.').all(label)
}

fn compile_services(objects: &[Object], found: &mut Vec<Diagnostic>) -> BTreeMap<String, Service> {
    let mut services = BTreeMap::new();
    for object in objects {
        if let Resource::CalloutService(service) = &object.resource {
            let mut report = Report {
                origin: &object.origin,
                found: &mut *found,
            };
            let service = service::compile(service, &mut report);
            services.insert(service.name.clone(), service);
        }
    }
    services
}

fn compile_rules<'o>(
    objects: &'o [Object],
    services: &BTreeMap<String, Service>,
    broken: &BTreeSet<(String, String)>,
    found: &mut Vec<Diagnostic>,
) -> Vec<Compiled<'o>> {
    let mut rules = Vec::new();
    for object in objects {
        if let Resource::OpesRule(rule) = &object.resource {
            let origin = &object.origin;
            let mut report = Report {
                origin,
                found: &mut *found,
            };
            let rule = Arc::new(rule::compile(rule, services, broken, &mut report));
            rules.push(Compiled { rule, origin });
        }
    }
    rules
}

// === impl Report ===

impl Report<'_> {
    fn error(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.found.push(self.origin.error(field, message, remedy));
    }

    fn warning(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.found.push(self.origin.warning(field, message, remedy));
    }
}

#[cfg(test)]
mod tests;
