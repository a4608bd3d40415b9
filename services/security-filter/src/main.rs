//! The security filter as a program of its own: `opes-security-filter --config FILE --listen ADDRESS`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use opes_security_filter::SecurityFilter;
use opes_telemetry::{Format, Health, Registry, init_logs, serve_admin};
use tokio::net::TcpListener;

/// OPES callout service: attachment policy by detected type, name and nesting (RFC 4496 §4.1).
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// YAML file with the fields of docs/services/security-filter.md; without it, the defaults, which block executables.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    listen: opes_callout_server::ListenOptions,
    /// Serve /metrics, /healthz and /readyz here.
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<SocketAddr>,
    /// human or json.
    #[arg(long, default_value = "human")]
    log_format: Format,
    /// Level or filter, such as debug or info,opes_security_filter=debug.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    init_logs(arguments.log_format, &arguments.log_level)?;
    let filter = SecurityFilter::from_config(&read_config(arguments.config)?)?;
    if let Some(address) = arguments.admin {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for --admin"))?;
        tokio::spawn(serve_admin(listener, Registry::new(), Health::new()));
    }
    opes_callout_server::run_on(filter, &arguments.listen).await
}

fn read_config(path: Option<PathBuf>) -> anyhow::Result<serde_json::Value> {
    let Some(path) = path else {
        return Ok(serde_json::Value::Null);
    };
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))
}
