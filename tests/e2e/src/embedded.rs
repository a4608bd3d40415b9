//! An edge inside the test's own process: its configuration is a value, its reports can be read, its services are the test's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow};
use opes_callout_server::{Listener, ServerConfig, Service, serve};
use opes_edge::config::EdgeConfig;
use opes_edge::report::MessageReport;
use opes_edge::{EdgeHandle, Endpoints, Hooks, Metrics, Routing};
use opes_telemetry::Registry;
use tokio_util::sync::CancellationToken;

/// See the module. Its tasks end with the test's runtime.
pub struct Embedded {
    handle: EdgeHandle,
    system: String,
    reports: Arc<Mutex<Vec<MessageReport>>>,
}

impl Embedded {
    /// Starts it with the objects of `rules`, a YAML text; empty: no rules.
    pub async fn start(config: EdgeConfig, rules: &str) -> Result<Self> {
        let reports = Arc::<Mutex<Vec<MessageReport>>>::default();
        let kept = Arc::clone(&reports);
        let hooks = Hooks {
            reporter: Some(Arc::new(move |report| {
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(report.clone());
            })),
            ..Hooks::default()
        };
        let metrics = Arc::new(Registry::new().with(Metrics::register));
        let system = config.system.clone();
        let routing = routing(rules, &system)?;
        let handle = opes_edge::start(config, routing, metrics, hooks).await?;
        Ok(Self {
            handle,
            system,
            reports,
        })
    }

    /// Puts other objects in force, as a change of the rules folder does.
    pub fn replace_rules(&self, rules: &str) -> Result<()> {
        self.handle.replace_routing(routing(rules, &self.system)?);
        Ok(())
    }

    /// Address of the listener `name`.
    pub fn address(&self, name: &str) -> Result<SocketAddr> {
        let found = self
            .handle
            .addresses()
            .iter()
            .find(|(listener, _)| listener == name);
        found
            .map(|(_, address)| *address)
            .with_context(|| format!("no listener `{name}`"))
    }

    /// Everything reported so far.
    pub fn reports(&self) -> Vec<MessageReport> {
        self.reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Messages that were answered 250 so far.
    pub fn accepted(&self) -> usize {
        self.reports()
            .iter()
            .filter(|report| !report.is_refused())
            .count()
    }

    /// Ends it as SIGTERM does.
    pub async fn drain(self) {
        self.handle.drain().await;
    }
}

fn routing(rules: &str, system: &str) -> Result<Routing> {
    let (objects, mut wrong) = opes_rules::parse("rules of the test", rules);
    let table = if wrong.is_empty() {
        opes_rules::compile(objects)
    } else {
        Err(std::mem::take(&mut wrong))
    };
    let table = table.map_err(|wrong| {
        anyhow!(
            "{}",
            wrong
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        )
    })?;
    Ok(Routing::new(table, &Endpoints::new(), system)?)
}

/// Serves a service of the test's own on a free port; returns `http://HOST:PORT`.
pub async fn service(service: impl Service) -> Result<String> {
    let listener = Listener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.address());
    tokio::spawn(serve(
        Arc::new(service),
        listener,
        ServerConfig::default(),
        CancellationToken::new(),
    ));
    Ok(address)
}
