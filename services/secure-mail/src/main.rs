//! `opes-secure-mail --config FILE`: signed and encrypted mail, as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use opes_callout_server::{ListenOptions, run_on};
use opes_secure_mail::SecureMail;
use opes_telemetry::{Format, Health, Registry, init_logs, serve_admin};
use tokio::net::TcpListener;

/// Signs, verifies, encrypts and decrypts mail (RFC 4496 §4.5), as an OPES callout service.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// YAML file with the fields of docs/services/secure-mail.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
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
    let place = || arguments.config.display().to_string();
    let text = std::fs::read_to_string(&arguments.config).with_context(place)?;
    let config = serde_saphyr::from_str(&text).with_context(place)?;
    let service = SecureMail::from_config(&config)?;
    if let Some(address) = arguments.admin {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for --admin"))?;
        tokio::spawn(serve_admin(listener, Registry::new(), Health::new()));
    }
    run_on(service, &arguments.listen).await
}
