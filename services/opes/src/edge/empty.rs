//! `opes edge --drain`: delivers what is in a spool that nobody accepts mail for any more, and ends.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use opes_edge::config::EdgeConfig;
use opes_edge::{Endpoints, Hooks, Metrics, Routing};
use opes_telemetry::{Health, Registry};
use tokio_util::sync::CancellationToken;

use super::{no_rules, serve_admin};
use crate::quarantine;

/// No listeners and no rules: observers are told of nothing. Success when nothing is left.
pub(crate) async fn run(
    mut config: EdgeConfig,
    patience: Duration,
    gone: &CancellationToken,
) -> Result<ExitCode> {
    config.listeners.clear();
    let registry = Registry::new();
    let metrics = Arc::new(registry.with(Metrics::register));
    let health = Health::new();
    health.not_ready("edge", "only empties its spool");
    let admin = config.admin;
    let routing = Routing::new(no_rules()?, &Endpoints::new(), &config.system)?;
    let quarantine = quarantine::open(&config, &registry)?;
    let hooks = Hooks {
        quarantine: Some(quarantine.hook()),
        ..Hooks::default()
    };
    let edge = opes_edge::start(config, routing, metrics, hooks).await?;
    if let Some(address) = admin {
        serve_admin(address, registry, health).await?;
    }
    println!("ready");
    let left = edge.empty(patience, gone).await;
    let held = left.held + quarantine.held_here().await?;
    if left.messages == 0 && held == 0 {
        println!("empty");
        return Ok(ExitCode::SUCCESS);
    }
    println!("left {} messages to deliver, {held} held", left.messages);
    eprintln!(
        "opes: the spool is not empty: {} messages to deliver, {held} held\n  help: run it again, or with more time (--drain-timeout); release or delete what is held with `opes quarantine`",
        left.messages
    );
    Ok(ExitCode::FAILURE)
}
