//! A complete program around a service: `--listen`, readiness line, logs, SIGTERM.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{ListenOptions, ServerConfig, Service, serve};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    listen: ListenOptions,
}

/// Runs `service` until SIGTERM or SIGINT, then drains: the body of a service's `main`.
///
/// Reads [`ListenOptions`] from the arguments (`--help` lists them), prints `listening on ADDRESS` once it can be called,
/// logs to standard error (`RUST_LOG` sets the level).
pub async fn run<S: Service>(service: S) -> anyhow::Result<()> {
    let about = format!(
        "{}: an OPES callout service (OCP/SMTP over gRPC)",
        service.describe().product
    );
    let matches = Arguments::command().about(about).get_matches();
    let arguments = Arguments::from_arg_matches(&matches)?;
    start_logs();
    run_on(service, &arguments.listen).await
}

/// As [`run`], for programs with arguments and logs of their own: serves until SIGTERM or SIGINT, then drains. Prints
/// `listening on ADDRESS` once it can be called.
pub async fn run_on<S: Service>(service: S, listen: &ListenOptions) -> anyhow::Result<()> {
    let listener = listen.bind().await?;
    // Handlers before the readiness line: whoever waits for the line may send a signal at once.
    let shutdown = shutdown_on_signal()?;
    println!("listening on {listener}");
    std::io::stdout()
        .flush()
        .context("cannot write the readiness line")?;
    serve(
        Arc::new(service),
        listener,
        ServerConfig::default(),
        shutdown,
    )
    .await
}

fn start_logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A program that has set up its own logs keeps them.
    let _already_set = logs.try_init();
}

/// A token that is cancelled by SIGTERM or SIGINT. Call it before anything says that the program is ready.
pub fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to go: finishing what is running");
        token.cancel();
    });
    Ok(shutdown)
}
