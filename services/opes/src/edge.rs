//! `opes edge`: an edge from a configuration file, until SIGTERM or Ctrl-C.

mod empty;
mod following;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opes_edge::config::{CalloutsConfig, EdgeConfig};
use opes_edge::{
    ClientTls, EdgeHandle, Endpoints, Hooks, Metrics, MutualFiles, Routing, RoutingError,
};
use opes_rules::RoutingTable;
use opes_telemetry::{Health, Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cli::EdgeArgs;
use crate::live::{self, LiveRules};
use crate::{quarantine, rulesets};
use following::Following;

/// How often the spool's health is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Part of readiness: the edge as a whole.
const PART: &str = "edge";

/// Runs until told to go.
pub(crate) async fn run(args: EdgeArgs) -> Result<ExitCode> {
    let config = EdgeConfig::load(&args.config)?;
    let gone = opes_callout_server::shutdown_on_signal()?;
    if args.drain {
        return empty::run(config, args.drain_timeout, &gone).await;
    }
    let callouts = Arc::new(Callouts::new(&config)?);
    let registry = Registry::new();
    let metrics = Arc::new(registry.with(Metrics::register));
    let health = Health::new();
    health.not_ready(PART, "starting");
    let mut rules = Rules::open(&config, &callouts, &metrics, &registry)?;
    if let Some(address) = config.admin {
        serve_admin(address, registry.clone(), health.clone()).await?;
    }
    let first = tokio::select! {
        () = gone.cancelled() => return Ok(ExitCode::SUCCESS),
        first = rules.first(&callouts, &health) => first?,
    };
    let durable = config.spool_durable;
    let delay = config.drain_delay;
    let revision = first.revision().to_owned();
    let quarantine = quarantine::open(&config, &registry)?;
    let hooks = Hooks {
        quarantine: Some(quarantine.hook()),
        ..Hooks::default()
    };
    let edge = opes_edge::start(config, first, metrics, hooks).await?;
    let stop = CancellationToken::new();
    match edge.releases() {
        Some(releases) if durable => quarantine.serve(releases, &stop).await?,
        // What is released goes through the spool, and that would not last.
        _ => quarantine.sweep(&stop),
    }
    let mut files = None;
    let mut following = None;
    match rules {
        Rules::None => {}
        Rules::Files(rules) => files = Some(rules),
        Rules::Operator(operator) => {
            let run = operator.run(revision, edge.live_routing());
            following = Some(AbortOnDropHandle::new(tokio::spawn(run)));
        }
    }
    health.ready(PART);
    announce(&edge);
    watch(&edge, files.as_mut(), &callouts, &health, gone.cancelled()).await;
    health.not_ready(PART, "draining");
    let late = tokio::time::sleep(delay);
    watch(&edge, files.as_mut(), &callouts, &health, late).await;
    stop.cancel();
    // Pools move, and their load is said, for as long as transactions run.
    let drained = edge.drain().await;
    drop(following);
    let lost = !durable && drained.messages > 0;
    if drained.sessions_cut == 0 && !lost {
        return Ok(ExitCode::SUCCESS);
    }
    tracing::error!(
        sessions_cut = drained.sessions_cut,
        messages = drained.messages,
        durable,
        "not everything could be finished within drainTimeout"
    );
    Ok(ExitCode::FAILURE)
}

/// Where rules come from.
enum Rules {
    None,
    Files(LiveRules),
    Operator(Following),
}

// === impl Rules ===

impl Rules {
    fn open(
        config: &EdgeConfig,
        callouts: &Arc<Callouts>,
        metrics: &Arc<Metrics>,
        registry: &Registry,
    ) -> Result<Self> {
        Ok(match (&config.rules, &config.routing) {
            (Some(path), _) => Self::Files(LiveRules::new(path)),
            (None, Some(routing)) => Self::Operator(Following::start(
                config, routing, callouts, metrics, registry,
            )?),
            (None, None) => Self::None,
        })
    }

    /// What runs first.
    async fn first(&mut self, callouts: &Callouts, health: &Health) -> Result<Routing> {
        let table = match self {
            Self::None => no_rules()?,
            Self::Files(rules) => rules.load()?,
            Self::Operator(following) => return Ok(following.first(health).await),
        };
        Ok(callouts.routing(table, &Endpoints::new())?)
    }
}

pub(crate) fn no_rules() -> Result<RoutingTable> {
    let table = opes_rules::compile(Vec::new());
    table.map_err(|wrong| anyhow::anyhow!(rulesets::listed(&wrong)))
}

/// What every revision of the rules is run with.
pub(crate) struct Callouts {
    system: String,
    tls: Option<ClientTls>,
}

// === impl Callouts ===

impl Callouts {
    pub(crate) fn new(config: &EdgeConfig) -> Result<Self> {
        let tls = config.callouts.as_ref().map(client_tls).transpose();
        Ok(Self {
            system: config.system.clone(),
            tls: tls.context("callouts")?,
        })
    }

    pub(crate) fn routing(
        &self,
        table: RoutingTable,
        endpoints: &Endpoints,
    ) -> Result<Routing, RoutingError> {
        let host = opes_edge::Host::default();
        Routing::with(&host, self.tls.as_ref(), table, endpoints, &self.system)
    }
}

pub(crate) fn client_tls(config: &CalloutsConfig) -> Result<ClientTls> {
    let files = MutualFiles {
        certificate: config.certificate.clone(),
        key: config.key.clone(),
        ca: config.ca.clone(),
    };
    Ok(ClientTls::client(files)?)
}

/// `/metrics`, `/healthz`, `/readyz` in the background.
pub(crate) async fn serve_admin(
    address: std::net::SocketAddr,
    registry: Registry,
    health: Health,
) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for /metrics\n  help: choose another `admin` address")
    })?;
    println!("listening admin http {}", listener.local_addr()?);
    tokio::spawn(opes_telemetry::serve_admin(listener, registry, health));
    Ok(())
}

/// One readiness line a listener, then `ready`.
fn announce(edge: &EdgeHandle) {
    for (name, address) in edge.addresses() {
        println!("listening {name} smtp {address}");
    }
    println!("ready");
}

/// Swaps in changed rules and follows the spool's health until `end`.
async fn watch(
    edge: &EdgeHandle,
    mut rules: Option<&mut LiveRules>,
    callouts: &Callouts,
    health: &Health,
    end: impl Future<Output = ()>,
) {
    let mut end = std::pin::pin!(end);
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            () = &mut end => return,
            _ = looks.tick() => match edge.unhealthy_reason() {
                Some(reason) => health.not_ready("spool", reason),
                None => health.ready("spool"),
            },
            table = live::changed(rules.as_deref_mut()) => {
                let routing = table.and_then(|table| Ok(callouts.routing(table, &Endpoints::new())?));
                replace(edge, routing);
            }
        }
    }
}

fn replace(edge: &EdgeHandle, routing: Result<Routing>) {
    match routing {
        Ok(routing) => {
            edge.replace_routing(routing);
            tracing::info!("rules replaced");
        }
        Err(error) => tracing::error!(
            error = format!("{error:#}"),
            "new rules refused, the last good ones stay"
        ),
    }
}
