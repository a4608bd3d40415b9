//! `opes-operator --config FILE`: see `docs/operate/operator-config.md`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use opes_operator::config::{Config, Identity};
use opes_telemetry::{Format, init_logs};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compiles rules, serves them to edges and runs pools of callout services in a Kubernetes cluster.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// YAML file with the fields of docs/operate/operator-config.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// human or json.
    #[arg(long, default_value = "human")]
    log_format: Format,
    /// error, warn, info, debug, trace, or a filter.
    #[arg(long, alias = "log", default_value = "info")]
    log_level: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    init_logs(arguments.log_format, &arguments.log_level)?;
    // It fails if there is one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = Config::read(&arguments.config)?;
    let identity = Identity::from_env()?;
    let client = kube::Client::try_default()
        .await
        .context("no way to the API server: neither a service account nor a kubeconfig")?;
    let shutdown = CancellationToken::new();
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        token.cancel();
    });
    opes_operator::run::run(config, identity, client, shutdown).await
}
