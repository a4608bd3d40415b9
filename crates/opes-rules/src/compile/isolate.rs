//! Objects of many authors to a table that always compiles: what is wrong with one of them changes nothing for the others.
//!
//! Every object is read and compiled by itself, then in order of age beside those that run already. Of two that contradict each
//! other the older one runs (creation time, then `namespace/name`). Instead of a bad edit the last accepted version runs. A rule
//! whose service is missing, or does not fit it any more, runs as what it says for that case: `onFailure`, as an action at the
//! same points. What was never accepted does not run.
//!
//! The result depends on the candidates alone, not on their order or on earlier results, so that all replicas of an operator, and
//! one that was just started, make the same table. Each object is compiled a fixed number of times at most.

mod chosen;
mod rules;
mod services;
mod stand_in;

use super::{OBJECTS_MAX, assemble, is_object_name};
use crate::diagnostic::{Diagnostic, Origin};
use crate::object::Object;
use crate::point::OnFailure;
use crate::table::RoutingTable;
use rules::{Pass, Rules};
use services::Services;
use std::collections::{BTreeMap, BTreeSet};

/// One object as its author wrote it, and what ran before.
#[derive(Debug, Clone)]
pub struct Candidate {
    kind: &'static str,
    name: String,
    created: i64,
    written: Result<Object, Vec<Diagnostic>>,
    last_accepted: Option<Object>,
}

/// A table, what it was made of, and what became of each candidate.
#[derive(Debug, Default)]
pub struct Isolated {
    /// The table.
    pub table: RoutingTable,
    /// Objects that [`crate::compile()`] makes the same table of, with the same revision: what is sent to edges. Without what is for
    /// the operator alone ([`Object::for_edges`]); sorted by kind and name.
    pub objects: Vec<Object>,
    /// One for each candidate, sorted by kind and name.
    pub judgements: Vec<Judgement>,
}

/// What became of one candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// `OpesRule` or `CalloutService`.
    pub kind: &'static str,
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Which version of it runs, itself or as a stand-in.
    pub runs: Runs,
    /// What is wrong with what was written, and what its author should know; without an error if the outcome is `Accepted`.
    pub faults: Vec<Fault>,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It runs as it was written.
    Accepted,
    /// What was written is in error; the last accepted version runs.
    LastAccepted,
    /// A rule that cannot call its service; its `onFailure` runs.
    StandIn(OnFailure),
    /// It does not run: it is in error and was never accepted, or an older one contradicts it.
    LeftOut,
}

/// Which version of an object runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Runs {
    /// What was written.
    Written,
    /// The last accepted version.
    LastAccepted,
    /// None.
    Nothing,
}

/// What is wrong with an object, and of what kind that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Of what kind.
    pub kind: FaultKind,
    /// Field, message, remedy.
    pub diagnostic: Diagnostic,
}

/// Of what kind a fault is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// It could not be read: unknown fields, wrong types.
    Syntax,
    /// The service that a rule calls is not there, or is not accepted.
    Reference,
    /// An older object contradicts it.
    Conflict {
        /// `NAMESPACE/NAME` of the older one.
        winner: String,
    },
    /// It was read and makes no sense.
    Other,
}

/// Compiles what can run of the candidates. Of several with one kind and name the oldest is taken.
pub fn compile_isolated(candidates: &[Candidate]) -> Isolated {
    let mut ordered: Vec<&Candidate> = candidates.iter().collect();
    ordered.sort_by_key(|candidate| candidate.seniority());
    let mut seen = BTreeSet::new();
    ordered.retain(|candidate| seen.insert((candidate.kind, candidate.name.as_str())));

    let mut services = choose_services(&ordered);
    let mut rules = choose_rules(&ordered, &services, false);
    if services.values().any(services::may_have_none) {
        services::keep_instances(&ordered, &mut services, &rules);
        rules = choose_rules(&ordered, &services, true);
    }
    finish(services, rules)
}

fn choose_services<'c>(ordered: &[&'c Candidate]) -> Services<'c> {
    let all = ordered.iter().enumerate();
    all.filter(|(_, candidate)| candidate.is_service())
        .map(|(place, candidate)| {
            let chosen = services::choose(place, candidate);
            (candidate.name.as_str(), chosen)
        })
        .collect()
}

fn choose_rules<'c>(
    ordered: &[&'c Candidate],
    services: &Services<'c>,
    careful: bool,
) -> Rules<'c> {
    let mut pass = Pass::new(ordered, services, careful);
    let all = ordered.iter().enumerate();
    all.filter(|(_, candidate)| candidate.is_rule())
        .map(|(place, candidate)| (candidate.name.as_str(), pass.choose(place, candidate)))
        .collect()
}

fn finish(services: Services<'_>, rules: Rules<'_>) -> Isolated {
    let mut judgements = Vec::with_capacity(services.len() + rules.len());
    let mut objects = Vec::with_capacity(services.len() + rules.len());
    let mut compiled_services = BTreeMap::new();
    let mut compiled_rules = Vec::with_capacity(rules.len());
    for (name, chosen) in services {
        judgements.push(chosen.judgement("CalloutService", name));
        if let Some(made) = chosen.made {
            objects.push(made.object.for_edges());
            compiled_services.insert(name.to_owned(), made.compiled);
        }
    }
    for (name, chosen) in rules {
        judgements.push(chosen.judgement("OpesRule", name));
        if let Some(made) = chosen.made {
            objects.push(made.object.for_edges());
            compiled_rules.push(made.compiled);
        }
    }
    let faults = judgements.iter().flat_map(|judgement| &judgement.faults);
    let warnings = faults.filter(|fault| !fault.is_error());
    let mut warnings: Vec<_> = warnings.map(|fault| fault.diagnostic.clone()).collect();
    warnings.sort();
    Isolated {
        table: assemble(&objects, compiled_rules, compiled_services, warnings),
        objects,
        judgements,
    }
}

// === impl Candidate ===

impl Candidate {
    /// One that could be read. `created` is its creation time in seconds.
    pub fn read(object: Object, created: i64) -> Self {
        Self {
            kind: object.kind(),
            name: object.metadata().qualified_name(),
            created,
            written: Ok(object),
            last_accepted: None,
        }
    }

    /// One that could not be read, with its kind, `NAMESPACE/NAME`, and what is wrong with it.
    pub fn unread(
        kind: &'static str,
        name: impl Into<String>,
        created: i64,
        diagnostics: Vec<Diagnostic>,
    ) -> Self {
        Self {
            kind,
            name: name.into(),
            created,
            written: Err(diagnostics),
            last_accepted: None,
        }
    }

    /// The version that was accepted last. One of another kind or name is ignored.
    #[must_use]
    pub fn with_last_accepted(mut self, object: Option<Object>) -> Self {
        self.last_accepted = object.filter(|object| {
            object.kind() == self.kind && object.metadata().qualified_name() == self.name
        });
        self
    }

    /// What was written, then what was accepted last.
    fn versions(&self) -> impl Iterator<Item = (Runs, &Object)> {
        let written = self.written.iter().map(|object| (Runs::Written, object));
        let accepted = self.last_accepted.iter();
        written.chain(accepted.map(|object| (Runs::LastAccepted, object)))
    }

    fn seniority(&self) -> (i64, &str, &str) {
        (self.created, &self.name, self.kind)
    }

    fn origin(&self) -> Origin {
        match &self.written {
            Ok(object) => object.origin.clone(),
            Err(_) => Origin::named(format!("{} {}", self.kind, self.name)),
        }
    }

    /// What can be said without looking any further.
    fn known_faults(&self, place: usize) -> Vec<Fault> {
        let other = |diagnostic| Fault {
            kind: FaultKind::Other,
            diagnostic,
        };
        let mut faults = Vec::new();
        if let Err(diagnostics) = &self.written {
            faults.extend(diagnostics.iter().map(|diagnostic| Fault {
                kind: FaultKind::Syntax,
                diagnostic: diagnostic.clone(),
            }));
        }
        if place >= OBJECTS_MAX {
            let message = format!("there are {OBJECTS_MAX} older objects, and that is the most");
            faults.push(other(self.origin().error("", message, "remove others")));
        }
        let mut parts = self.name.split('/');
        if !parts.by_ref().all(is_object_name) {
            let message = format!("`{}` is not a name", self.name);
            let remedy = "write lower case letters, digits, `-` and `.`";
            faults.push(other(self.origin().error("metadata.name", message, remedy)));
        }
        faults
    }
}

// === impl Fault ===

impl Fault {
    /// The object cannot be used as it was written.
    pub const fn is_error(&self) -> bool {
        self.diagnostic.is_error()
    }
}

#[cfg(test)]
mod tests;
