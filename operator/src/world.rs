//! What the cluster looks like, as far as it concerns us: filled by the watches, read by index, apply and status.
//!
//! Holds the text of each rule and service once, parsed, and the owned objects as they are. What the API server adds for its own use
//! (`managedFields`) is not kept. An event that is older than what is known is ignored, so that the answer to a write of ours can be
//! put in before the watch brings it. Nobody waits for the lock longer than a copy of some pointers takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::Value;
use tokio::sync::watch;

use crate::kinds::{Kind, SLICE_OF};
use crate::objects::Parsed;
use crate::shared::ObjectKey;

/// A rule or service, as it was last seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Kind and name.
    pub key: ObjectKey,
    /// Of this very object; another one of the same name has another.
    pub uid: String,
    /// Counts changes of `spec`.
    pub generation: i64,
    /// Counts all changes.
    pub resource_version: String,
    /// When it was created.
    pub created: Timestamp,
    /// Somebody wants it gone.
    pub deleting: bool,
    /// Its annotations of `opes.dev`.
    pub annotations: BTreeMap<String, String>,
    /// What its text says.
    pub parsed: Arc<Parsed>,
    /// `status` as it is.
    pub status: Value,
}

/// One EndpointSlice.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Namespace.
    pub namespace: String,
    /// Service that it is of.
    pub service: String,
    /// `addressType`, `endpoints` and `ports`.
    pub content: Value,
}

/// Which part of a kind one watch brings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// The kind.
    pub kind: Kind,
    /// One namespace, or all of them.
    pub namespace: Option<String>,
    /// EndpointSlices of the operator's own Service are watched beside those of pools.
    pub own: bool,
}

/// All of it. Shared by everything.
#[derive(Debug)]
pub struct World {
    inner: Mutex<Inner>,
    specs: watch::Sender<u64>,
    endpoints: watch::Sender<u64>,
    live: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<ObjectKey, Arc<Seen>>,
    /// The operator's own beside those of pools.
    slices: BTreeMap<(bool, String), Slice>,
    owned: BTreeMap<(Kind, String), Arc<DynamicObject>>,
    listing: BTreeMap<Scope, BTreeSet<String>>,
    unsynced: BTreeMap<Scope, String>,
}

/// What an event may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touched {
    Nothing,
    Spec,
    Endpoints,
    Live,
}

// === impl World ===

impl Default for World {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            specs: watch::Sender::new(0),
            endpoints: watch::Sender::new(0),
            live: watch::Sender::new(0),
        }
    }
}

impl World {
    /// Nothing is known.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A watch is to come; until its first list is through, the world is not complete.
    pub fn expect(&self, scope: Scope) {
        self.lock().unsynced.insert(scope, "being listed".into());
    }

    /// A watch failed; it is tried again.
    pub fn failed(&self, scope: &Scope, reason: &str) {
        if let Some(said) = self.lock().unsynced.get_mut(scope) {
            reason.clone_into(said);
        }
    }

    /// A watch begins to list.
    pub fn list_begins(&self, scope: &Scope) {
        self.lock().listing.insert(scope.clone(), BTreeSet::new());
    }

    /// A watch is through with its list: what it did not bring is gone.
    pub fn list_ends(&self, scope: &Scope) {
        let mut inner = self.lock();
        inner.unsynced.remove(scope);
        let listed = inner.listing.remove(scope).unwrap_or_default();
        for name in inner.names(scope) {
            if !listed.contains(&name) {
                inner.remove(scope, &name);
            }
        }
        drop(inner);
        bump(&self.specs);
        bump(&self.endpoints);
        bump(&self.live);
    }

    /// An object is there, or has changed.
    pub fn apply(&self, scope: &Scope, object: DynamicObject) {
        let mut inner = self.lock();
        if let Some(listed) = inner.listing.get_mut(scope) {
            listed.insert(qualified(&object));
        }
        let touched = inner.apply(scope, object);
        drop(inner);
        self.tell(touched);
    }

    /// An object is gone.
    pub fn delete(&self, scope: &Scope, object: &DynamicObject) {
        let mut inner = self.lock();
        let touched = inner.remove(scope, &qualified(object));
        drop(inner);
        self.tell(touched);
    }

    /// An owned object was deleted by us; the watch will say so too.
    pub fn deleted(&self, kind: Kind, name: &str) {
        self.lock().owned.remove(&(kind, name.to_owned()));
    }

    /// What is missing before edges can be served: kind and reason.
    pub fn unsynced_for_serving(&self) -> Option<String> {
        let serving = [Kind::OpesRule, Kind::CalloutService, Kind::EndpointSlice];
        self.unsynced(|scope| serving.contains(&scope.kind))
    }

    /// What is missing before anything can be written: kind and reason.
    pub fn unsynced_for_writing(&self) -> Option<String> {
        self.unsynced(|_| true)
    }

    fn unsynced(&self, of: impl Fn(&Scope) -> bool) -> Option<String> {
        let inner = self.lock();
        let mut missing = inner.unsynced.iter().filter(|(scope, _)| of(scope));
        missing.next().map(|(scope, reason)| {
            let place = scope.namespace.as_deref().unwrap_or("all namespaces");
            format!("{} in {place}: {reason}", scope.kind.name())
        })
    }

    /// Rules and services.
    pub fn objects(&self) -> BTreeMap<ObjectKey, Arc<Seen>> {
        self.lock().objects.clone()
    }

    /// One of them.
    pub fn object(&self, key: &ObjectKey) -> Option<Arc<Seen>> {
        self.lock().objects.get(key).cloned()
    }

    /// EndpointSlices of the operator's own Service, or of pools.
    pub fn slices(&self, own: bool) -> Vec<Slice> {
        let inner = self.lock();
        let slices = inner.slices.iter().filter(|(key, _)| key.0 == own);
        slices.map(|(_, slice)| slice.clone()).collect()
    }

    /// Owned objects, by kind and `NAMESPACE/NAME`.
    pub fn owned(&self) -> BTreeMap<(Kind, String), Arc<DynamicObject>> {
        self.lock().owned.clone()
    }

    /// One of them.
    pub fn owned_one(&self, kind: Kind, name: &str) -> Option<Arc<DynamicObject>> {
        self.lock().owned.get(&(kind, name.to_owned())).cloned()
    }

    /// Changes when what rules or services say has changed.
    pub fn specs_changed(&self) -> watch::Receiver<u64> {
        self.specs.subscribe()
    }

    /// Changes when instances have come or gone.
    pub fn endpoints_changed(&self) -> watch::Receiver<u64> {
        self.endpoints.subscribe()
    }

    /// Changes with everything else that is written about: status, owned objects.
    pub fn live_changed(&self) -> watch::Receiver<u64> {
        self.live.subscribe()
    }

    fn tell(&self, touched: Touched) {
        match touched {
            Touched::Nothing => {}
            Touched::Spec => {
                bump(&self.specs);
                bump(&self.live);
            }
            Touched::Endpoints => bump(&self.endpoints),
            Touched::Live => bump(&self.live),
        }
    }

    // Each change of the maps is complete in itself, so a panic elsewhere cannot leave them half-done.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    fn apply(&mut self, scope: &Scope, object: DynamicObject) -> Touched {
        match scope.kind {
            Kind::OpesRule | Kind::CalloutService => self.apply_ours(scope.kind, object),
            Kind::EndpointSlice => self.apply_slice(scope.own, object),
            kind => self.apply_owned(kind, object),
        }
    }

    fn apply_ours(&mut self, kind: Kind, object: DynamicObject) -> Touched {
        let key = ObjectKey {
            kind: kind.name(),
            name: qualified(&object),
        };
        let before = self.objects.get(&key);
        if before.is_some_and(|seen| is_older(&object, &seen.resource_version)) {
            return Touched::Nothing;
        }
        let seen = Seen::of(key.clone(), object, before.map(AsRef::as_ref));
        let touched = match before {
            Some(before) if !seen.says_otherwise(before) => Touched::Live,
            _ => Touched::Spec,
        };
        self.objects.insert(key, Arc::new(seen));
        touched
    }

    fn apply_slice(&mut self, own: bool, object: DynamicObject) -> Touched {
        let key = (own, qualified(&object));
        let service = object.labels().get(SLICE_OF).cloned().unwrap_or_default();
        let slice = Slice {
            namespace: object.namespace().unwrap_or_default(),
            service,
            content: object.data,
        };
        let before = self.slices.insert(key, slice.clone());
        if before.as_ref() == Some(&slice) {
            return Touched::Nothing;
        }
        Touched::Endpoints
    }

    fn apply_owned(&mut self, kind: Kind, object: DynamicObject) -> Touched {
        let key = (kind, qualified(&object));
        let before = self.owned.get(&key);
        let known = before.and_then(|before| before.resource_version());
        if known.is_some_and(|version| is_older(&object, &version)) {
            return Touched::Nothing;
        }
        self.owned.insert(key, Arc::new(object));
        Touched::Live
    }

    fn remove(&mut self, scope: &Scope, name: &str) -> Touched {
        match scope.kind {
            Kind::OpesRule | Kind::CalloutService => {
                let key = ObjectKey {
                    kind: scope.kind.name(),
                    name: name.to_owned(),
                };
                self.objects.remove(&key);
                Touched::Spec
            }
            Kind::EndpointSlice => {
                self.slices.remove(&(scope.own, name.to_owned()));
                Touched::Endpoints
            }
            kind => {
                self.owned.remove(&(kind, name.to_owned()));
                Touched::Live
            }
        }
    }

    /// What is known of what this watch brings.
    fn names(&self, scope: &Scope) -> Vec<String> {
        let names: Vec<&String> = match scope.kind {
            Kind::OpesRule | Kind::CalloutService => {
                let keys = self.objects.keys();
                keys.filter(|key| key.kind == scope.kind.name())
                    .map(|key| &key.name)
                    .collect()
            }
            Kind::EndpointSlice => {
                let slices = self.slices.iter();
                slices
                    .filter(|(key, _)| key.0 == scope.own)
                    .map(|(key, _)| &key.1)
                    .collect()
            }
            kind => {
                let keys = self.owned.keys();
                keys.filter(|key| key.0 == kind).map(|key| &key.1).collect()
            }
        };
        let within = |name: &str| {
            let namespace = name.split('/').next();
            scope.namespace.is_none() || scope.namespace.as_deref() == namespace
        };
        names
            .into_iter()
            .filter(|name| within(name))
            .cloned()
            .collect()
    }
}

// === impl Seen ===

impl Seen {
    fn of(key: ObjectKey, mut object: DynamicObject, before: Option<&Self>) -> Self {
        let uid = object.uid().unwrap_or_default();
        let generation = object.metadata.generation.unwrap_or_default();
        let status = object.data.get_mut("status").map(Value::take);
        let same = before.filter(|before| before.uid == uid && before.generation == generation);
        let parsed = match same {
            Some(before) => Arc::clone(&before.parsed),
            None => Arc::new(Parsed::of(&key, &object.data["spec"])),
        };
        let created = object.creation_timestamp();
        let annotations = object.annotations().iter();
        Self {
            uid,
            generation,
            resource_version: object.resource_version().unwrap_or_default(),
            created: created.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            deleting: object.metadata.deletion_timestamp.is_some(),
            annotations: annotations
                .filter(|(name, _)| name.starts_with("opes.dev/"))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            parsed,
            status: status.unwrap_or(Value::Null),
            key,
        }
    }

    /// Does it say something else than before?
    fn says_otherwise(&self, before: &Self) -> bool {
        self.uid != before.uid
            || self.generation != before.generation
            || self.deleting != before.deleting
            || self.annotations != before.annotations
            || self.last_accepted_matters(before)
    }

    /// Another replica has accepted something that this one has not seen, and that runs in place of a later mistake.
    fn last_accepted_matters(&self, before: &Self) -> bool {
        let last = self.last_accepted_generation();
        last != before.last_accepted_generation() && last != Some(self.generation)
    }

    /// Generation of what `status.lastAccepted` keeps.
    pub fn last_accepted_generation(&self) -> Option<i64> {
        self.status.pointer("/lastAccepted/generation")?.as_i64()
    }

    /// Namespace.
    pub fn namespace(&self) -> &str {
        self.key.name.split('/').next().unwrap_or_default()
    }

    /// Name within the namespace.
    pub fn name(&self) -> &str {
        self.key.name.split('/').next_back().unwrap_or_default()
    }
}

/// `NAMESPACE/NAME`.
fn qualified(object: &DynamicObject) -> String {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let name = object.metadata.name.as_deref().unwrap_or_default();
    format!("{namespace}/{name}")
}

/// Resource versions of one kind can be compared as numbers (Kubernetes 1.35 promises it, all versions before did it).
fn is_older(object: &DynamicObject, known: &str) -> bool {
    let new = object.metadata.resource_version.as_deref();
    let new = new.and_then(|version| version.parse::<u64>().ok());
    match (new, known.parse::<u64>()) {
        (Some(new), Ok(known)) => new < known,
        _ => false,
    }
}

fn bump(sender: &watch::Sender<u64>) {
    sender.send_modify(|version| *version = version.wrapping_add(1));
}
