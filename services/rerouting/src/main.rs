//! `opes-rerouting --map FILE` or `--config FILE`: the rerouting service as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use opes_callout_server::{ListenOptions, run_on};
use opes_directory::Metrics;
use opes_rerouting::Rerouting;
use opes_telemetry::{Format, Health, Registry, init_logs, serve_admin};
use tokio::net::TcpListener;

/// Rewrites recipients, or sends them to another server, by a map or a directory (RFC 4496 §4.7), as an OPES callout service.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Lines `address  new-address|host:port[/lmtp]`, or YAML if it ends in .yaml; read again when it changes.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// YAML file with the fields of docs/services/rerouting.md, in place of --map.
    #[arg(long, value_name = "FILE", conflicts_with = "map")]
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
    let service = match (arguments.map, arguments.config) {
        (Some(map), _) => Rerouting::from_map_file(map)?,
        (None, Some(config)) => Rerouting::from_config_file(&config, metrics)?,
        (None, None) => anyhow::bail!("write --map FILE or --config FILE"),
    };
    if let Some(address) = arguments.admin {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for --admin"))?;
        tokio::spawn(serve_admin(listener, registry, Health::new()));
    }
    run_on(service, &arguments.listen).await
}
