//! `opes edge`: an edge from a configuration file, until SIGTERM or Ctrl-C.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opes_edge::config::EdgeConfig;
use opes_edge::{EdgeHandle, Endpoints, Hooks, Metrics, Routing};
use opes_telemetry::{Health, Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{quarantine, rulesets};

/// How often rule files and the spool's health are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Runs until told to go.
pub(crate) async fn run(path: &Path) -> Result<ExitCode> {
    let config = EdgeConfig::load(path)?;
    let gone = opes_callout_server::shutdown_on_signal()?;
    let system = config.system.clone();
    let rules = config.rules.clone();
    let routing = routing(rules.as_deref(), &system)?;
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
    watch(&edge, rules.as_deref(), &system, &health, &gone).await;
    health.not_ready("edge", "draining");
    stop.cancel();
    edge.drain().await;
    Ok(ExitCode::SUCCESS)
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

fn routing(rules: Option<&Path>, system: &str) -> Result<Routing> {
    let table = match rules {
        Some(folder) => rulesets::load(&[folder.to_owned()])?,
        None => opes_rules::compile(Vec::new())
            .map_err(|wrong| anyhow::anyhow!(rulesets::listed(&wrong)))?,
    };
    Ok(Routing::new(table, &Endpoints::new(), system)?)
}

/// Swaps in changed rules and follows the spool's health until the process is told to go.
async fn watch(
    edge: &EdgeHandle,
    rules: Option<&Path>,
    system: &str,
    health: &Health,
    gone: &CancellationToken,
) {
    let mut seen = rules.map(fingerprint);
    loop {
        tokio::select! {
            () = gone.cancelled() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        match edge.unhealthy_reason() {
            Some(reason) => health.not_ready("spool", reason),
            None => health.ready("spool"),
        }
        let now = rules.map(fingerprint);
        if now != seen {
            seen = now;
            match routing(rules, system) {
                Ok(routing) => {
                    edge.replace_routing(routing);
                    tracing::info!("rules replaced");
                }
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "new rules refused, the last good ones stay"
                    );
                }
            }
        }
    }
}

/// Names, sizes and times of the rule files; unreadable counts as empty.
fn fingerprint(folder: &Path) -> Vec<(std::path::PathBuf, u64, Option<std::time::SystemTime>)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some((entry.path(), meta.len(), meta.modified().ok()))
        })
        .collect();
    files.sort();
    files
}
