//! The built-in callout services: started inside `opes dev`, or alone with `opes service NAME`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use opes_access_control::AccessControl;
use opes_callout_server::{ServerConfig, run_on, serve as serve_on};
use opes_rerouting::Rerouting;
use opes_rules::{RoutingTable, Target};
use opes_security_filter::SecurityFilter;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cli::{BuiltinName, ServiceArgs};

/// `opes service NAME`.
pub(crate) async fn run(args: ServiceArgs) -> Result<ExitCode> {
    let config = match &args.config {
        Some(path) => read(path)?,
        None => Value::Object(serde_json::Map::new()),
    };
    match args.name {
        BuiltinName::AccessControl => {
            run_on(AccessControl::from_config(&config)?, &args.listen).await?;
        }
        BuiltinName::Rerouting => run_on(Rerouting::from_config(&config)?, &args.listen).await?,
        BuiltinName::SecurityFilter => {
            run_on(SecurityFilter::from_config(&config)?, &args.listen).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts every service of the table that is built in, each on a port of its own. Returns their addresses by the name of the
/// `CalloutService`.
pub(crate) async fn start_all(
    table: &RoutingTable,
    stop: &CancellationToken,
) -> Result<opes_edge::Endpoints> {
    let mut endpoints = opes_edge::Endpoints::new();
    for (name, service) in &table.services {
        let Target::Builtin {
            name: builtin,
            config,
        } = &service.target
        else {
            continue;
        };
        let kind = BuiltinName::parse(builtin).with_context(|| {
            format!("CalloutService {name}: there is no built-in service `{builtin}`\n  help: one of {}", BuiltinName::names())
        })?;
        let listener = opes_callout_server::Listener::bind("127.0.0.1:0").await?;
        endpoints.insert(name.clone(), format!("http://{listener}"));
        let (config, stop, name) = (config.clone(), stop.clone(), name.clone());
        check(kind, &config)
            .with_context(|| format!("CalloutService {name}: spec.builtin.config"))?;
        tokio::spawn(async move {
            if let Err(error) = serve(kind, &config, listener, stop).await {
                tracing::error!(
                    service = name,
                    error = format!("{error:#}"),
                    "service ended"
                );
            }
        });
    }
    Ok(endpoints)
}

fn check(kind: BuiltinName, config: &Value) -> Result<()> {
    match kind {
        BuiltinName::AccessControl => AccessControl::from_config(config).map(drop),
        BuiltinName::Rerouting => Rerouting::from_config(config).map(drop),
        BuiltinName::SecurityFilter => SecurityFilter::from_config(config).map(drop),
    }
}

async fn serve(
    kind: BuiltinName,
    config: &Value,
    listener: opes_callout_server::Listener,
    stop: CancellationToken,
) -> Result<()> {
    let server = ServerConfig::default();
    match kind {
        BuiltinName::AccessControl => {
            serve_on(
                AccessControl::from_config(config)?.into(),
                listener,
                server,
                stop,
            )
            .await
        }
        BuiltinName::Rerouting => {
            serve_on(
                Rerouting::from_config(config)?.into(),
                listener,
                server,
                stop,
            )
            .await
        }
        BuiltinName::SecurityFilter => {
            serve_on(
                SecurityFilter::from_config(config)?.into(),
                listener,
                server,
                stop,
            )
            .await
        }
    }
}

fn read(path: &Path) -> Result<Value> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))
}
