//! What is wrong between rules that are each right.

use super::Compiled;
use crate::diagnostic::Diagnostic;
use crate::object::{Object, Resource};
use crate::point::{Class, Point};
use crate::table::{LocalAction, Rule};
use std::collections::BTreeSet;

/// Looks at all pairs that can be in conflict.
pub(super) fn check(rules: &[Compiled<'_>], found: &mut Vec<Diagnostic>) {
    contradictions(rules, found);
    changes_after_signing(rules, found);
}

/// Two terminal actions of one priority at one point: which of them wins must not be an accident
/// of names. `rules` is sorted by priority.
fn contradictions(rules: &[Compiled<'_>], found: &mut Vec<Diagnostic>) {
    for (index, later) in rules.iter().enumerate() {
        let Some(action) = terminal(&later.rule) else {
            continue;
        };
        let peers = rules.iter().take(index).rev();
        let peers = peers.take_while(|earlier| earlier.rule.priority == later.rule.priority);
        let conflict = peers
            .filter(|earlier| {
                terminal(&earlier.rule).is_some_and(|other| other.name() != action.name())
            })
            .find(|earlier| meet(&earlier.rule, &later.rule));
        if let Some(earlier) = conflict {
            let other = terminal(&earlier.rule).map_or("", LocalAction::name);
            let message = format!(
                "`{}` contradicts `{other}` of rule {} at the same point with the same priority {}",
                action.name(),
                earlier.rule.name,
                later.rule.priority
            );
            let remedy = "give one of them another priority; the lower number wins";
            found.push(later.origin.error("spec.action", message, remedy));
        }
    }
}

fn terminal(rule: &Rule) -> Option<&LocalAction> {
    rule.action
        .as_ref()
        .filter(|action| action.is_terminal() && !rule.shadow)
}

/// Some message can meet both rules at one point.
fn meet(a: &Rule, b: &Rule) -> bool {
    a.points.iter().any(|point| b.points.contains(point)) && !a.matcher.excludes(&b.matcher)
}

/// Within one point signers run last by construction. At a later point nothing may change octets
/// that have been signed.
fn changes_after_signing(rules: &[Compiled<'_>], found: &mut Vec<Diagnostic>) {
    let signers: Vec<&Compiled<'_>> = rules
        .iter()
        .filter(|c| c.rule.class == Some(Class::Sign) && !c.rule.shadow)
        .collect();
    for changer in rules
        .iter()
        .filter(|compiled| changes_octets(&compiled.rule))
    {
        let Some(last) = changer.rule.points.iter().max() else {
            continue;
        };
        let before = signers.iter().find_map(|signer| {
            let signed_at = signer
                .rule
                .points
                .iter()
                .filter(|point| *point < last)
                .min()?;
            let apart = signer.rule.matcher.excludes(&changer.rule.matcher);
            (!apart).then_some((signer, *signed_at))
        });
        if let Some((signer, signed_at)) = before {
            report_broken_signature(changer, *last, &signer.rule.name, signed_at, found);
        }
    }
}

fn changes_octets(rule: &Rule) -> bool {
    if rule.shadow {
        return false;
    }
    let adapts = rule.class == Some(Class::Adapt)
        && rule
            .callout
            .as_ref()
            .is_some_and(|callout| callout.allow.changes_octets());
    let edits = matches!(
        rule.action,
        Some(LocalAction::AddHeader { .. } | LocalAction::MarkSubject { .. })
    );
    adapts || edits
}

fn report_broken_signature(
    changer: &Compiled<'_>,
    at: Point,
    signer: &str,
    signed_at: Point,
    found: &mut Vec<Diagnostic>,
) {
    let field = changer
        .rule
        .points
        .iter()
        .position(|point| *point == at)
        .map_or_else(|| "spec.at".to_owned(), |index| format!("spec.at[{index}]"));
    let message = format!(
        "the message can be changed at {at} after rule {signer} has signed it at {signed_at}"
    );
    let remedy = format!("move this rule to {signed_at}, or let {signer} sign at {at}");
    found.push(changer.origin.error(field, message, remedy));
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
