//! `opes-attachment-links --config FILE --web HOST:PORT`: attachments become links, as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use opes_attachment_links::AttachmentLinks;
use opes_callout_server::{ListenOptions, run_on};
use opes_telemetry::{Format, Health, Registry, init_logs, serve_admin};
use tokio::net::TcpListener;

/// Moves large attachments to a store and puts links in their place (RFC 4496 §4.9), as an OPES callout service.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// YAML file with the fields of docs/services/attachment-links.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    listen: ListenOptions,
    /// Serve the files here, in place of the configuration's `web`.
    #[arg(long, value_name = "HOST:PORT")]
    web: Option<SocketAddr>,
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
    let place = || arguments.config.display().to_string();
    let text = std::fs::read_to_string(&arguments.config).with_context(place)?;
    let config = serde_saphyr::from_str(&text).with_context(place)?;
    let mut service = AttachmentLinks::from_config(&config)?;
    if let Some(address) = arguments.web.or(service.web()) {
        service = service.serving_on(bind(address, "web").await?);
    }
    if let Some(address) = arguments.admin {
        let listener = bind(address, "admin").await?;
        let registry = Registry::new();
        registry.with(|inner| service.register(inner));
        tokio::spawn(serve_admin(listener, registry, Health::new()));
    }
    run_on(service, &arguments.listen).await
}

async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address} for --{what}"))
}
