//! Status of rules and services: what is to be said, and saying it when it is something else than what was said.
//!
//! [`desired`] is a pure function of what was found, of what edges run and of what is said already. Status is patched apart from
//! everything else, with a field manager of its own, by the holder of the Lease only. At rest nothing is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use opes_k8s::status::LastAccepted;
use opes_rules::compile::Outcome;
use opes_rules::object::{API_VERSION, Resource};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apply::{Plans, Problems};
use crate::backoff::Backoff;
use crate::edges::Edges;
use crate::events::Events;
use crate::index::{Evaluation, Finding};
use crate::kinds::Kind;
use crate::metrics::{Metrics, Part, Reason};
use crate::plan::selector;
use crate::shared::{CertificateEnds, Leading, ObjectKey};
use crate::world::{Scope, Seen, World};

pub mod conditions;
pub mod programmed;
pub mod rule;
pub mod service;
#[cfg(test)]
mod tests;

use conditions::{Said, find};
use programmed::{EdgeView, Question, Step};
use service::PoolView;

/// Field manager of status.
pub const MANAGER: &str = "opes-operator-status";
/// Changes that come within this time are looked at together.
const COALESCE: Duration = Duration::from_millis(50);
/// Status that is written at the same time.
const CONCURRENT: usize = 16;
/// Status written before the rest is looked at again: what is new must not wait behind a thousand others.
const BATCH: usize = 256;
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What it works with.
pub struct Inputs {
    /// To the API server.
    pub client: Client,
    /// What there is.
    pub world: Arc<World>,
    /// What runs where.
    pub edges: Arc<Edges>,
    /// What was found.
    pub evaluations: watch::Receiver<Option<Arc<Evaluation>>>,
    /// What was planned.
    pub plans: watch::Receiver<Plans>,
    /// What is in the way.
    pub problems: watch::Receiver<Problems>,
    /// When certificates end.
    pub ends: watch::Receiver<Arc<CertificateEnds>>,
    /// Whether anything is written.
    pub leading: Leading,
    /// Who tells of transitions.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
}

/// What is known at one moment.
struct View {
    evaluation: Arc<Evaluation>,
    edges: EdgeView,
    plans: Plans,
    problems: Problems,
    owned: BTreeMap<(Kind, String), Arc<DynamicObject>>,
    ends: Arc<CertificateEnds>,
    now: Instant,
}

struct Writer {
    inputs: Inputs,
    started: Instant,
    backoff: Backoff<ObjectKey>,
    /// Since when a rule does not run everywhere, for one and the same cause.
    waiting: BTreeMap<ObjectKey, (Cause, Instant)>,
}

/// Which generation does not run everywhere, and whether that is because there are no edges.
type Cause = (i64, bool);

/// One status to write.
struct Write {
    seen: Arc<Seen>,
    status: Value,
    before: Vec<Condition>,
    after: Vec<Condition>,
}

/// Writes while it leads, until it is told to stop.
pub async fn run(inputs: Inputs, shutdown: CancellationToken) {
    let mut evaluations = inputs.evaluations.clone();
    let mut plans = inputs.plans.clone();
    let mut problems = inputs.problems.clone();
    let mut ends = inputs.ends.clone();
    let mut leading = inputs.leading.clone();
    let mut live = inputs.world.live_changed();
    let mut edges = inputs.edges.changed();
    let mut writer = Writer {
        inputs,
        started: Instant::now(),
        backoff: Backoff::default(),
        waiting: BTreeMap::new(),
    };
    loop {
        evaluations.borrow_and_update();
        plans.borrow_and_update();
        problems.borrow_and_update();
        ends.borrow_and_update();
        live.borrow_and_update();
        edges.borrow_and_update();
        let leads = *leading.borrow_and_update();
        let next = if leads { writer.pass().await } else { None };
        let timer = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let alive = tokio::select! {
            changed = evaluations.changed(), if leads => changed.is_ok(),
            changed = plans.changed(), if leads => changed.is_ok(),
            changed = problems.changed(), if leads => changed.is_ok(),
            // Nobody makes any where cert-manager does.
            Ok(()) = ends.changed(), if leads => true,
            changed = live.changed(), if leads => changed.is_ok(),
            changed = edges.changed(), if leads => changed.is_ok(),
            changed = leading.changed() => changed.is_ok(),
            () = timer => true,
            () = shutdown.cancelled() => false,
        };
        if !alive {
            return;
        }
        tokio::time::sleep(COALESCE).await;
    }
}

// === impl Writer ===

impl Writer {
    /// Looks at everything; gives the time at which it has to look again although nothing has changed.
    async fn pass(&mut self) -> Option<Instant> {
        let evaluation = self.inputs.evaluations.borrow().clone()?;
        if self.inputs.world.unsynced_for_writing().is_some() {
            return Some(Instant::now() + Duration::from_millis(200));
        }
        let begun = Instant::now();
        let view = View {
            edges: EdgeView::of(&self.inputs.edges.states(), &evaluation.sequences),
            plans: self.inputs.plans.borrow().clone(),
            problems: self.inputs.problems.borrow().clone(),
            owned: self.inputs.world.owned(),
            ends: self.inputs.ends.borrow().clone(),
            evaluation,
            now: begun,
        };
        let objects = self.inputs.world.objects();
        self.waiting.retain(|key, _| objects.contains_key(key));
        self.backoff.retain(|key| objects.contains_key(key));
        let mut again: Option<Instant> = None;
        let mut writes = Vec::new();
        for (key, seen) in &objects {
            let finding = view.evaluation.findings.get(key);
            // Another evaluation is on its way if this one is not about what is there now.
            let Some(finding) = finding
                .filter(|finding| finding.uid == seen.uid && finding.generation == seen.generation)
            else {
                continue;
            };
            let (write, look) = self.look(&view, seen, finding);
            again = earlier(again, look);
            writes.extend(write.filter(|_| self.backoff.is_open(key, begun)));
        }
        again = earlier(again, self.backoff.next());
        self.inputs
            .metrics
            .waiting(Part::Status, writes.len() + self.backoff.len());
        if writes.len() > BATCH {
            writes.truncate(BATCH);
            again = Some(Instant::now());
        }
        if !writes.is_empty() {
            self.perform(writes).await;
            self.inputs
                .metrics
                .reconciled(Part::Status, begun.elapsed());
        }
        again
    }

    /// What is to be written of one object, and when to look again.
    fn look(
        &mut self,
        view: &View,
        seen: &Arc<Seen>,
        finding: &Finding,
    ) -> (Option<Write>, Option<Instant>) {
        let before = conditions_of(seen);
        let accepted = rule::accepted(finding);
        let (said, look) = if seen.key.kind == "OpesRule" {
            let (programmed, look) = self.programmed(view, seen, finding, &before);
            let mut said = vec![accepted, rule::resolved(seen, finding, &view.evaluation)];
            said.extend(programmed);
            (said, look)
        } else {
            let pool = pool_view(view, &seen.key.name, seen.name());
            let mut said = pool.conditions(&accepted);
            said.insert(0, accepted);
            (said, None)
        };
        let after = desired(&before, &said, seen.generation, Timestamp::now());
        let mut status = json!({ "observedGeneration": seen.generation, "conditions": after });
        if let Some(accepted) = last_accepted(finding) {
            status["lastAccepted"] = json!(accepted);
        }
        // A rule may have the name of a service.
        if seen.key.kind == "CalloutService" {
            if let Some(end) = certificate_end(view, seen) {
                status["certificateNotAfter"] = end;
            }
            if let Some((replicas, ready)) = pool_view(view, &seen.key.name, seen.name()).counts() {
                status["replicas"] = replicas.into();
                status["readyReplicas"] = ready.into();
                status["selector"] = label_selector(seen.name()).into();
            }
        }
        if is_said(&status, &seen.status) {
            return (None, look);
        }
        let write = Write {
            seen: Arc::clone(seen),
            status,
            before,
            after,
        };
        (Some(write), look)
    }

    /// `Programmed` of a rule; none: it stays as it is for now.
    fn programmed(
        &mut self,
        view: &View,
        seen: &Seen,
        finding: &Finding,
        before: &[Condition],
    ) -> (Option<Said>, Option<Instant>) {
        if let Some(said) = rule::not_as_written(finding) {
            self.waiting.remove(&seen.key);
            return (Some(said), None);
        }
        let Some(in_table) = finding.runs else {
            return (None, None);
        };
        let cause = (seen.generation, view.edges.is_empty());
        let waiting = self
            .waiting
            .entry(seen.key.clone())
            .or_insert((cause, view.now));
        if waiting.0 != cause {
            *waiting = (cause, view.now);
        }
        let step = view.edges.judge(&Question {
            key: &seen.key,
            in_table,
            before: find(before, opes_k8s::status::condition::PROGRAMMED),
            since: waiting.1,
            started: self.started,
            now: view.now,
        });
        match step {
            Step::Say(said) => {
                if said.truth == conditions::Truth::True {
                    self.waiting.remove(&seen.key);
                    return (Some(said), None);
                }
                // Unknown may have to become False.
                let look = view.now + programmed::LAG;
                (Some(said), Some(look))
            }
            Step::Wait(until) => (None, Some(until)),
        }
    }

    async fn perform(&mut self, writes: Vec<Write>) {
        let inputs = &self.inputs;
        let done = futures_util::stream::iter(writes)
            .map(|write| async move {
                let outcome = patch(inputs, &write).await;
                if let Ok(Some(_)) = outcome {
                    inputs
                        .events
                        .transitions(&write.seen, &write.before, &write.after)
                        .await;
                }
                (write, outcome)
            })
            .buffer_unordered(CONCURRENT)
            .collect::<Vec<_>>()
            .await;
        for (write, outcome) in done {
            let key = &write.seen.key;
            match outcome {
                Ok(Some(object)) => {
                    self.backoff.worked(key);
                    let kind = if key.kind == "OpesRule" {
                        Kind::OpesRule
                    } else {
                        Kind::CalloutService
                    };
                    let scope = Scope {
                        kind,
                        namespace: None,
                        own: false,
                    };
                    self.inputs.world.apply(&scope, crate::watch::slim(object));
                }
                // It is gone, or another one: the watch will tell.
                Ok(None) => self.backoff.worked(key),
                Err((reason, message)) => {
                    self.inputs.metrics.failed(Part::Status, reason);
                    let pause = self.backoff.failed(key, Instant::now());
                    tracing::warn!(kind = key.kind, name = %key.name, %message, ?pause, "status could not be written");
                }
            }
        }
    }
}

/// `None`: there is nothing to be written any more.
async fn patch(inputs: &Inputs, write: &Write) -> Result<Option<DynamicObject>, (Reason, String)> {
    if !*inputs.leading.borrow() {
        return Ok(None);
    }
    let seen = &write.seen;
    let kind = if seen.key.kind == "OpesRule" {
        Kind::OpesRule
    } else {
        Kind::CalloutService
    };
    let api: Api<DynamicObject> =
        Api::namespaced_with(inputs.client.clone(), seen.namespace(), &kind.resource());
    let document = json!({
        "apiVersion": API_VERSION,
        "kind": seen.key.kind,
        // With the uid another object of this name is not meant.
        "metadata": { "name": seen.name(), "namespace": seen.namespace(), "uid": seen.uid },
        "status": write.status,
    });
    inputs.metrics.wrote(Part::Status);
    let parameters = PatchParams::apply(MANAGER).force();
    let (name, patch) = (seen.name(), Patch::Apply(&document));
    let request = api.patch_status(name, &parameters, &patch);
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(Ok(object)) => Ok(Some(object)),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(None),
        Ok(Err(error)) => Err((Reason::of(&error), error.to_string())),
        Err(_) => Err((
            Reason::Timeout,
            "the API server did not answer in time".into(),
        )),
    }
}

/// The conditions that follow from what was said before. One that nothing is said of stays.
pub fn desired(
    before: &[Condition],
    said: &[Said],
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let said_types: BTreeSet<&str> = said.iter().map(|said| said.type_).collect();
    let known = opes_k8s::status::condition::OF_RULES;
    let kept = before.iter().filter(|condition| {
        known.contains(&condition.type_.as_str()) && !said_types.contains(condition.type_.as_str())
    });
    let new = said
        .iter()
        .map(|said| said.after(find(before, said.type_), generation, now));
    let mut after: Vec<Condition> = new.chain(kept.cloned()).collect();
    after.sort_by(|a, b| a.type_.cmp(&b.type_));
    after
}

/// Is all of it there? What others say besides does not matter; of what was accepted the generation is compared, not the text.
fn is_said(status: &Value, there: &Value) -> bool {
    let members = status.as_object().into_iter().flatten();
    for (name, value) in members {
        let same = match name.as_str() {
            "conditions" => {
                let there = there[name].as_array();
                let conditions = value.as_array().into_iter().flatten();
                conditions
                    .into_iter()
                    .all(|condition| there.is_some_and(|there| there.contains(condition)))
            }
            "lastAccepted" => value["generation"] == there[name]["generation"],
            _ => *value == there[name],
        };
        if !same {
            return false;
        }
    }
    true
}

fn conditions_of(seen: &Seen) -> Vec<Condition> {
    let conditions = seen.status.get("conditions").and_then(Value::as_array);
    let read = conditions
        .into_iter()
        .flatten()
        .filter_map(|condition| Condition::deserialize(condition).ok());
    read.collect()
}

fn last_accepted(finding: &Finding) -> Option<LastAccepted> {
    let accepted = finding.accepted.as_ref()?;
    debug_assert!(
        finding.judgement.outcome != Outcome::Accepted || accepted.generation == finding.generation
    );
    let spec = match &accepted.object.resource {
        Resource::OpesRule(rule) => serde_json::to_value(&rule.spec),
        Resource::CalloutService(service) => serde_json::to_value(&service.spec),
    };
    Some(LastAccepted {
        generation: accepted.generation,
        spec: spec.ok()?,
    })
}

fn pool_view<'v>(view: &'v View, qualified: &str, name: &str) -> PoolView<'v> {
    let Some(plan) = view.plans.get(qualified) else {
        return PoolView::default();
    };
    let namespace = qualified.split('/').next().unwrap_or_default();
    let id = format!("{namespace}/{}", crate::endpoints::pool_name(name));
    let owned = |kind: Kind| view.owned.get(&(kind, id.clone())).map(AsRef::as_ref);
    let spec = view
        .evaluation
        .services
        .get(qualified)
        .map(|service| &service.spec);
    PoolView {
        plan: Some(plan),
        deployment: owned(Kind::Deployment),
        scaler: owned(Kind::HorizontalPodAutoscaler).or_else(|| owned(Kind::ScaledObject)),
        problem: view.problems.get(qualified),
        least: spec.map_or(1, |spec| spec.pool.pdb.min_available),
        to_zero: spec.is_some_and(opes_rules::object::CalloutServiceSpec::scales_to_zero),
    }
}

/// When the certificate of its pods ends, if it is made here. Who has just begun to lead has not looked yet: what was said stays.
fn certificate_end(view: &View, seen: &Seen) -> Option<Value> {
    let plan = view.plans.get(&seen.key.name)?;
    let wanted = plan.certificate.as_ref()?;
    let secret = (wanted.namespace.clone(), wanted.secret.clone());
    match view.ends.get(&secret) {
        Some(end) => {
            let end = Timestamp::from_second(i64::try_from(*end).ok()?).ok()?;
            Some(json!(Time(end)))
        }
        None => seen.status.get("certificateNotAfter").cloned(),
    }
}

fn label_selector(service: &str) -> String {
    let labels = selector(service)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"));
    labels.collect::<Vec<_>>().join(",")
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
