//! The edge's configuration: one YAML file, every key with a default that is safe on the open Internet.
//!
//! Unknown keys are refused. Durations are `30s`, `5m`; sizes `64Ki`, `30Mi` or plain octets.

mod check;
mod delivery;
mod incidents;
mod listener;
mod quarantine;
mod routing;
mod units;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use units::{duration, octets};

pub use delivery::{BounceSenders, BouncesConfig, DeliveryConfig, NotificationsConfig};
pub use incidents::{IncidentsConfig, WebhookConfig};
pub use listener::{Acceptance, ListenerConfig, ListenerProtocol, MixedVerdicts, TlsConfig};
pub use quarantine::{ApiConfig, PostgresConfig, QuarantineConfig, S3Config};
pub use routing::RoutingConfig;
pub use units::{parse_duration, parse_octets};

/// Everything an edge is started with.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EdgeConfig {
    /// Name in the greeting, in `Received` and in our EHLO.
    pub hostname: String,
    /// Absolute URI of the OPES system (RFC 3897 §3.2). Not set: `https://HOSTNAME/opes`.
    #[serde(default)]
    pub system: String,
    /// Who may ask for services to be left out (RFC 3897 §4). Not set: nobody, and nothing is offered.
    #[serde(default)]
    pub bypass: Option<BypassConfig>,
    /// Where clients come in.
    pub listeners: Vec<ListenerConfig>,
    /// Recipient domains that anybody may send to. Empty: only authenticated clients and `relayNetworks` may send.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Client networks that may send to any recipient without AUTH. Empty by default.
    #[serde(default)]
    pub relay_networks: Vec<IpNet>,
    /// Folder of the spool.
    pub spool: PathBuf,
    /// The folder outlives the machine or pod. If not, nothing is answered 250 on the strength of it.
    #[serde(default = "yes")]
    pub spool_durable: bool,
    /// Where accepted mail goes.
    pub delivery: DeliveryConfig,
    /// Who is told of mail that cannot be delivered.
    #[serde(default)]
    pub bounces: BouncesConfig,
    /// What services may have us write to people.
    #[serde(default)]
    pub notifications: NotificationsConfig,
    /// Where services' reports of incidents go besides the log.
    #[serde(default)]
    pub incidents: IncidentsConfig,
    /// Folder with `OpesRule` and `CalloutService` objects. None: no rules, or those of `routing`.
    #[serde(default)]
    pub rules: Option<PathBuf>,
    /// The operator that rules come from, in place of `rules`.
    #[serde(default)]
    pub routing: Option<RoutingConfig>,
    /// What we show to callout services that want TLS, and whom we believe. None: such services are refused.
    #[serde(default)]
    pub callouts: Option<CalloutsConfig>,
    /// Octets of mail data that all sessions together may hold in memory.
    #[serde(default = "default_memory_budget", deserialize_with = "octets")]
    pub memory_budget: u64,
    /// Octets of one message that stay in memory; the rest goes to an unlinked file.
    #[serde(default = "default_memory_per_message", deserialize_with = "octets")]
    pub memory_per_message: u64,
    /// `/metrics`, `/healthz`, `/readyz`.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
    /// Sessions open at once; one more is answered 421.
    #[serde(default = "default_sessions_max")]
    pub sessions_max: usize,
    /// Held messages.
    #[serde(default)]
    pub quarantine: QuarantineConfig,
    /// From the last octet of a message to our reply: what callouts get at most, all together. A message that is not stored by then is
    /// not accepted. Clients wait ten minutes (RFC 5321 §4.5.3.2.6), and those that give up send again what we have.
    #[serde(default = "default_decision", deserialize_with = "duration")]
    pub decision_timeout: Duration,
    /// After SIGTERM: how long connections are taken as before, though not ready, until balancers know.
    #[serde(default, deserialize_with = "duration")]
    pub drain_delay: Duration,
    /// How long running sessions and deliveries get at shutdown.
    #[serde(default = "default_drain", deserialize_with = "duration")]
    pub drain_timeout: Duration,
}

/// Clients whose bypass requests count. Each needs a service that may be bypassed, too.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BypassConfig {
    /// Identities as used with AUTH; `*` = everybody who has authenticated.
    #[serde(default)]
    pub identities: Vec<String>,
    /// Networks of clients that need no AUTH for it.
    #[serde(default)]
    pub networks: Vec<IpNet>,
}

/// Mutual TLS with callout services: PEM files, read again when they change.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CalloutsConfig {
    /// Certificate chain that services are shown, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities that the certificates of services must come from.
    pub ca: PathBuf,
}

/// Why a configuration cannot be used. Names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such file, or no right to read it.
    #[error(
        "cannot read {path}: {source}\n  help: give the path of an edge configuration file (see docs/operate/edge-config.md)"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not YAML, or not the keys that an edge knows.
    #[error("{path}: {message}\n  help: every key is described in docs/operate/edge-config.md")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Place and cause.
        message: String,
    },
    /// A value that does not fit the others.
    #[error("{path}: {field}: {message}\n  help: {remedy}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, as a path.
        field: String,
        /// What is wrong with it.
        message: String,
        /// What to write instead.
        remedy: &'static str,
    },
}

// === impl EdgeConfig ===

impl EdgeConfig {
    /// A configuration with every default, still without listeners and delivery.
    pub fn new(hostname: &str, spool: PathBuf) -> Self {
        Self {
            hostname: hostname.into(),
            system: default_system(hostname),
            bypass: None,
            listeners: Vec::new(),
            domains: Vec::new(),
            relay_networks: Vec::new(),
            spool,
            spool_durable: true,
            delivery: DeliveryConfig::default(),
            bounces: BouncesConfig::default(),
            notifications: NotificationsConfig::default(),
            incidents: IncidentsConfig::default(),
            rules: None,
            routing: None,
            callouts: None,
            memory_budget: default_memory_budget(),
            memory_per_message: default_memory_per_message(),
            admin: None,
            sessions_max: default_sessions_max(),
            quarantine: QuarantineConfig::default(),
            decision_timeout: default_decision(),
            drain_delay: Duration::ZERO,
            drain_timeout: default_drain(),
        }
    }

    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.into(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Parses and checks `text`; `path` only names it in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Syntax {
                path: path.into(),
                message: error.to_string(),
            })?;
        if config.system.is_empty() {
            config.system = default_system(&config.hostname);
        }
        config.check(path)?;
        Ok(config)
    }
}

/// As unique as the host name, which is on every message anyway.
fn default_system(hostname: &str) -> String {
    format!("https://{hostname}/opes")
}

fn default_memory_budget() -> u64 {
    64 << 20
}

fn default_memory_per_message() -> u64 {
    64 << 10
}

fn default_sessions_max() -> usize {
    1000
}

fn default_decision() -> Duration {
    Duration::from_mins(4)
}

fn default_drain() -> Duration {
    Duration::from_secs(30)
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
