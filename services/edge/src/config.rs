//! The edge's configuration: one YAML file, every key with a default that is safe on the open Internet.
//!
//! Unknown keys are refused. Durations are `30s`, `5m`; sizes `64Ki`, `30Mi` or plain octets.

mod incidents;
mod quarantine;
mod routing;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use opes_smtp::limits::{ERRORS_MAX_DEFAULT, IDLE_COMMANDS_MAX_DEFAULT};
use opes_trace::AgentUri;
use serde::{Deserialize, Deserializer, de::Error as _};

pub use incidents::{IncidentsConfig, WebhookConfig};
pub use quarantine::{ApiConfig, PostgresConfig, QuarantineConfig, S3Config};
pub use routing::RoutingConfig;

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

/// One listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent keys, each on or off"
)]
pub struct ListenerConfig {
    /// Name that rules match on.
    pub name: String,
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Dialect.
    #[serde(default)]
    pub protocol: ListenerProtocol,
    /// What happens where some recipients are to get a message and others not, and one reply is owed for all.
    #[serde(default)]
    pub mixed_verdicts: MixedVerdicts,
    /// What 250 after the end of data stands for.
    #[serde(default)]
    pub delivery: Acceptance,
    /// Certificate for STARTTLS or implicit TLS. None: no TLS.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// File of `name:argon2-hash` lines for AUTH. None: AUTH is not offered.
    #[serde(default)]
    pub users: Option<PathBuf>,
    /// Peers that speak the PROXY protocol on this listener. Empty: the protocol is off. Not empty: others are refused.
    #[serde(default)]
    pub proxy_from: Vec<IpNet>,
    /// Largest message in octets (RFC 1870).
    #[serde(default = "default_size_max", deserialize_with = "octets")]
    pub size_max: u64,
    /// Most recipients of a transaction (RFC 5321 §4.5.3.1.8 asks for 100 at least).
    #[serde(default = "default_recipients_max")]
    pub recipients_max: usize,
    /// No mail without TLS (RFC 3207 §4); needs `tls`.
    #[serde(default)]
    pub require_tls: bool,
    /// Offer PRDR (draft-hall-prdr-00). Without effect with `lmtp`.
    #[serde(default = "yes")]
    pub prdr: bool,
    /// Offer SMTPUTF8 (RFC 6531).
    #[serde(default = "yes")]
    pub smtputf8: bool,
    /// Offer CHUNKING (RFC 3030).
    #[serde(default = "yes")]
    pub chunking: bool,
    /// Offer DSN (RFC 3461).
    #[serde(default)]
    pub dsn: bool,
    /// Protocol errors of one session before 421 (RFC 5321 §4.3.2).
    #[serde(default = "default_errors_max")]
    pub errors_max: u32,
    /// Commands between two messages that bring no mail forward, before 421.
    #[serde(default = "default_idle_commands_max")]
    pub idle_commands_max: u32,
    /// How long a client may be silent (RFC 5321 §4.5.3.2.7: at least 5 minutes).
    #[serde(default = "default_client_timeout", deserialize_with = "duration")]
    pub client_timeout: Duration,
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

/// Dialect of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ListenerProtocol {
    /// RFC 5321.
    #[default]
    Smtp,
    /// RFC 6409: AUTH is required, any recipient is accepted afterwards.
    Submission,
    /// RFC 2033.
    Lmtp,
}

/// What 250 after the end of data stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Acceptance {
    /// The message is durable in the spool.
    #[default]
    Spool,
    /// The next hop has said 250; nothing is spooled.
    CutThrough,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            maildir: None,
            next_hop: None,
            lmtp: false,
            connections_max: default_connections_max(),
        }
    }
}

/// PEM files, read again when they change.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// TLS from the first octet on (RFC 8314 §3), in place of STARTTLS.
    #[serde(default)]
    pub implicit: bool,
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

/// Where accepted mail goes. Exactly one of the two.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliveryConfig {
    /// Folder: `DOMAIN/LOCAL-PART/{new,cur,tmp}` per recipient.
    #[serde(default)]
    pub maildir: Option<PathBuf>,
    /// `HOST:PORT` of a fixed next hop.
    #[serde(default)]
    pub next_hop: Option<String>,
    /// Speak LMTP with the next hop.
    #[serde(default)]
    pub lmtp: bool,
    /// Connections to the next hop.
    #[serde(default = "default_connections_max")]
    pub connections_max: usize,
}

/// Who is told of mail that cannot be delivered (RFC 5321 §6.1).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BouncesConfig {
    /// Which senders get delivery reports.
    pub senders: BounceSenders,
    /// Gets our own reports that cannot be delivered. None: they are logged and counted.
    pub postmaster: Option<String>,
}

/// Which senders get delivery reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BounceSenders {
    /// All.
    #[default]
    All,
    /// Who sent with AUTH, and addresses of `domains`.
    Known,
    /// None.
    None,
}

/// Notifications that services ask for.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NotificationsConfig {
    /// Gets those for the administrator. None: they are dropped and counted.
    pub administrator: Option<String>,
    /// Most to one address in an hour; 0 = none.
    pub per_recipient_per_hour: u32,
    /// Most that one rule may cause in an hour; 0 = none.
    pub per_rule_per_hour: u32,
}

impl Default for NotificationsConfig {
    fn default() -> Self {
        Self {
            administrator: None,
            per_recipient_per_hour: 6,
            per_rule_per_hour: 100,
        }
    }
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

    /// The key of an address of people that is none.
    fn broken_address(&self) -> Option<&'static str> {
        let addresses = [
            ("bounces.postmaster", &self.bounces.postmaster),
            (
                "notifications.administrator",
                &self.notifications.administrator,
            ),
        ];
        let broken =
            |address: &Option<String>| address.as_deref().is_some_and(|text| !is_mailbox(text));
        addresses
            .into_iter()
            .find(|(_, address)| broken(address))
            .map(|(key, _)| key)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let value = |field: &str, message: &str, remedy| ConfigError::Value {
            path: path.into(),
            field: field.into(),
            message: message.into(),
            remedy,
        };
        self.check_system().map_err(|message| {
            value(
                "system",
                &message,
                "write an absolute URI that is this installation's alone, such as `https://mail.example.com/opes`",
            )
        })?;
        if self.listeners.is_empty() {
            return Err(value("listeners", "is empty", "name at least one listener"));
        }
        if self.delivery.maildir.is_some() == self.delivery.next_hop.is_some() {
            return Err(value(
                "delivery",
                "needs exactly one of `maildir` and `nextHop`",
                "write `delivery: { nextHop: \"HOST:PORT\" }` or `delivery: { maildir: DIR }`",
            ));
        }
        if let Some(field) = self.broken_address() {
            return Err(value(
                field,
                "is not an address",
                "write LOCAL-PART@DOMAIN, for example postmaster@example.com",
            ));
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            if self
                .listeners
                .iter()
                .take(index)
                .any(|earlier| earlier.name == listener.name)
            {
                return Err(value(
                    &format!("listeners[{index}].name"),
                    &format!("`{}` is used twice", listener.name),
                    "rules match listeners by name: give each its own",
                ));
            }
            if listener.delivery == Acceptance::CutThrough && self.delivery.maildir.is_some() {
                return Err(value(
                    &format!("listeners[{index}].delivery"),
                    "cutThrough needs a next hop",
                    "set `delivery.nextHop`, or leave this listener at `delivery: spool`",
                ));
            }
            if !self.spool_durable && listener.delivery == Acceptance::Spool {
                return Err(value(
                    &format!("listeners[{index}].delivery"),
                    "`spool` promises what a spool that is not durable cannot keep",
                    "write `delivery: cutThrough`, or give the spool a volume that stays and leave `spoolDurable` out",
                ));
            }
            listener.check().map_err(|(key, message, remedy)| {
                value(&format!("listeners[{index}].{key}"), message, remedy)
            })?;
        }
        if let Some(routing) = &self.routing {
            routing.check(path, self)?;
        }
        if let Some(webhook) = &self.incidents.webhook {
            webhook.check(path)?;
        }
        self.quarantine.check(path)
    }
}

// === impl EdgeConfig ===

impl EdgeConfig {
    /// A name that others may have too is worse than none (R3897-7); without rules nothing is named.
    fn check_system(&self) -> Result<(), String> {
        let system = AgentUri::system(&self.system)
            .and_then(|system| system.child(&["processor", &self.hostname]));
        match system {
            Err(error) => Err(format!("`{}` {error}", self.system)),
            Ok(_) if self.is_system_ambiguous() => Err(format!(
                "is made from the hostname `{}`, which is not a full domain name",
                self.hostname
            )),
            Ok(_) => Ok(()),
        }
    }

    fn is_system_ambiguous(&self) -> bool {
        (self.rules.is_some() || self.routing.is_some())
            && !self.hostname.contains('.')
            && self.system == default_system(&self.hostname)
    }
}

impl ListenerConfig {
    /// A listener with every default.
    pub fn new(name: &str, address: SocketAddr, protocol: ListenerProtocol) -> Self {
        Self {
            name: name.into(),
            address,
            protocol,
            mixed_verdicts: MixedVerdicts::Split,
            delivery: Acceptance::Spool,
            tls: None,
            users: None,
            proxy_from: Vec::new(),
            size_max: default_size_max(),
            recipients_max: default_recipients_max(),
            require_tls: false,
            prdr: yes(),
            smtputf8: yes(),
            chunking: yes(),
            dsn: false,
            errors_max: default_errors_max(),
            idle_commands_max: default_idle_commands_max(),
            client_timeout: default_client_timeout(),
        }
    }
}

/// Some recipients are to get a message, others not, and the client takes one reply for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MixedVerdicts {
    /// Ask the client for transactions of their own: 452 at RCPT where the rules tell them apart before the data, else 451 after it and
    /// 452 when it comes again.
    #[default]
    Split,
    /// Nobody gets it; the refusal is the reply.
    RejectAll,
    /// Everybody is answered 250, and those who were refused are held in the quarantine.
    QuarantineRejected,
}

fn is_mailbox(text: &str) -> bool {
    text.is_ascii() && opes_smtp::grammar::Mailbox::parse(text).is_some()
}

// === impl ListenerConfig ===

impl ListenerConfig {
    /// What does not fit its other keys: key, message, remedy.
    fn check(&self) -> Result<(), (&'static str, &'static str, &'static str)> {
        if self.require_tls && self.tls.is_none() {
            return Err((
                "requireTls",
                "nobody could ever send mail: the listener has no certificate",
                "set `tls: { certificate: FILE, key: FILE }`, or leave `requireTls` out",
            ));
        }
        for (key, limit) in [
            ("errorsMax", self.errors_max),
            ("idleCommandsMax", self.idle_commands_max),
        ] {
            if limit == 0 {
                let remedy = "leave it out for the default, or write a number from 1 on";
                return Err((key, "every session would end at once", remedy));
            }
        }
        if self.protocol == ListenerProtocol::Submission && self.users.is_none() {
            return Err((
                "users",
                "a submission listener needs a user file",
                "set `users: FILE` with lines `name:argon2-hash` (`opes user hash` makes one)",
            ));
        }
        Ok(())
    }
}

/// Octets of `64Ki`, `30Mi`, `1Gi` or a plain number.
pub fn parse_octets(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.trim() {
        t if t.ends_with("Ki") => (&t[..t.len() - 2], 1 << 10),
        t if t.ends_with("Mi") => (&t[..t.len() - 2], 1 << 20),
        t if t.ends_with("Gi") => (&t[..t.len() - 2], 1 << 30),
        t => (t, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| format!("`{text}` is not a size; write 1000000, 64Ki, 30Mi or 1Gi"))
}

/// Duration of `500ms`, `30s`, `5m`, `2h`, `30d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number = digits.parse::<u64>().ok();
    let milliseconds = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(24 * 3_600_000),
        _ => None,
    };
    number
        .zip(milliseconds)
        .and_then(|(n, unit)| n.checked_mul(unit))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a duration; write 500ms, 30s, 5m, 2h or 30d"))
}

fn octets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => parse_octets(&text).map_err(D::Error::custom),
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
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

fn default_size_max() -> u64 {
    35 << 20
}

fn default_recipients_max() -> usize {
    1000
}

fn default_client_timeout() -> Duration {
    Duration::from_mins(5)
}

fn default_connections_max() -> usize {
    20
}

fn default_errors_max() -> u32 {
    ERRORS_MAX_DEFAULT
}

fn default_idle_commands_max() -> u32 {
    IDLE_COMMANDS_MAX_DEFAULT
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "hostname: mail.example.com\nspool: /var/spool/opes\ndelivery: { nextHop: 'mx.example.com:25' }\nlisteners:\n  - { name: mx, address: '0.0.0.0:2525' }\n";

    fn error(text: &str) -> String {
        EdgeConfig::parse(text, Path::new("edge.yaml"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn smallest_file_has_safe_defaults() {
        let config = EdgeConfig::parse(SMALLEST, Path::new("edge.yaml")).unwrap();
        assert!(config.domains.is_empty() && config.relay_networks.is_empty());
        assert_eq!(config.memory_budget, 64 << 20);
        assert_eq!(config.listeners[0].size_max, 35 << 20);
    }

    #[test]
    fn unknown_key_is_named() {
        let message = error(&SMALLEST.replace("spool:", "memoryBuget: 1Mi\nspool:"));
        assert!(
            message.contains("memoryBuget") && message.contains("edge.yaml"),
            "{message}"
        );
    }

    #[test]
    fn both_deliveries_are_refused() {
        let message = error(&SMALLEST.replace("nextHop:", "maildir: /tmp/x, nextHop:"));
        assert!(message.contains("exactly one"), "{message}");
    }

    #[test]
    fn submission_without_users_is_refused() {
        let message = error(&SMALLEST.replace("name: mx,", "name: mx, protocol: submission,"));
        assert!(message.contains("listeners[0].users"), "{message}");
    }

    #[test]
    fn tls_that_nobody_can_start_is_not_required() {
        let message = error(&SMALLEST.replace("name: mx,", "name: mx, requireTls: true,"));
        assert!(message.contains("listeners[0].requireTls"), "{message}");
        let message = error(&SMALLEST.replace("name: mx,", "name: mx, errorsMax: 0,"));
        assert!(message.contains("errorsMax"), "{message}");
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for (key, field) in [
            ("bounces: { postmaster", "bounces.postmaster"),
            (
                "notifications: { administrator",
                "notifications.administrator",
            ),
        ] {
            let message = error(&format!("{key}: nobody }}\n{SMALLEST}"));
            assert!(message.contains(field), "{message}");
        }
    }

    #[test]
    fn the_system_has_a_name_of_its_own() {
        let config = |text: &str| EdgeConfig::parse(text, Path::new("edge.yaml"));
        assert_eq!(
            config(SMALLEST).unwrap().system,
            "https://mail.example.com/opes"
        );
        let set = SMALLEST.replace("spool:", "system: 'urn:example:opes'\nspool:");
        assert_eq!(config(&set).unwrap().system, "urn:example:opes");
        for (from, to) in [
            ("spool:", "system: opes\nspool:"),
            ("spool:", "system: 'https://a.example/;b'\nspool:"),
            ("mail.example.com", "mail"),
        ] {
            let text = SMALLEST.replacen(from, to, 1) + "rules: /etc/opes/rules\n";
            assert!(error(&text).contains("edge.yaml: system:"), "{text}");
        }
    }

    #[test]
    fn nobody_may_bypass_unless_named() {
        let text =
            SMALLEST.to_owned() + "bypass: { identities: ['*'], networks: [192.0.2.0/24] }\n";
        let config = EdgeConfig::parse(&text, Path::new("edge.yaml")).unwrap();
        assert_eq!(config.bypass.unwrap().identities, ["*"]);
        assert!(
            EdgeConfig::parse(SMALLEST, Path::new("edge.yaml"))
                .unwrap()
                .bypass
                .is_none()
        );
    }

    #[test]
    fn a_spool_that_is_not_durable_has_nothing_to_promise() {
        let volatile = format!("spoolDurable: false\n{SMALLEST}");
        let message = error(&volatile);
        assert!(message.contains("listeners[0].delivery"), "{message}");
        let strict = volatile.replace("name: mx,", "name: mx, delivery: cutThrough,");
        let config = EdgeConfig::parse(&strict, Path::new("edge.yaml")).unwrap();
        assert!(!config.spool_durable && config.drain_delay.is_zero());
        let config = EdgeConfig::parse(SMALLEST, Path::new("edge.yaml")).unwrap();
        assert!(config.spool_durable);
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(parse_octets("30Mi"), Ok(30 << 20));
        assert!(parse_octets("30 MB").is_err());
        assert_eq!(parse_duration("5m"), Ok(Duration::from_mins(5)));
        assert!(parse_duration("5").is_err());
    }
}
