//! The built-in callout services: started inside `opes dev`, or alone with `opes service NAME`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use opes_access_control::AccessControl;
use opes_attachment_links::AttachmentLinks;
use opes_callout_server::{ServerConfig, run_on, serve as serve_on};
use opes_content_block::ContentBlock;
use opes_milter_bridge::MilterBridge;
use opes_mta_hooks::MtaHooks;
use opes_normalizer::Normalizer;
use opes_reporting::Reporting;
use opes_rerouting::Rerouting;
use opes_rules::{RoutingTable, Target};
use opes_secure_mail::SecureMail;
use opes_security_filter::SecurityFilter;
use opes_spam_filter::SpamFilter;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::{BuiltinName, ServiceArgs};
use crate::report;

/// What to do with the service of a kind; each is a type of its own. What it keeps on disk is below the folder, unless its path is absolute.
macro_rules! with_service {
    ($kind:expr, $config:expr, $folder:expr, $service:ident => $body:expr) => {
        match $kind {
            BuiltinName::AccessControl => {
                let $service = AccessControl::from_config($config)?;
                $body
            }
            BuiltinName::AttachmentLinks => {
                let $service = AttachmentLinks::from_config_in($folder, $config)?;
                $body
            }
            BuiltinName::ContentBlock => {
                let $service = ContentBlock::from_config($config)?;
                $body
            }
            BuiltinName::MilterBridge => {
                let $service = MilterBridge::from_config($config)?;
                $body
            }
            BuiltinName::MtaHooks => {
                let $service = MtaHooks::from_config($config)?;
                $body
            }
            BuiltinName::Normalizer => {
                let $service = Normalizer::from_config($config)?;
                $body
            }
            BuiltinName::Reporting => {
                let $service = Reporting::from_config($config)?;
                $body
            }
            BuiltinName::Rerouting => {
                let $service = Rerouting::from_config($config)?;
                $body
            }
            BuiltinName::SecureMail => {
                let $service = SecureMail::from_config_in($folder, $config)?;
                $body
            }
            BuiltinName::SecurityFilter => {
                let $service = SecurityFilter::from_config($config)?;
                $body
            }
            BuiltinName::SpamFilter => {
                let $service = SpamFilter::from_config($config)?;
                $body
            }
        }
    };
}

/// `opes service NAME`.
pub(crate) async fn run(args: ServiceArgs) -> Result<ExitCode> {
    let config = match &args.config {
        Some(path) => read(path)?,
        None => Value::Object(serde_json::Map::new()),
    };
    with_service!(args.name, &config, Path::new(""), service => run_on(service, &args.listen).await?);
    Ok(ExitCode::SUCCESS)
}

/// The built-in services that a table names, each on a port of its own.
#[derive(Debug)]
pub(crate) struct Builtins {
    /// What they keep on disk is below it.
    folder: PathBuf,
    running: BTreeMap<String, Arc<Running>>,
}

/// Drained and ended when dropped.
#[derive(Debug)]
struct Running {
    kind: BuiltinName,
    config: Value,
    target: String,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

// === impl Builtins ===

impl Builtins {
    /// None yet.
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            running: BTreeMap::new(),
        }
    }

    /// Told to go, and waited for: what they still have to write is written.
    pub(crate) async fn finish(self) {
        for service in self.running.values() {
            service.stop.cancel();
        }
        for service in self.running.into_values() {
            if let Some(task) = service.task.lock().await.take()
                && let Err(error) = task.await
            {
                tracing::error!(%error, "a service has failed");
            }
        }
    }

    /// The services of this table: those that run already as they should, and new ones. An error leaves `self` as it was
    /// and ends the new ones.
    pub(crate) async fn for_table(&self, table: &RoutingTable) -> Result<Self> {
        let mut running = BTreeMap::new();
        for (name, service) in &table.services {
            if let Target::Builtin {
                name: builtin,
                config,
            } = &service.target
            {
                let context = || format!("CalloutService {name}");
                let service = self.one(name, builtin, config).await;
                running.insert(name.clone(), service.with_context(context)?);
            }
        }
        Ok(Self {
            folder: self.folder.clone(),
            running,
        })
    }

    /// Their addresses by the name of the `CalloutService`.
    pub(crate) fn endpoints(&self) -> opes_edge::Endpoints {
        let each = self.running.iter();
        each.map(|(name, service)| (name.clone(), vec![service.target.clone()].into()))
            .collect()
    }

    /// The file that `opes report` reads, if one of them keeps reports in a file.
    pub(crate) fn reports(&self) -> Option<&str> {
        let mut services = self.running.values();
        let reporting = services.find(|service| service.kind == BuiltinName::Reporting)?;
        reporting.config.get("database")?.get("sqlite")?.as_str()
    }

    async fn one(&self, name: &str, builtin: &str, config: &Value) -> Result<Arc<Running>> {
        let kind = BuiltinName::parse(builtin).with_context(|| {
            let names = BuiltinName::names();
            format!("there is no built-in service `{builtin}`\n  help: one of {names}")
        })?;
        let config = &self.with_place(kind, config);
        let as_before = |service: &&Arc<Running>| service.kind == kind && service.config == *config;
        if let Some(service) = self.running.get(name).filter(as_before) {
            return Ok(Arc::clone(service));
        }
        check(kind, config, &self.folder).context("spec.builtin.config")?;
        let started = Running::start(name, kind, config, &self.folder).await;
        started.map(Arc::new)
    }

    /// `config` with a place below our folder where it names none.
    fn with_place(&self, kind: BuiltinName, config: &Value) -> Value {
        let mut config = config.clone();
        if kind == BuiltinName::Reporting
            && let Value::Object(fields) = &mut config
            && !fields.contains_key("database")
        {
            let file = self.folder.join(report::FILE);
            fields.insert("database".into(), serde_json::json!({ "sqlite": file }));
        }
        config
    }
}

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Running {
    async fn start(name: &str, kind: BuiltinName, config: &Value, folder: &Path) -> Result<Self> {
        let listener = opes_callout_server::Listener::bind("127.0.0.1:0").await?;
        let target = format!("http://{listener}");
        let stop = CancellationToken::new();
        let (serving, token, name) = (config.clone(), stop.clone(), name.to_owned());
        let folder = folder.to_owned();
        let task = tokio::spawn(async move {
            if let Err(error) = serve(kind, &serving, &folder, listener, token).await {
                let error = format!("{error:#}");
                tracing::error!(service = name, error, "service ended");
            }
        });
        Ok(Self {
            kind,
            config: config.clone(),
            target,
            stop,
            task: Mutex::new(Some(task)),
        })
    }
}

fn check(kind: BuiltinName, config: &Value, folder: &Path) -> Result<()> {
    with_service!(kind, config, folder, service => drop(service));
    Ok(())
}

async fn serve(
    kind: BuiltinName,
    config: &Value,
    folder: &Path,
    listener: opes_callout_server::Listener,
    stop: CancellationToken,
) -> Result<()> {
    let server = ServerConfig::default();
    with_service!(kind, config, folder, service => serve_on(service.into(), listener, server, stop).await)
}

fn read(path: &Path) -> Result<Value> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))
}
