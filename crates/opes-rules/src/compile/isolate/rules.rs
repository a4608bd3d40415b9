//! Which version of each rule is in the table.

use super::chosen::{Chosen, conflict_with, has_error, is_barred, other};
use super::services::{Services, may_have_none};
use super::{Candidate, Fault, FaultKind, Outcome, Runs, stand_in};
use crate::compile::conflict::{self, Conflicts, broken_signature, contradiction};
use crate::compile::{Report, rule};
use crate::diagnostic::{Diagnostic, Origin};
use crate::object::{Object, OpesRule, Resource};
use crate::point::Class;
use crate::table::{Rule, Service};
use std::collections::BTreeMap;
use std::sync::Arc;

/// By `NAMESPACE/NAME`.
pub(super) type Rules<'c> = BTreeMap<&'c str, Chosen<'c, Arc<Rule>>>;

/// One look at all rules, in order of age.
pub(super) struct Pass<'p, 'c> {
    services: &'p Services<'c>,
    running: BTreeMap<String, Service>,
    /// Of all services that could be read.
    classes: BTreeMap<&'c str, Class>,
    /// Rules must bear that a service scales to zero.
    careful: bool,
    older: Conflicts,
}

/// A version that cannot call its service.
struct Bereft<'c> {
    runs: Runs,
    object: &'c Object,
    rule: &'c OpesRule,
}

impl<'p, 'c> Pass<'p, 'c> {
    pub(super) fn new(
        candidates: &[&'c Candidate],
        services: &'p Services<'c>,
        careful: bool,
    ) -> Self {
        let running = services
            .iter()
            .filter_map(|(name, chosen)| Some(((*name).to_owned(), chosen.made.as_ref()?)))
            .map(|(name, made)| (name, made.compiled.clone()));
        let classes = candidates
            .iter()
            .filter_map(|candidate| Some((candidate.name.as_str(), class(candidate)?)));
        Self {
            services,
            running: running.collect(),
            classes: classes.collect(),
            careful,
            older: Conflicts::default(),
        }
    }

    /// The candidate is in this place by age; older ones have been looked at.
    pub(super) fn choose(
        &mut self,
        place: usize,
        candidate: &'c Candidate,
    ) -> Chosen<'c, Arc<Rule>> {
        let mut faults = candidate.known_faults(place);
        if is_barred(&faults) {
            return Chosen::left_out(faults);
        }
        let mut bereft = None;
        for (runs, object) in candidate.versions() {
            let Resource::OpesRule(rule) = &object.resource else {
                continue;
            };
            let (compiled, found) = self.compile(rule, &object.origin);
            let errors = found.iter().filter(|fault| fault.is_error());
            let kinds: Vec<FaultKind> = errors.map(|fault| fault.kind.clone()).collect();
            if runs == Runs::Written {
                faults.extend(found);
            }
            if kinds.is_empty() {
                self.older.add(&compiled);
                return Chosen::made(runs, faults, object, compiled);
            }
            // Its service is missing; or it ran before, and its service is another one now.
            let missing = kinds.iter().all(|kind| *kind == FaultKind::Reference);
            let unfit = || runs == Runs::LastAccepted && is_right_alone(rule, &kinds, object);
            if bereft.is_none() && (missing || unfit()) {
                bereft = Some(Bereft { runs, object, rule });
            }
        }
        match bereft {
            Some(bereft) => self.stand_in(&bereft, faults),
            None => Chosen::left_out(faults),
        }
    }

    /// Compiles a rule beside the older ones that run.
    fn compile(&self, rule: &OpesRule, origin: &Origin) -> (Arc<Rule>, Vec<Fault>) {
        let missing = service_of(rule).filter(|name| !self.running.contains_key(name));
        let (compiled, found) = compile(rule, origin, &self.running, missing.as_deref());
        let mut faults: Vec<Fault> = found.into_iter().map(other).collect();
        faults.extend(missing.map(|name| self.unresolved(&name, origin)));
        if !faults.iter().any(Fault::is_error) {
            faults.extend(self.conflict(&compiled, origin));
        }
        (compiled, faults)
    }

    /// The oldest rule that this one is in conflict with.
    fn conflict(&self, rule: &Rule, origin: &Origin) -> Option<Fault> {
        if let Some(winner) = self.older.contradicted(rule).first() {
            let (message, remedy) = contradiction(rule, winner);
            let diagnostic = origin.error("spec.action", message, remedy);
            return Some(conflict_with(&winner.name, diagnostic));
        }
        if let Some(signer) = self.older.signed_before(rule).first() {
            let (field, message, remedy) = broken_signature(rule, signer);
            let diagnostic = origin.error(field, message, remedy);
            return Some(conflict_with(&signer.name, diagnostic));
        }
        if let Some(changer) = self.older.changed_after(rule).first() {
            let (_, message, _) = broken_signature(changer, rule);
            let message = format!("of rule {}: {message}", changer.name);
            let diagnostic = origin.error("spec.at", message, "sign at the last of these points");
            return Some(conflict_with(&changer.name, diagnostic));
        }
        self.without_instance(rule, origin)
    }

    fn without_instance(&self, rule: &Rule, origin: &Origin) -> Option<Fault> {
        let service = &rule.callout.as_ref()?.service;
        let zero = self.careful && may_have_none(self.services.get(service.as_str())?);
        if !zero || conflict::bears_no_instance(rule, service) {
            return None;
        }
        let message = format!("service {service} may have no instance: its pool.min is 0");
        let remedy = "write tempfail or accept, or pool: { min: 1 } in the service";
        let diagnostic = origin.error("spec.callout.onFailure", message, remedy);
        Some(conflict_with(service, diagnostic))
    }

    fn unresolved(&self, name: &str, origin: &Origin) -> Fault {
        let diagnostic = match self.services.get(name) {
            Some(left_out) => {
                let error = left_out.faults.iter().find(|fault| fault.is_error());
                let why = error.map_or("", |fault| fault.diagnostic.message.as_str());
                let message = format!("CalloutService {name} is not accepted: {why}");
                origin.error(rule::SERVICE_FIELD, message, "correct the service")
            }
            None => rule::unresolved(name, &self.running, origin),
        };
        Fault {
            kind: FaultKind::Reference,
            diagnostic,
        }
    }

    fn stand_in(&self, bereft: &Bereft<'c>, faults: Vec<Fault>) -> Chosen<'c, Arc<Rule>> {
        let service = service_of(bereft.rule).unwrap_or_default();
        let class = self.classes.get(service.as_str()).copied();
        let policy = stand_in::policy(bereft.rule, class);
        let outcome = Outcome::StandIn(policy);
        let Some(object) = stand_in::of(bereft.rule, bereft.object, policy) else {
            return Chosen::stand_in(outcome, bereft.runs, faults, None);
        };
        let Resource::OpesRule(rule) = &object.resource else {
            return Chosen::left_out(faults);
        };
        let (compiled, found) = compile(rule, &object.origin, &BTreeMap::new(), None);
        if has_error(&found) {
            return Chosen::left_out(faults);
        }
        Chosen::stand_in(outcome, bereft.runs, faults, Some((object, compiled)))
    }
}

/// Class of a service, also of one that is not accepted.
fn class(candidate: &Candidate) -> Option<Class> {
    let mut versions = candidate.versions();
    versions.find_map(|(_, object)| match &object.resource {
        Resource::CalloutService(service) => Some(service.spec.class),
        Resource::OpesRule(_) => None,
    })
}

fn service_of(rule: &OpesRule) -> Option<String> {
    let callout = rule.spec.callout.as_ref()?;
    let namespace = &rule.metadata.namespace;
    Some(format!("{namespace}/{}", callout.service_ref.name))
}

/// Nothing is wrong with the rule itself, and no older one is in its way.
fn is_right_alone(rule: &OpesRule, kinds: &[FaultKind], object: &Object) -> bool {
    let beaten = |kind: &FaultKind| matches!(kind, FaultKind::Conflict { .. });
    let Some(name) = service_of(rule).filter(|_| !kinds.iter().any(beaten)) else {
        return false;
    };
    let (_, found) = compile(rule, &object.origin, &BTreeMap::new(), Some(&name));
    !has_error(&found)
}

/// Compiles one rule; that there is no service of the name `missing` is not wrong.
fn compile(
    rule: &OpesRule,
    origin: &Origin,
    services: &BTreeMap<String, Service>,
    missing: Option<&str>,
) -> (Arc<Rule>, Vec<Diagnostic>) {
    let mut found = Vec::new();
    let mut report = Report {
        origin,
        found: &mut found,
    };
    let broken = missing.map(|name| ("CalloutService".to_owned(), name.to_owned()));
    let broken = broken.into_iter().collect();
    let compiled = rule::compile(rule, services, &broken, &mut report);
    found.sort();
    (Arc::new(compiled), found)
}
