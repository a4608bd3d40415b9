//! The parts of the operator, started and joined: channels between them hold whole values, the newest only.
//!
//! Nothing in here ends the process except being told to: the API server may go, the Lease may go, and edges are served on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use opes_host::Clock;
use opes_proto::routing::Peers;
use opes_telemetry::{Health, Registry, serve_admin};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apply::{self, Plans, Problems};
use crate::certificates::{self, AuthorityConfig, Lifetimes, OwnCertificates};
use crate::config::{Config, Enabled, Identity, Issuer};
use crate::edges::Edges;
use crate::endpoints;
use crate::events::Events;
use crate::features::{self, Features};
use crate::index::{self, Evaluation};
use crate::lease::Candidacy;
use crate::metrics::Metrics;
use crate::metrics_api::{self, MetricsApiConfig, Standing};
use crate::serve::{self, Served};
use crate::shared::{CertificateEnds, CertificateWanted, Leading, Snapshot};
use crate::status;
use crate::watch::Watches;
use crate::world::World;

/// For everything to end.
const GRACE: Duration = Duration::from_secs(15);

/// Runs the operator until `shutdown`, and gives the Lease back.
pub async fn run(
    config: Config,
    identity: Identity,
    client: Client,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let listeners = Listeners::bind(&config).await?;
    let operator = Operator {
        config: Arc::new(config),
        identity,
        client,
        shutdown: shutdown.clone(),
        tasks: TaskTracker::new(),
        registry: Registry::new(),
        health: Health::new(),
        world: World::new(),
        edges: Edges::new(),
    };
    operator.start(listeners)?;
    shutdown.cancelled().await;
    operator.tasks.close();
    if tokio::time::timeout(GRACE, operator.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("not everything ended in time");
    }
    Ok(())
}

/// Bound before anything else happens: a port that is taken is a mistake to be told of at once.
struct Listeners {
    admin: TcpListener,
    routing: TcpListener,
    metrics_api: Option<TcpListener>,
}

struct Operator {
    config: Arc<Config>,
    identity: Identity,
    client: Client,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    registry: Registry,
    health: Health,
    world: Arc<World>,
    edges: Arc<Edges>,
}

/// What certificates are wanted for: those of pools, and the edges'.
type Wanted = watch::Receiver<Arc<Vec<CertificateWanted>>>;

// === impl Listeners ===

impl Listeners {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let api = &config.metrics_api;
        Ok(Self {
            admin: bind("admin.listen", config.admin.listen).await?,
            routing: bind("routing.listen", config.routing.listen).await?,
            metrics_api: match api.enabled {
                Enabled::Auto => Some(bind("metricsApi.listen", api.listen).await?),
                Enabled::Off => None,
            },
        })
    }
}

async fn bind(field: &str, address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("{field}: cannot listen on {address}"))?;
    let address = listener
        .local_addr()
        .context("a listener without address")?;
    tracing::info!(field, %address, "listening");
    Ok(listener)
}

// === impl Operator ===

impl Operator {
    fn start(&self, listeners: Listeners) -> anyhow::Result<()> {
        let metrics = Metrics::register(&self.registry);
        let (snapshots, served_snapshots) = watch::channel::<Option<Arc<Snapshot>>>(None);
        let (evaluations, evaluated) = watch::channel::<Option<Arc<Evaluation>>>(None);
        let (leads, leading) = watch::channel(false);
        let (found, features) = watch::channel(Features::default());
        let (standing, stands) = watch::channel(Standing::Unknown);
        self.health.not_ready("rules", "not listed yet");
        metrics.register_edges(&self.registry, &self.edges, evaluated.clone());
        self.watches(&metrics)
            .start(&self.config, &self.identity, &features);
        let index = index::Outputs {
            snapshots,
            evaluations,
            health: self.health.clone(),
            metrics: metrics.clone(),
        };
        self.spawn(index::run(
            Arc::clone(&self.config),
            Arc::clone(&self.world),
            index,
            self.shutdown.clone(),
        ));
        self.spawn(features::run(
            self.client.clone(),
            stands,
            found,
            self.shutdown.clone(),
        ));
        self.spawn(
            Candidacy::new(self.client.clone(), &self.identity).run(leads, self.shutdown.clone()),
        );
        self.spawn(tell_leading(
            leading.clone(),
            metrics.clone(),
            self.shutdown.clone(),
        ));
        let (ends, known_ends) = watch::channel(Arc::default());
        let wanted = self.writers(&metrics, &evaluated, &features, known_ends, &leading);
        let served = Served {
            snapshots: served_snapshots,
            peers: self.peers(),
            edges: Arc::clone(&self.edges),
        };
        let own = self.certificates(wanted, ends, &leading)?;
        self.routing(listeners.routing, &own, &served);
        self.metrics_api(listeners.metrics_api, own, served, &leading, standing);
        let admin = serve_admin(listeners.admin, self.registry.clone(), self.health.clone());
        let shutdown = self.shutdown.clone();
        self.spawn(async move {
            tokio::select! {
                () = admin => {}
                () = shutdown.cancelled() => {}
            }
        });
        Ok(())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    fn watches(&self, metrics: &Metrics) -> Watches {
        Watches {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            metrics: metrics.clone(),
            shutdown: self.shutdown.clone(),
            tasks: self.tasks.clone(),
        }
    }

    /// What writes: owned objects and status.
    fn writers(
        &self,
        metrics: &Metrics,
        evaluated: &watch::Receiver<Option<Arc<Evaluation>>>,
        features: &watch::Receiver<Features>,
        ends: watch::Receiver<Arc<CertificateEnds>>,
        leading: &Leading,
    ) -> Wanted {
        let (plans, planned) = watch::channel(Plans::default());
        let (problems, found_problems) = watch::channel(Problems::default());
        let (certificates, wanted) = watch::channel(Arc::new(Vec::new()));
        let inputs = apply::Inputs {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            config: Arc::clone(&self.config),
            namespace: self.identity.namespace.clone(),
            evaluations: evaluated.clone(),
            features: features.clone(),
            ends: ends.clone(),
            leading: leading.clone(),
            metrics: metrics.clone(),
        };
        let outputs = apply::Outputs {
            plans,
            problems,
            certificates,
        };
        self.spawn(apply::run(inputs, outputs, self.shutdown.clone()));
        let inputs = status::Inputs {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            edges: Arc::clone(&self.edges),
            evaluations: evaluated.clone(),
            plans: planned,
            problems: found_problems,
            ends,
            leading: leading.clone(),
            events: Events::new(self.client.clone(), &self.identity.name, metrics.clone()),
            metrics: metrics.clone(),
        };
        self.spawn(status::run(inputs, self.shutdown.clone()));
        wanted
    }

    /// Where the replicas are, from the EndpointSlices of the own Service.
    fn peers(&self) -> watch::Receiver<Arc<Peers>> {
        let (world, config) = (Arc::clone(&self.world), Arc::clone(&self.config));
        let (namespace, shutdown) = (self.identity.namespace.clone(), self.shutdown.clone());
        let look =
            move |world: &World| endpoints::peers(&config.service, &namespace, &world.slices(true));
        let (sender, receiver) = watch::channel(Arc::new(look(&self.world)));
        self.spawn(async move {
            let mut changed = world.endpoints_changed();
            loop {
                let peers = look(&world);
                sender.send_if_modified(|known| {
                    let differs = **known != peers;
                    if differs {
                        *known = Arc::new(peers);
                    }
                    differs
                });
                tokio::select! {
                    changed = changed.changed() => if changed.is_err() { return },
                    () = shutdown.cancelled() => return,
                }
            }
        });
        receiver
    }

    /// Who signs: the operator's authority, or cert-manager, whose Secret is mounted.
    fn certificates(
        &self,
        wanted: Wanted,
        ends: watch::Sender<Arc<CertificateEnds>>,
        leading: &Leading,
    ) -> anyhow::Result<OwnCertificates> {
        let config = &self.config.certificates;
        if config.issuer == Issuer::CertManager {
            let folder: &Path = &config.folder;
            return certificates::follow_folder(folder, self.shutdown.clone())
                .with_context(|| format!("certificates.folder: {}", folder.display()));
        }
        let authority = AuthorityConfig {
            namespace: self.identity.namespace.clone(),
            secret: config.authority_secret.clone(),
            own_names: std::iter::once(self.own_name())
                .chain(config.dns_names.iter().cloned())
                .collect(),
            lifetimes: Lifetimes {
                leaf: config.lifetime.0,
                authority: config.authority_lifetime.0,
                ..Lifetimes::default()
            },
            clock: Clock::default(),
        };
        let (own, owned) = watch::channel(None);
        let metrics = certificates::Metrics::register(&self.registry);
        let wanted = self.with_edges(wanted);
        self.spawn(certificates::run(
            self.client.clone(),
            authority,
            wanted,
            leading.clone(),
            certificates::Tell { own, ends },
            metrics,
            self.shutdown.clone(),
        ));
        Ok(owned)
    }

    fn own_name(&self) -> String {
        format!("{}.{}.svc", self.config.service, self.identity.namespace)
    }

    /// Adds what edges show.
    fn with_edges(&self, mut pools: Wanted) -> Wanted {
        let edge = &self.config.edge;
        let mut dns_names = vec![certificates::edge_name(&self.identity.namespace)];
        dns_names.extend(edge.dns_names.iter().cloned());
        let edges = CertificateWanted {
            namespace: self.identity.namespace.clone(),
            secret: edge.secret.clone(),
            dns_names,
            owner: None,
            labels: [(
                "app.kubernetes.io/managed-by".to_owned(),
                "opes-operator".to_owned(),
            )]
            .into(),
        };
        let all = move |pools: &[CertificateWanted]| {
            let all = std::iter::once(edges.clone()).chain(pools.iter().cloned());
            Arc::new(all.collect::<Vec<_>>())
        };
        let (sender, receiver) = watch::channel(all(&pools.borrow_and_update()));
        let shutdown = self.shutdown.clone();
        self.spawn(async move {
            loop {
                tokio::select! {
                    changed = pools.changed() => if changed.is_err() { return },
                    () = shutdown.cancelled() => return,
                }
                let wanted = all(&pools.borrow_and_update());
                sender.send_replace(wanted);
            }
        });
        receiver
    }

    fn routing(&self, listener: TcpListener, own: &OwnCertificates, served: &Served) {
        let metrics = serve::Metrics::register(&self.registry);
        let edge_name = certificates::edge_name(&self.identity.namespace);
        let serving = serve::run(
            listener,
            own.clone(),
            edge_name,
            served.clone(),
            metrics,
            self.shutdown.clone(),
        );
        self.spawn_server("routing", serving);
    }

    fn metrics_api(
        &self,
        listener: Option<TcpListener>,
        own: OwnCertificates,
        served: Served,
        leading: &Leading,
        standing: watch::Sender<Standing>,
    ) {
        let config = MetricsApiConfig {
            namespace: self.identity.namespace.clone(),
            service: self.config.service.clone(),
            port: metrics_api::PORT,
            cluster_role: self.config.metrics_api.cluster_role.clone(),
        };
        let (client, leading, shutdown) =
            (self.client.clone(), leading.clone(), self.shutdown.clone());
        let Some(listener) = listener else {
            // Without a ClusterRole there was never anything to take away.
            if config.cluster_role.is_some() {
                self.spawn(metrics_api::remove(client, config, leading, shutdown));
            }
            return;
        };
        let metrics = metrics_api::Metrics::register(&self.registry);
        let serving = metrics_api::run(
            client, listener, own, config, served, leading, standing, metrics, shutdown,
        );
        self.spawn_server("metrics API", serving);
    }

    /// A server that cannot go on takes the process with it: half an operator helps nobody, and a new one is there in seconds.
    fn spawn_server(
        &self,
        what: &'static str,
        serving: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let shutdown = self.shutdown.clone();
        self.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(what, %error, "server failed");
                shutdown.cancel();
            }
        });
    }
}

async fn tell_leading(mut leading: Leading, metrics: Metrics, shutdown: CancellationToken) {
    loop {
        metrics.leads(*leading.borrow_and_update());
        tokio::select! {
            changed = leading.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}
