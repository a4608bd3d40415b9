//! From objects to what is served, and to what has to be said of each object.
//!
//! [`Index::evaluate`] is a pure function of the objects and of what it has accepted before, which is what `status.lastAccepted` will
//! say as well. All replicas make the same table. Changes that come together are looked at together.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use opes_proto::routing::Table;
use opes_rules::compile::{Candidate, Judgement, Outcome, Runs, compile_isolated};
use opes_rules::object::{CalloutServiceSpec, Resource};
use opes_rules::{Diagnostic, Object, Severity};

use crate::config::{Config, Tenant};
use crate::endpoints;
use crate::objects::Parsed;
use crate::shared::{ObjectKey, PoolFacts, Snapshot};
use crate::tenancy::{self, NotPermitted};
use crate::world::{Seen, Slice};

mod run;
#[cfg(test)]
mod tests;

pub use run::{Outputs, run};

/// Revisions whose place in the order is remembered; an edge that runs an older one counts as one that runs none.
const REVISIONS_MAX: usize = 1_024;

/// What is remembered from one evaluation to the next.
#[derive(Debug, Default)]
pub struct Index {
    tenants: Vec<Tenant>,
    accepted: BTreeMap<ObjectKey, Accepted>,
    running: BTreeMap<ObjectKey, Introduced>,
    revision: String,
    sequence: u64,
    sequences: Arc<BTreeMap<String, u64>>,
}

/// What was accepted last of an object.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Of which object.
    pub uid: String,
    /// Which generation.
    pub generation: i64,
    /// What it says.
    pub object: Arc<Object>,
}

#[derive(Debug, Clone, Copy)]
struct Introduced {
    text: u64,
    sequence: u64,
}

/// Everything that one evaluation found.
#[derive(Debug, Default)]
pub struct Evaluation {
    /// What is served.
    pub snapshot: Arc<Snapshot>,
    /// Which place in the order each revision has; the newest has the highest.
    pub sequences: Arc<BTreeMap<String, u64>>,
    /// One for each object that is there and not being deleted.
    pub findings: BTreeMap<ObjectKey, Finding>,
    /// Services that run, by `NAMESPACE/NAME`: what the operator makes pools of.
    pub services: BTreeMap<String, RunningService>,
}

/// What was found of one object.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Of which object.
    pub uid: String,
    /// Which generation was looked at.
    pub generation: i64,
    /// What became of it.
    pub judgement: Judgement,
    /// It may not run in this namespace.
    pub not_permitted: Option<NotPermitted>,
    /// What runs of it in the table.
    pub runs: Option<InTable>,
    /// What was accepted last, this generation included.
    pub accepted: Option<Accepted>,
}

/// A version of an object in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InTable {
    /// Generation of the object that it is.
    pub generation: i64,
    /// The first of the revisions without a gap that have it as it is.
    pub since: u64,
}

/// A service that runs.
#[derive(Debug, Clone)]
pub struct RunningService {
    /// Of the object.
    pub uid: String,
    /// Generation that runs.
    pub generation: i64,
    /// What it says.
    pub spec: CalloutServiceSpec,
}

// === impl Index ===

impl Index {
    /// Knows nothing yet.
    pub fn new(config: &Config) -> Self {
        Self {
            tenants: config.tenants.clone(),
            ..Self::default()
        }
    }

    /// Looks at all objects and instances.
    pub fn evaluate(
        &mut self,
        objects: &BTreeMap<ObjectKey, Arc<Seen>>,
        slices: &[Slice],
    ) -> Evaluation {
        let here: Vec<&Arc<Seen>> = objects.values().filter(|seen| !seen.deleting).collect();
        self.forget(objects);
        let mut permissions = BTreeMap::new();
        let candidates: Vec<Candidate> = here
            .iter()
            .map(|seen| self.candidate(seen, &mut permissions))
            .collect();
        let isolated = compile_isolated(&candidates);
        let texts: Vec<(ObjectKey, String)> = isolated
            .objects
            .iter()
            .map(|object| (key_of(object), object.to_json()))
            .collect();
        self.introduce(&isolated.table.revision, &texts);
        let judgements = isolated.judgements.into_iter();
        let findings = judgements.filter_map(|judgement| {
            let key = ObjectKey {
                kind: judgement.kind,
                name: judgement.name.clone(),
            };
            let seen = objects.get(&key)?;
            let not_permitted = permissions.remove(&key);
            Some((key, self.finding(seen, judgement, not_permitted)))
        });
        let findings: BTreeMap<ObjectKey, Finding> = findings.collect();
        let services = Self::services(&findings);
        let snapshot = self.snapshot(texts, &findings, &services, slices);
        Evaluation {
            snapshot: Arc::new(snapshot),
            sequences: Arc::clone(&self.sequences),
            findings,
            services,
        }
    }

    /// What is gone, or is another object by now, was not accepted.
    fn forget(&mut self, objects: &BTreeMap<ObjectKey, Arc<Seen>>) {
        self.accepted.retain(|key, accepted| {
            let seen = objects.get(key);
            seen.is_some_and(|seen| seen.uid == accepted.uid && !seen.deleting)
        });
    }

    fn candidate(
        &mut self,
        seen: &Seen,
        permissions: &mut BTreeMap<ObjectKey, NotPermitted>,
    ) -> Candidate {
        let created = seen.created.as_second();
        let unread = |found| Candidate::unread(seen.key.kind, &seen.key.name, created, found);
        let written = if let Some(object) = &seen.parsed.object {
            match tenancy::check(&self.tenants, &object.resource) {
                Ok(()) => Candidate::read(object.clone(), created),
                Err(no) => {
                    let found = refusal(&seen.key, &no);
                    permissions.insert(seen.key.clone(), no);
                    unread(vec![found])
                }
            }
        } else {
            unread(seen.parsed.diagnostics.clone())
        };
        written.with_last_accepted(self.last_accepted(seen))
    }

    /// The newer of what this replica has accepted and what the writing one has said.
    fn last_accepted(&mut self, seen: &Seen) -> Option<Object> {
        let known = self
            .accepted
            .get(&seen.key)
            .map(|accepted| accepted.generation);
        let said = seen
            .last_accepted_generation()
            .filter(|said| *said <= seen.generation);
        if said > known
            && let Some(accepted) = said_accepted(seen)
        {
            self.accepted.insert(seen.key.clone(), accepted);
        }
        let accepted = self.accepted.get(&seen.key)?;
        let permitted = tenancy::check(&self.tenants, &accepted.object.resource).is_ok();
        permitted.then(|| accepted.object.as_ref().clone())
    }

    /// Gives a new revision its place, and each object the first revision that has it.
    fn introduce(&mut self, revision: &str, texts: &[(ObjectKey, String)]) {
        if self.revision != revision {
            revision.clone_into(&mut self.revision);
            self.sequence += 1;
            let sequences = Arc::make_mut(&mut self.sequences);
            sequences.insert(revision.to_owned(), self.sequence);
            while sequences.len() > REVISIONS_MAX {
                let oldest = sequences.iter().min_by_key(|(_, sequence)| **sequence);
                let Some(oldest) = oldest.map(|(revision, _)| revision.clone()) else {
                    break;
                };
                sequences.remove(&oldest);
            }
        }
        let introduced = texts.iter().map(|(key, text)| {
            let text = hash(text);
            let before = self.running.get(key).filter(|before| before.text == text);
            let sequence = before.map_or(self.sequence, |before| before.sequence);
            (key.clone(), Introduced { text, sequence })
        });
        self.running = introduced.collect();
    }

    fn finding(
        &mut self,
        seen: &Seen,
        judgement: Judgement,
        not_permitted: Option<NotPermitted>,
    ) -> Finding {
        if judgement.outcome == Outcome::Accepted
            && let Some(object) = &seen.parsed.object
        {
            let known = self.accepted.get(&seen.key);
            if known.is_none_or(|known| known.generation != seen.generation) {
                let accepted = Accepted {
                    uid: seen.uid.clone(),
                    generation: seen.generation,
                    object: Arc::new(object.clone()),
                };
                self.accepted.insert(seen.key.clone(), accepted);
            }
        }
        let accepted = self.accepted.get(&seen.key).cloned();
        let generation = match judgement.runs {
            Runs::Written => Some(seen.generation),
            Runs::LastAccepted => accepted.as_ref().map(|accepted| accepted.generation),
            Runs::Nothing => None,
        };
        let introduced = self.running.get(&seen.key);
        let runs = generation
            .zip(introduced)
            .map(|(generation, introduced)| InTable {
                generation,
                since: introduced.sequence,
            });
        Finding {
            uid: seen.uid.clone(),
            generation: seen.generation,
            judgement,
            not_permitted,
            runs,
            accepted,
        }
    }

    fn services(findings: &BTreeMap<ObjectKey, Finding>) -> BTreeMap<String, RunningService> {
        let running = findings.iter().filter_map(|(key, finding)| {
            let accepted = finding
                .accepted
                .as_ref()
                .filter(|_| finding.runs.is_some())?;
            let Resource::CalloutService(service) = &accepted.object.resource else {
                return None;
            };
            let running = RunningService {
                uid: finding.uid.clone(),
                generation: accepted.generation,
                spec: service.spec.clone(),
            };
            Some((key.name.clone(), running))
        });
        running.collect()
    }

    fn snapshot(
        &self,
        texts: Vec<(ObjectKey, String)>,
        findings: &BTreeMap<ObjectKey, Finding>,
        services: &BTreeMap<String, RunningService>,
        slices: &[Slice],
    ) -> Snapshot {
        let generations = findings.iter().filter_map(|(key, finding)| {
            let runs = finding.runs?;
            Some((key.clone(), runs.generation))
        });
        let mut snapshot = Snapshot {
            table: Table {
                revision: self.revision.clone(),
                objects: texts.into_iter().map(|(_, text)| text).collect(),
                endpoints: None,
            },
            generations: generations.collect(),
            pools: BTreeMap::new(),
        };
        place(&mut snapshot, services, slices);
        snapshot
    }
}

// === impl Finding ===

impl Finding {
    /// What became of it, as metrics have it.
    pub const fn outcome_name(&self) -> &'static str {
        match self.judgement.outcome {
            Outcome::Accepted => "accepted",
            Outcome::LastAccepted => "lastAccepted",
            Outcome::StandIn(_) => "standIn",
            Outcome::LeftOut => "leftOut",
        }
    }
}

/// Puts in where the pools are.
pub fn place(
    snapshot: &mut Snapshot,
    services: &BTreeMap<String, RunningService>,
    slices: &[Slice],
) {
    let specs = services
        .iter()
        .map(|(name, service)| (name.as_str(), &service.spec));
    let endpoints = endpoints::pools(specs, slices);
    let facts = endpoints.pools.iter().filter_map(|pool| {
        let service = services.get(&pool.service)?;
        let facts = PoolFacts {
            target_in_flight: service.spec.pool.target_in_flight,
            ready: u32::try_from(pool.endpoints.len()).unwrap_or(u32::MAX),
        };
        Some((pool.service.clone(), facts))
    });
    snapshot.pools = facts.collect();
    snapshot.table.endpoints = Some(endpoints);
}

fn key_of(object: &Object) -> ObjectKey {
    ObjectKey {
        kind: object.kind(),
        name: object.metadata().qualified_name(),
    }
}

/// What the writing replica says that it has accepted last.
fn said_accepted(seen: &Seen) -> Option<Accepted> {
    let last = seen.status.get("lastAccepted")?;
    let parsed = Parsed::of(&seen.key, last.get("spec")?);
    Some(Accepted {
        uid: seen.uid.clone(),
        generation: last.get("generation")?.as_i64()?,
        object: Arc::new(parsed.object?),
    })
}

fn refusal(key: &ObjectKey, no: &NotPermitted) -> Diagnostic {
    Diagnostic {
        source: format!("{} {}", key.kind, key.name),
        line: 0,
        column: 0,
        severity: Severity::Error,
        field: no.field.to_owned(),
        message: no.message.clone(),
        remedy: no.remedy.clone(),
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
