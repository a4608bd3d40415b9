//! `opes edge`: an edge from a configuration file, until SIGTERM or Ctrl-C.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opes_edge::config::{CalloutsConfig, EdgeConfig};
use opes_edge::{ClientTls, EdgeHandle, Endpoints, Hooks, Metrics, MutualFiles, Routing};
use opes_rules::RoutingTable;
use opes_telemetry::{Health, Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::live::{self, LiveRules};
use crate::{quarantine, rulesets};

/// How often the spool's health is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Runs until told to go.
pub(crate) async fn run(path: &Path) -> Result<ExitCode> {
    let config = EdgeConfig::load(path)?;
    let gone = opes_callout_server::shutdown_on_signal()?;
    let callouts = Callouts::new(&config)?;
    let mut rules = config.rules.as_deref().map(LiveRules::new);
    let table = match &rules {
        Some(rules) => rules.load()?,
        None => opes_rules::compile(Vec::new())
            .map_err(|wrong| anyhow::anyhow!(rulesets::listed(&wrong)))?,
    };
    let routing = callouts.routing(table)?;
    let registry = Registry::new();
    let metrics = Arc::new(registry.with(Metrics::register));
    let health = Health::new();
    let admin = config.admin;
    let quarantine = quarantine::open(&config, &registry)?;
    let hooks = Hooks {
        quarantine: Some(quarantine.hook()),
        ..Hooks::default()
    };
    let edge = opes_edge::start(config, routing, metrics, hooks).await?;
    let stop = CancellationToken::new();
    if let Some(releases) = edge.releases() {
        quarantine.serve(releases, &stop).await?;
    }
    if let Some(address) = admin {
        serve_admin(address, registry, health.clone()).await?;
    }
    announce(&edge);
    watch(&edge, rules.as_mut(), &callouts, &health, &gone).await;
    health.not_ready("edge", "draining");
    stop.cancel();
    edge.drain().await;
    Ok(ExitCode::SUCCESS)
}

/// What every revision of the rules is run with.
struct Callouts {
    system: String,
    tls: Option<ClientTls>,
}

// === impl Callouts ===

impl Callouts {
    fn new(config: &EdgeConfig) -> Result<Self> {
        let tls = config.callouts.as_ref().map(client_tls).transpose();
        Ok(Self {
            system: config.system.clone(),
            tls: tls.context("callouts")?,
        })
    }

    fn routing(&self, table: RoutingTable) -> Result<Routing> {
        let tls = self.tls.as_ref();
        let routing = Routing::with(
            &opes_edge::Host::default(),
            tls,
            table,
            &Endpoints::new(),
            &self.system,
        )?;
        Ok(routing)
    }
}

fn client_tls(config: &CalloutsConfig) -> Result<ClientTls> {
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

/// Swaps in changed rules and follows the spool's health until the process is told to go.
async fn watch(
    edge: &EdgeHandle,
    mut rules: Option<&mut LiveRules>,
    callouts: &Callouts,
    health: &Health,
    gone: &CancellationToken,
) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            () = gone.cancelled() => return,
            _ = looks.tick() => match edge.unhealthy_reason() {
                Some(reason) => health.not_ready("spool", reason),
                None => health.ready("spool"),
            },
            table = live::changed(rules.as_deref_mut()) => {
                replace(edge, table.and_then(|table| callouts.routing(table)));
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
