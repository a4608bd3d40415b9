//! Which version of each service is in the table.

use super::chosen::{Chosen, conflict_with, has_error, is_barred, other};
use super::rules::Rules;
use super::{Candidate, Runs};
use crate::compile::{Report, conflict, service};
use crate::diagnostic::{Diagnostic, Origin};
use crate::object::{CalloutService, Object, Resource};
use crate::table::{Rule, Service};
use std::collections::{BTreeMap, BTreeSet};

/// By `NAMESPACE/NAME`.
pub(super) type Services<'c> = BTreeMap<&'c str, Chosen<'c, Service>>;

/// The candidate is in this place by age.
pub(super) fn choose(place: usize, candidate: &Candidate) -> Chosen<'_, Service> {
    let mut faults = candidate.known_faults(place);
    if is_barred(&faults) {
        return Chosen::left_out(faults);
    }
    for (runs, object) in candidate.versions() {
        let Resource::CalloutService(service) = &object.resource else {
            continue;
        };
        let (compiled, found) = compile(service, &object.origin);
        let right = !has_error(&found);
        if runs == Runs::Written {
            faults.extend(found.into_iter().map(other));
        }
        if right {
            return Chosen::made(runs, faults, object, compiled);
        }
    }
    Chosen::left_out(faults)
}

fn compile(service: &CalloutService, origin: &Origin) -> (Service, Vec<Diagnostic>) {
    let mut found = Vec::new();
    let mut report = Report {
        origin,
        found: &mut found,
    };
    let compiled = service::compile(service, &mut report);
    found.sort();
    (compiled, found)
}

/// There may be times without any instance.
pub(super) fn may_have_none(chosen: &Chosen<'_, Service>) -> bool {
    chosen
        .made
        .as_ref()
        .is_some_and(|made| scales_to_zero(&made.object))
}

fn scales_to_zero(object: &Object) -> bool {
    match &object.resource {
        Resource::CalloutService(service) => service.spec.scales_to_zero(),
        Resource::OpesRule(_) => false,
    }
}

/// An edit does not scale a service to zero under a rule that has run and cannot bear it.
pub(super) fn keep_instances<'c>(
    candidates: &[&'c Candidate],
    services: &mut Services<'c>,
    rules: &Rules<'c>,
) {
    let has_run: BTreeSet<&str> = candidates
        .iter()
        .filter(|candidate| candidate.is_rule() && candidate.last_accepted.is_some())
        .map(|candidate| candidate.name.as_str())
        .collect();
    for candidate in candidates.iter().filter(|candidate| candidate.is_service()) {
        let before = candidate.last_accepted.as_ref();
        let Some(before) = before.filter(|before| !scales_to_zero(before)) else {
            continue;
        };
        let chosen = services.get_mut(candidate.name.as_str());
        let Some(chosen) = chosen.filter(|chosen| may_have_none(chosen)) else {
            continue;
        };
        let mut callers = rules.iter().filter(|(name, _)| has_run.contains(*name));
        let caller = callers.find_map(|(_, rule)| {
            let rule = &rule.made.as_ref()?.compiled;
            (!conflict::bears_no_instance(rule, &candidate.name)).then_some(rule)
        });
        if let Some(caller) = caller {
            fall_back(chosen, before, caller);
        }
    }
}

fn fall_back<'c>(chosen: &mut Chosen<'c, Service>, before: &'c Object, caller: &Rule) {
    let Resource::CalloutService(service) = &before.resource else {
        return;
    };
    let (compiled, found) = compile(service, &before.origin);
    if has_error(&found) {
        return;
    }
    let (message, remedy) = conflict::no_instance_for(caller);
    let origin = chosen.made.as_ref().map(|made| made.object.origin.clone());
    let origin = origin.unwrap_or_default();
    let diagnostic = origin.error("spec.pool.min", message, remedy);
    let mut faults = std::mem::take(&mut chosen.faults);
    faults.push(conflict_with(&caller.name, diagnostic));
    *chosen = Chosen::made(Runs::LastAccepted, faults, before, compiled);
}
