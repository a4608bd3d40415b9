//! Owned objects: what was planned, into the cluster, by server-side apply.
//!
//! Nothing is sent that would change nothing: an object that has all that was planned is left alone, and so is one that the API server
//! keeps in another form than we send. What somebody deletes or changes is put right as soon as the watch brings it; what somebody adds
//! stays. Only the holder of the Lease writes. A request that failed is made again with growing pauses; one that the API server finds
//! senseless waits for a change of the plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use opes_rules::object::{CalloutServiceSpec, PoolEngine};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::endpoints::pool_name;
use crate::features::Features;
use crate::index::Evaluation;
use crate::kinds::{Kind, SERVICE_LABEL};
use crate::metrics::{Metrics, Part, Reason};
use crate::plan::{self, Input, PLAN_HASH, Plan, Planned};
use crate::shared::{CertificateEnds, CertificateWanted, Leading};
use crate::world::{Scope, World};

mod compare;
mod request;

/// Changes that come within this time are looked at together.
const COALESCE: Duration = Duration::from_millis(50);
/// Services whose objects are written at the same time.
const CONCURRENT: usize = 8;

/// Kind and `NAMESPACE/NAME`.
type ObjectId = (Kind, String);

/// Plans by `NAMESPACE/NAME` of their service.
pub type Plans = Arc<BTreeMap<String, Arc<Plan>>>;
/// What keeps a service from being what was planned, by `NAMESPACE/NAME`.
pub type Problems = Arc<BTreeMap<String, Problem>>;

/// Why an object could not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Of what kind.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

/// What it works with.
pub struct Inputs {
    /// To the API server.
    pub client: Client,
    /// What there is.
    pub world: Arc<World>,
    /// `operator.yaml`.
    pub config: Arc<Config>,
    /// Namespace of the operator.
    pub namespace: String,
    /// What runs.
    pub evaluations: watch::Receiver<Option<Arc<Evaluation>>>,
    /// What the cluster has.
    pub features: watch::Receiver<Features>,
    /// When certificates that were made end.
    pub ends: watch::Receiver<Arc<CertificateEnds>>,
    /// Whether anything is written.
    pub leading: Leading,
    /// Counts.
    pub metrics: Metrics,
}

/// What it finds.
pub struct Outputs {
    /// What was planned.
    pub plans: watch::Sender<Plans>,
    /// What is in the way.
    pub problems: watch::Sender<Problems>,
    /// Certificates of all pools.
    pub certificates: watch::Sender<Arc<Vec<CertificateWanted>>>,
}

struct Applier {
    inputs: Inputs,
    plans: BTreeMap<String, (PlanKey, Arc<Plan>)>,
    backoff: Backoff<ObjectId>,
    problems: BTreeMap<ObjectId, (String, Problem)>,
    /// Plan hash of what the API server found senseless.
    senseless: BTreeMap<ObjectId, String>,
    /// Plan hash of what is as planned, and how it looked: the API server may keep it in another form than we send.
    settled: BTreeMap<ObjectId, (String, u64)>,
}

/// What a plan depends on besides `operator.yaml`.
type PlanKey = (String, i64, Features, Option<Timestamp>);

/// One request to make.
#[derive(Debug, Clone)]
enum Action {
    Apply {
        planned: Planned,
        live: Option<Arc<DynamicObject>>,
        uid: String,
    },
    Delete {
        id: ObjectId,
        uid: String,
    },
}

/// What became of it.
enum Outcome {
    Written(Box<DynamicObject>),
    /// It is there and ours, and no watch has brought it yet: what it says counts before it is written.
    Seen(Box<DynamicObject>),
    Gone,
    NotLeading,
    Failed(Problem),
}

/// Plans always, writes while it leads, until it is told to stop.
pub async fn run(inputs: Inputs, outputs: Outputs, shutdown: CancellationToken) {
    let mut evaluations = inputs.evaluations.clone();
    let mut features = inputs.features.clone();
    let mut ends = inputs.ends.clone();
    let mut leading = inputs.leading.clone();
    let mut live = inputs.world.live_changed();
    let mut applier = Applier {
        inputs,
        plans: BTreeMap::new(),
        backoff: Backoff::default(),
        problems: BTreeMap::new(),
        senseless: BTreeMap::new(),
        settled: BTreeMap::new(),
    };
    loop {
        evaluations.borrow_and_update();
        features.borrow_and_update();
        ends.borrow_and_update();
        leading.borrow_and_update();
        live.borrow_and_update();
        applier.pass(&outputs).await;
        let next = applier.backoff.next();
        let retry = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let alive = tokio::select! {
            changed = evaluations.changed() => changed.is_ok(),
            changed = features.changed() => changed.is_ok(),
            // Nobody says anything where cert-manager makes them.
            Ok(()) = ends.changed() => true,
            changed = leading.changed() => changed.is_ok(),
            changed = live.changed() => changed.is_ok(),
            () = retry => true,
            () = shutdown.cancelled() => false,
        };
        if !alive {
            return;
        }
        tokio::time::sleep(COALESCE).await;
    }
}

// === impl Action ===

impl Action {
    fn ends_scaling(&self) -> bool {
        match self {
            Self::Apply { .. } => false,
            Self::Delete { id, .. } => {
                matches!(id.0, Kind::HorizontalPodAutoscaler | Kind::ScaledObject)
            }
        }
    }
}

// === impl Applier ===

impl Applier {
    async fn pass(&mut self, outputs: &Outputs) {
        let features = *self.inputs.features.borrow();
        let Some(evaluation) = self
            .inputs
            .evaluations
            .borrow()
            .clone()
            .filter(|_| features.known)
        else {
            return;
        };
        self.plan(&evaluation, features);
        let plans: BTreeMap<_, _> = self
            .plans
            .iter()
            .map(|(name, (_, plan))| (name.clone(), Arc::clone(plan)))
            .collect();
        let wanted = plans
            .values()
            .filter_map(|plan| plan.certificate.clone())
            .collect();
        offer(&outputs.certificates, Arc::new(wanted));
        self.forget(&evaluation);
        if *self.inputs.leading.borrow() && self.inputs.world.unsynced_for_writing().is_none() {
            let begun = Instant::now();
            let actions = self.actions(&evaluation);
            if !actions.is_empty() {
                self.perform(actions).await;
                self.inputs.metrics.reconciled(Part::Apply, begun.elapsed());
            }
        }
        self.inputs.metrics.waiting(Part::Apply, self.backoff.len());
        outputs.plans.send_if_modified(|known| {
            let same = known.len() == plans.len()
                && known
                    .iter()
                    .zip(&plans)
                    .all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(a.1, b.1));
            if !same {
                *known = Arc::new(plans);
            }
            !same
        });
        let problems = self
            .problems
            .values()
            .map(|(service, problem)| (service.clone(), problem.clone()));
        offer(&outputs.problems, Arc::new(problems.collect()));
    }

    /// Plans what is not planned yet.
    fn plan(&mut self, evaluation: &Evaluation, features: Features) {
        self.plans
            .retain(|name, _| evaluation.services.contains_key(name));
        for (name, service) in &evaluation.services {
            let certificate_end = self.certificate_end(name, &service.spec);
            let key = (
                service.uid.clone(),
                service.generation,
                features,
                certificate_end,
            );
            if self.plans.get(name).is_some_and(|(known, _)| *known == key) {
                continue;
            }
            let (namespace, short) = name.split_once('/').unwrap_or_default();
            let plan = Plan::of(&Input {
                config: &self.inputs.config,
                operator_namespace: &self.inputs.namespace,
                features,
                namespace,
                name: short,
                uid: &service.uid,
                spec: &service.spec,
                certificate_end,
            });
            self.plans.insert(name.clone(), (key, Arc::new(plan)));
        }
    }

    /// When the certificate ends that KEDA shows for a service: as whoever makes it says, or else as the `ScaledObject` says. Who has
    /// just begun to lead has not looked yet, and nothing has changed.
    fn certificate_end(&self, service: &str, spec: &CalloutServiceSpec) -> Option<Timestamp> {
        if spec.pool.engine != PoolEngine::Keda {
            return None;
        }
        let (namespace, short) = service.split_once('/')?;
        let secret = (namespace.to_owned(), plan::tls_secret(short));
        let made = self.inputs.ends.borrow().get(&secret).copied();
        if let Some(end) = made.and_then(|end| i64::try_from(end).ok()) {
            return Timestamp::from_second(end).ok();
        }
        let id = format!("{namespace}/{}", pool_name(short));
        let live = |kind: Kind| self.inputs.world.owned_one(kind, &id);
        let issued = live(Kind::Certificate).and_then(|certificate| {
            let end = certificate.data.pointer("/status/notAfter")?;
            end.as_str()?.parse().ok()
        });
        issued.or_else(|| plan::scaling::certificate_end(live(Kind::ScaledObject)?.as_ref()))
    }

    /// Nothing is remembered of what is not planned any more.
    fn forget(&mut self, evaluation: &Evaluation) {
        self.problems
            .retain(|_, (service, _)| evaluation.services.contains_key(service));
        let planned: std::collections::BTreeSet<ObjectId> = self
            .plans
            .values()
            .flat_map(|(_, plan)| &plan.objects)
            .map(Planned::id)
            .collect();
        self.problems.retain(|id, _| planned.contains(id));
        self.senseless.retain(|id, _| planned.contains(id));
        self.settled.retain(|id, _| planned.contains(id));
        self.backoff.retain(|id| planned.contains(id));
    }

    /// What is to be done, by service, in order.
    fn actions(&mut self, evaluation: &Evaluation) -> Vec<(String, Vec<Action>)> {
        let owned = self.inputs.world.owned();
        let now = Instant::now();
        let mut actions: BTreeMap<String, Vec<Action>> = BTreeMap::new();
        let plans: Vec<(String, Arc<Plan>)> = self
            .plans
            .iter()
            .map(|(name, (_, plan))| (name.clone(), Arc::clone(plan)))
            .collect();
        for (name, plan) in plans {
            let Some(service) = evaluation.services.get(&name) else {
                continue;
            };
            for planned in &plan.objects {
                let live = owned.get(&planned.id());
                if !self.is_due(planned, live.map(AsRef::as_ref), now) {
                    continue;
                }
                let action = Action::Apply {
                    planned: planned.clone(),
                    live: live.cloned(),
                    uid: service.uid.clone(),
                };
                actions.entry(name.clone()).or_default().push(action);
            }
        }
        for (id, live) in &owned {
            if let Some((name, uid)) = self.is_left_over(evaluation, id, live) {
                let action = Action::Delete {
                    id: id.clone(),
                    uid,
                };
                actions.entry(name).or_default().push(action);
            }
        }
        // First the autoscaler that goes: KEDA's webhook refuses what another one scales.
        for actions in actions.values_mut() {
            actions.sort_by_key(|action| !action.ends_scaling());
        }
        actions.into_iter().collect()
    }

    /// Is there something to send for it, now?
    fn is_due(&mut self, planned: &Planned, live: Option<&DynamicObject>, now: Instant) -> bool {
        let (id, hash) = (planned.id(), planned.hash());
        if let Some(live) = live {
            if live.metadata.deletion_timestamp.is_some() {
                return false;
            }
            let live = compare::content(live);
            let looks = compare::fingerprint(&live);
            if self
                .settled
                .get(&id)
                .is_some_and(|settled| settled.0 == hash && settled.1 == looks)
            {
                return false;
            }
            if compare::is_within(&planned.document, &live) {
                self.settled.insert(id.clone(), (hash, looks));
                self.problems.remove(&id);
                self.backoff.worked(&id);
                return false;
            }
        }
        if self.senseless.get(&id) == Some(&hash) {
            return false;
        }
        self.backoff.is_open(&id, now)
    }

    /// Made for a service that is there, and not planned for it any more: service and uid of the object.
    fn is_left_over(
        &self,
        evaluation: &Evaluation,
        id: &ObjectId,
        live: &DynamicObject,
    ) -> Option<(String, String)> {
        let label = live.labels().get(SERVICE_LABEL)?;
        let name = format!("{}/{label}", live.metadata.namespace.as_deref()?);
        let service = evaluation.services.get(&name)?;
        let (_, plan) = self.plans.get(&name)?;
        let ours = live
            .owner_references()
            .iter()
            .any(|owner| owner.uid == service.uid);
        let object = live.metadata.name.as_deref()?;
        if !ours || live.metadata.deletion_timestamp.is_some() || plan.has(id.0, object) {
            return None;
        }
        Some((name, live.uid()?))
    }

    async fn perform(&mut self, actions: Vec<(String, Vec<Action>)>) {
        let inputs = &self.inputs;
        let done = futures_util::stream::iter(actions)
            .map(|(service, actions)| async move {
                let mut outcomes = Vec::new();
                for action in actions {
                    let outcome = request::perform(inputs, &action).await;
                    outcomes.push((action, outcome));
                }
                (service, outcomes)
            })
            .buffer_unordered(CONCURRENT)
            .collect::<Vec<_>>()
            .await;
        for (service, outcomes) in done {
            for (action, outcome) in outcomes {
                self.note(&service, &action, outcome);
            }
        }
    }

    /// As the watch would bring it.
    fn know(&self, kind: Kind, object: DynamicObject) {
        let scope = Scope {
            kind,
            namespace: None,
            own: false,
        };
        self.inputs.world.apply(&scope, object);
    }

    fn note(&mut self, service: &str, action: &Action, outcome: Outcome) {
        let (id, hash) = match action {
            Action::Apply { planned, .. } => (planned.id(), planned.hash()),
            Action::Delete { id, .. } => (id.clone(), String::new()),
        };
        match outcome {
            Outcome::Written(object) => {
                let object = crate::watch::slim(*object);
                let looks = compare::fingerprint(&compare::content(&object));
                self.settled.insert(id.clone(), (hash, looks));
                self.problems.remove(&id);
                self.senseless.remove(&id);
                self.backoff.worked(&id);
                self.know(id.0, object);
            }
            Outcome::Seen(object) => self.know(id.0, crate::watch::slim(*object)),
            Outcome::Gone => {
                self.inputs.world.deleted(id.0, &id.1);
                self.backoff.worked(&id);
            }
            Outcome::NotLeading => {}
            Outcome::Failed(problem) => {
                self.inputs.metrics.failed(Part::Apply, problem.reason);
                if problem.reason == Reason::Invalid {
                    self.senseless.insert(id.clone(), hash);
                    self.backoff.worked(&id);
                } else {
                    self.backoff.failed(&id, Instant::now());
                }
                tracing::warn!(service, kind = id.0.name(), object = %id.1, problem = %problem.message, "owned object could not be written");
                self.problems.insert(id, (service.to_owned(), problem));
            }
        }
    }
}

// === impl Planned ===

impl Planned {
    fn id(&self) -> ObjectId {
        (self.kind, format!("{}/{}", self.namespace, self.name))
    }

    fn hash(&self) -> String {
        let hash = self.document["metadata"]["annotations"][PLAN_HASH].as_str();
        hash.unwrap_or_default().to_owned()
    }
}

fn offer<T: PartialEq>(sender: &watch::Sender<T>, new: T) {
    sender.send_if_modified(|current| {
        let changed = *current != new;
        if changed {
            *current = new;
        }
        changed
    });
}
