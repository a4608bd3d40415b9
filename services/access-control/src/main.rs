//! `opes-access-control --policy FILE` or `--config FILE`: the access-control service as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use opes_access_control::AccessControl;
use opes_callout_server::{ListenOptions, run_on};
use opes_directory::Metrics;
use opes_telemetry::{Format, Health, Registry, init_logs, serve_admin};
use tokio::net::TcpListener;

/// Refuses clients, senders and recipients by a policy file (RFC 4496 §4.4), as an OPES callout service.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Policy in YAML; read again when it changes.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// YAML file with `policyFile` or a policy, and `lookups`: docs/services/access-control.md.
    #[arg(long, value_name = "FILE", conflicts_with = "policy")]
    config: Option<PathBuf>,
    #[command(flatten)]
    listen: ListenOptions,
    /// Serve /metrics, /healthz and /readyz here.
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<SocketAddr>,
    /// human or json.
    #[arg(long, default_value = "human")]
    log_format: Format,
    /// error, warn, info, debug, trace, or a filter.
    #[arg(long, default_value = "info")]
    log_level: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    init_logs(arguments.log_format, &arguments.log_level)?;
    let registry = Registry::new();
    let metrics = registry.with(Metrics::register);
    let service = match (arguments.policy, arguments.config) {
        (Some(policy), _) => AccessControl::from_policy_file(policy)?,
        (None, Some(config)) => AccessControl::from_config_file(&config, &metrics)?,
        (None, None) => anyhow::bail!("write --policy FILE or --config FILE"),
    };
    if let Some(address) = arguments.admin {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for --admin"))?;
        tokio::spawn(serve_admin(listener, registry, Health::new()));
    }
    run_on(service, &arguments.listen).await
}
