//! What is wrong between rules that are each right.

mod meeting;

use super::Compiled;
use crate::diagnostic::Diagnostic;
use crate::object::{Object, Resource};
use crate::point::OnFailure;
use crate::table::Rule;
use std::collections::BTreeSet;

pub(super) use meeting::{Conflicts, broken_signature, contradiction};

/// Looks at all pairs that can be in conflict.
pub(super) fn check(objects: &[Object], rules: &[Compiled<'_>], found: &mut Vec<Diagnostic>) {
    contradictions(rules, found);
    changes_after_signing(rules, found);
    scale_to_zero(objects, rules, found);
}

/// Two terminal actions of one priority at one point: which of them wins must not be an accident
/// of names. `rules` is sorted by priority.
fn contradictions(rules: &[Compiled<'_>], found: &mut Vec<Diagnostic>) {
    let mut earlier = Conflicts::default();
    for later in rules {
        if let Some(other) = earlier.contradicted(&later.rule).pop() {
            let (message, remedy) = contradiction(&later.rule, other);
            found.push(later.origin.error("spec.action", message, remedy));
        }
        earlier.add(&later.rule);
    }
}

/// Within one point signers run last by construction. At a later point nothing may change octets
/// that have been signed.
fn changes_after_signing(rules: &[Compiled<'_>], found: &mut Vec<Diagnostic>) {
    let mut all = Conflicts::default();
    for compiled in rules {
        all.add(&compiled.rule);
    }
    for changer in rules {
        if let Some(signer) = all.signed_before(&changer.rule).first() {
            let (field, message, remedy) = broken_signature(&changer.rule, signer);
            found.push(changer.origin.error(field, message, remedy));
        }
    }
}

/// A pool without instances fails the first messages after a pause: every rule must live with that.
fn scale_to_zero(objects: &[Object], rules: &[Compiled<'_>], found: &mut Vec<Diagnostic>) {
    for object in objects {
        let Resource::CalloutService(service) = &object.resource else {
            continue;
        };
        if !service.spec.scales_to_zero() {
            continue;
        }
        let name = service.metadata.qualified_name();
        let calls = |compiled: &&Compiled<'_>| !bears_no_instance(&compiled.rule, &name);
        if let Some(caller) = rules.iter().find(calls) {
            let (message, remedy) = no_instance_for(&caller.rule);
            found.push(object.origin.error("spec.pool.min", message, remedy));
        }
    }
}

/// The rule does not call this service, or a message that it fails for is not lost and not refused for good.
pub(super) fn bears_no_instance(rule: &Rule, service: &str) -> bool {
    rule.callout.as_ref().is_none_or(|callout| {
        callout.service != service
            || matches!(callout.on_failure, OnFailure::Accept | OnFailure::Tempfail)
    })
}

/// What is wrong with a service that may have no instance, and what to do about it.
pub(super) fn no_instance_for(rule: &Rule) -> (String, String) {
    let policy = rule.callout.as_ref().map_or("", |c| c.on_failure.name());
    let message = format!(
        "0 would fail the first messages after a pause, and rule {} says onFailure: {policy}",
        rule.name
    );
    let remedy = "write 1 or more, or onFailure: tempfail or accept in the rule".to_owned();
    (message, remedy)
}

/// A service that no rule calls does nothing.
pub(super) fn unused_services(objects: &[Object], found: &mut Vec<Diagnostic>) {
    let called: BTreeSet<String> = objects
        .iter()
        .filter_map(|object| match &object.resource {
            Resource::OpesRule(rule) => Some(rule),
            Resource::CalloutService(_) => None,
        })
        .filter_map(|rule| {
            let callout = rule.spec.callout.as_ref()?;
            Some(format!(
                "{}/{}",
                rule.metadata.namespace, callout.service_ref.name
            ))
        })
        .collect();
    for object in objects {
        let name = object.metadata().qualified_name();
        if object.kind() == "CalloutService" && !called.contains(&name) {
            let message = format!("no rule calls the service {name}");
            let remedy = format!(
                "write an OpesRule with serviceRef: {{ name: {} }}",
                object.metadata().name
            );
            found.push(object.origin.warning("metadata.name", message, remedy));
        }
    }
}
