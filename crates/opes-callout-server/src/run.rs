//! A complete program around a service: `--listen`, readiness line, logs, SIGTERM.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{Listener, ServerConfig, Service, serve};

/// Where a service listens if it is not told: loopback, port named after RFC 4037.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:4037";

/// Runs `service` until SIGTERM or SIGINT, then drains: the body of a service's `main`.
///
/// Reads `--listen HOST:PORT` or `--listen unix:PATH` from the arguments, prints `listening on ADDRESS` once it can be
/// called, logs to standard error (`RUST_LOG` sets the level).
pub async fn run<S: Service>(service: S) -> anyhow::Result<()> {
    let Some(listen) = listen_argument(std::env::args().skip(1))? else {
        println!("{}", usage(&service.describe().product));
        return Ok(());
    };
    start_logs();
    run_on(service, &listen).await
}

/// As [`run`], for programs with arguments and logs of their own: serves on `listen` (`HOST:PORT` or `unix:PATH`) until
/// SIGTERM or SIGINT, then drains. Prints `listening on ADDRESS` once it can be called.
pub async fn run_on<S: Service>(service: S, listen: &str) -> anyhow::Result<()> {
    let listener = Listener::bind(listen).await?;
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

fn usage(product: &str) -> String {
    format!(
        "{product}: an OPES callout service (OCP/SMTP over gRPC)\n\n\
         Usage: --listen ADDRESS   HOST:PORT or unix:PATH; default {LISTEN_DEFAULT}"
    )
}

/// `None`: help was asked for.
fn listen_argument(arguments: impl Iterator<Item = String>) -> anyhow::Result<Option<String>> {
    let mut arguments = arguments;
    let mut listen = LISTEN_DEFAULT.to_owned();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--listen" => {
                listen = arguments
                    .next()
                    .context("--listen needs HOST:PORT or unix:PATH")?;
            }
            "--help" | "-h" => return Ok(None),
            other => match other.strip_prefix("--listen=") {
                Some(address) => address.clone_into(&mut listen),
                None => bail!("unknown argument {other}: only --listen ADDRESS is understood"),
            },
        }
    }
    Ok(Some(listen))
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

#[cfg(test)]
mod tests {
    use super::listen_argument;

    fn parse(arguments: &[&str]) -> anyhow::Result<Option<String>> {
        listen_argument(arguments.iter().map(|a| (*a).to_owned()))
    }

    #[test]
    fn both_spellings_and_the_default() {
        assert_eq!(parse(&[]).unwrap().as_deref(), Some(super::LISTEN_DEFAULT));
        assert_eq!(
            parse(&["--listen", "unix:/run/a"]).unwrap().as_deref(),
            Some("unix:/run/a")
        );
        assert_eq!(
            parse(&["--listen=[::1]:0"]).unwrap().as_deref(),
            Some("[::1]:0")
        );
        assert_eq!(parse(&["--help"]).unwrap(), None);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert!(
            parse(&["--port", "1"])
                .unwrap_err()
                .to_string()
                .contains("--port")
        );
        assert!(
            parse(&["--listen"])
                .unwrap_err()
                .to_string()
                .contains("HOST:PORT")
        );
    }
}
