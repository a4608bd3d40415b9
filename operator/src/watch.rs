//! Watches: from the API server into the [`World`].
//!
//! Objects come as JSON, so that one that is not as we think spoils nothing: reading its text is its own affair. Lists come in pages;
//! what is watched is narrowed by labels. A watch that fails is tried again with growing pauses for as long as the operator lives, and
//! what is known stays: the API server may be away for as long as it likes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Identity, Issuer};
use crate::features::Features;
use crate::kinds::{Kind, MANAGED_BY, MANAGER, OWNED, SERVICE_LABEL, SLICE_OF};
use crate::metrics::Metrics;
use crate::world::{Scope, World};

/// Objects of one page of a list.
const PAGE: u32 = 250;
/// A connection that has died silently is noticed this late, and 5 s.
const WATCH_TIMEOUT: Duration = Duration::from_mins(4);

/// All watches.
#[derive(Clone)]
pub struct Watches {
    /// To the API server.
    pub client: Client,
    /// Where what they bring is put.
    pub world: Arc<World>,
    /// Counts failures.
    pub metrics: Metrics,
    /// Ends them.
    pub shutdown: CancellationToken,
    /// Holds their tasks.
    pub tasks: TaskTracker,
}

// === impl Watches ===

impl Watches {
    /// Starts all of them; those for what not every cluster has start when the cluster has it.
    pub fn start(
        &self,
        config: &Config,
        identity: &Identity,
        features: &watch::Receiver<Features>,
    ) {
        let namespaces = namespaces(config);
        for namespace in &namespaces {
            self.spawn(Kind::OpesRule, namespace.clone(), None);
            self.spawn(Kind::CalloutService, namespace.clone(), None);
            self.spawn(
                Kind::EndpointSlice,
                namespace.clone(),
                Some(SERVICE_LABEL.into()),
            );
        }
        let own = Scope {
            kind: Kind::EndpointSlice,
            namespace: Some(identity.namespace.clone()),
            own: true,
        };
        self.spawn_scope(own, Some(format!("{SLICE_OF}={}", config.service)));
        for kind in OWNED.into_iter().filter(|kind| wanted(*kind, config)) {
            for namespace in &namespaces {
                if kind.is_built_in() {
                    self.spawn(kind, namespace.clone(), Some(managed()));
                } else {
                    self.spawn_later(kind, namespace.clone(), features.clone());
                }
            }
        }
    }

    fn spawn(&self, kind: Kind, namespace: Option<String>, labels: Option<String>) {
        let own = false;
        self.spawn_scope(
            Scope {
                kind,
                namespace,
                own,
            },
            labels,
        );
    }

    fn spawn_scope(&self, scope: Scope, labels: Option<String>) {
        // What not every cluster has must not keep the rest from being written, should a role be missing for it.
        if scope.kind.is_built_in() {
            self.world.expect(scope.clone());
        }
        let (this, shutdown) = (self.clone(), self.shutdown.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = this.follow(scope, labels) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }

    /// Waits until the cluster has the kind.
    fn spawn_later(
        &self,
        kind: Kind,
        namespace: Option<String>,
        mut features: watch::Receiver<Features>,
    ) {
        let (this, shutdown) = (self.clone(), self.shutdown.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                found = features.wait_for(|features| features.has(kind)) => {
                    if found.is_err() {
                        return;
                    }
                }
                () = shutdown.cancelled() => return,
            }
            this.spawn(kind, namespace, Some(managed()));
        });
    }

    async fn follow(&self, scope: Scope, labels: Option<String>) {
        let (client, resource) = (self.client.clone(), scope.kind.resource());
        let api: Api<DynamicObject> = match &scope.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        let seconds = u32::try_from(WATCH_TIMEOUT.as_secs()).unwrap_or(u32::MAX);
        let mut config = watcher::Config::default().page_size(PAGE).timeout(seconds);
        config.label_selector = labels;
        let stream = watcher::watcher(api, config).default_backoff();
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => self.take(&scope, event),
                Err(error) => self.failed(&scope, &error),
            }
        }
    }

    fn take(&self, scope: &Scope, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.world.list_begins(scope),
            Event::InitApply(object) | Event::Apply(object) => {
                self.world.apply(scope, slim(object));
            }
            Event::InitDone => self.world.list_ends(scope),
            Event::Delete(object) => self.world.delete(scope, &object),
        }
    }

    fn failed(&self, scope: &Scope, error: &watcher::Error) {
        let kind = scope.kind.name();
        let namespace = scope.namespace.as_deref().unwrap_or("*");
        tracing::warn!(kind, namespace, %error, "watch failed, trying again");
        self.metrics.watch_failed(kind);
        self.world.failed(scope, &error.to_string());
    }
}

fn managed() -> String {
    format!("{MANAGED_BY}={MANAGER},{SERVICE_LABEL}")
}

/// One entry for all namespaces, or one for each.
pub fn namespaces(config: &Config) -> Vec<Option<String>> {
    let named = &config.watch.namespaces;
    if named.is_empty() {
        return vec![None];
    }
    named.iter().cloned().map(Some).collect()
}

/// Certificates are cert-manager's only if it was asked to make them.
fn wanted(kind: Kind, config: &Config) -> bool {
    kind != Kind::Certificate || config.certificates.issuer == Issuer::CertManager
}

/// Without what the API server keeps for itself, which is most of a small object.
pub fn slim(mut object: DynamicObject) -> DynamicObject {
    object.metadata.managed_fields = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    object
}
