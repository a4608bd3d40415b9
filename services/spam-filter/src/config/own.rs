//! What our own engine asks whom, and what each finding weighs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use serde::Deserialize;

use crate::own::score::Symbol;

/// Fields of `engine.own`; every field but `authservId` has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnConfig {
    /// Who says so in `Authentication-Results` (RFC 8601 §2.5): one name for all filters of an installation. Fields of this name that come from
    /// outside are removed.
    pub authserv_id: String,
    /// `ADDRESS` or `ADDRESS:PORT` of resolvers, asked in turn. Empty: those of `/etc/resolv.conf`.
    #[serde(default)]
    pub nameservers: Vec<String>,
    /// Milliseconds for one question to a resolver; it is asked three times at most.
    #[serde(default = "dns_timeout_default")]
    pub dns_timeout_ms: u64,
    /// Milliseconds for all checks of a message; what is not finished then failed for now.
    #[serde(default = "timeout_default")]
    pub timeout_ms: u64,
    /// Questions to resolvers that are open at once, of all messages.
    #[serde(default = "queries_default")]
    pub dns_queries_max: usize,
    /// Answers of resolvers that are kept.
    #[serde(default = "cache_default")]
    pub dns_cache_size: u64,
    /// What becomes of a message if DNS does not answer.
    #[serde(default)]
    pub dns_failure: DnsFailure,
    /// Clients that relay for others or are ours: not judged by SPF, DNS lists or a DMARC failure, and their Authentication-Results are kept.
    #[serde(default = "trusted_default")]
    pub trusted_networks: Vec<IpNet>,
    /// DNS lists (RFC 5782) that the client's address is looked up in.
    #[serde(default)]
    pub dnsbl: Vec<DnsblConfig>,
    /// Says what was found in `Authentication-Results`, and removes what others said in our name. An analyser may not.
    #[serde(default = "results_default")]
    pub authentication_results: bool,
    /// Other weights than the table's, by symbol.
    #[serde(default)]
    pub weights: BTreeMap<String, f64>,
    /// From which sum on what is done.
    #[serde(default)]
    pub thresholds: Thresholds,
    /// A message that fails DMARC is refused if its author's domain asks for that, whatever the sum.
    #[serde(default)]
    pub dmarc_reject: bool,
}

/// What becomes of a message if DNS does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DnsFailure {
    /// The check that failed weighs nothing, and the field says so.
    #[default]
    Ignore,
    /// The callout fails: the rule's `onFailure` decides.
    Fail,
}

/// One list.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsblConfig {
    /// `zen.dnsbl.example.net`.
    pub zone: String,
    /// The symbol is `DNSBL_` and this; by default the zone in capitals.
    #[serde(default)]
    pub name: String,
    /// Of an address that is listed, whatever the code.
    #[serde(default = "weight_default")]
    pub weight: f64,
    /// Weights by code, such as `127.0.0.2`; if there are any, other codes weigh nothing, and of several the heaviest counts.
    #[serde(default)]
    pub codes: BTreeMap<Ipv4Addr, f64>,
}

/// Sums from which on something is done.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Thresholds {
    /// The mark in the subject, and `Yes` in the field.
    #[serde(default = "mark_default")]
    pub mark: f64,
    /// Also to `spamQueue`, if there is one; by default as `mark`.
    #[serde(default)]
    pub queue: Option<f64>,
    /// `onReject`; null: never.
    #[serde(default = "reject_default")]
    pub reject: Option<f64>,
}

const fn dns_timeout_default() -> u64 {
    2_000
}

const fn timeout_default() -> u64 {
    10_000
}

const fn queries_default() -> usize {
    256
}

const fn cache_default() -> u64 {
    10_000
}

fn trusted_default() -> Vec<IpNet> {
    let loopback: [IpAddr; 2] = [[127, 0, 0, 0].into(), [0, 0, 0, 0, 0, 0, 0, 1].into()];
    let [v4, v6] = loopback;
    [(v4, 8), (v6, 128)]
        .into_iter()
        .filter_map(|(address, bits)| IpNet::new(address, bits).ok())
        .collect()
}

const fn results_default() -> bool {
    true
}

const fn weight_default() -> f64 {
    4.0
}

const fn mark_default() -> f64 {
    6.0
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "serde wants the type of the field"
)]
const fn reject_default() -> Option<f64> {
    Some(12.0)
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            mark: mark_default(),
            queue: None,
            reject: reject_default(),
        }
    }
}

/// Resolvers that may be named.
const NAMESERVERS_MAX: usize = 8;
/// Lists that may be asked.
pub(crate) const DNSBL_MAX: usize = 16;
/// Networks that may be trusted.
const NETWORKS_MAX: usize = 1000;
/// Codes of one list.
const CODES_MAX: usize = 64;
/// Largest weight and threshold.
const WEIGHT_MAX: f64 = 1000.0;
/// Milliseconds that a message may take at most.
const TIMEOUT_MS_MAX: u64 = 600_000;
/// Questions that may be open.
const QUERIES_MAX: usize = 10_000;
/// Answers that may be kept.
const CACHE_MAX: u64 = 1_000_000;
/// Characters of a name that ends up in a header field.
const NAME_MAX: usize = 64;
/// Characters of a domain name, with room for an address in front (RFC 1035 §2.3.4).
const ZONE_MAX: usize = 180;
/// DNS without a port.
const DNS_PORT: u16 = 53;

/// Why the fields make no sense; begins with the field's name.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// Nobody could parse our field.
    #[error(
        "authservId: `{0}` is not a name of letters, digits, dots and hyphens, such as mx.example.com"
    )]
    AuthservId(String),
    /// Not an address.
    #[error("nameservers: `{0}` is neither ADDRESS nor ADDRESS:PORT")]
    Nameserver(String),
    /// A list that is too long, or a number that is too large.
    #[error("{0}: at most {1}")]
    TooMany(&'static str, u64),
    /// A limit of nothing.
    #[error("{0}: 0 would let nothing be asked; leave it out for the default")]
    Zero(&'static str),
    /// No domain.
    #[error("dnsbl.zone: `{0}` is not a domain name")]
    Zone(String),
    /// Two lists that could not be told apart, or a name that no field can hold.
    #[error("dnsbl.name: `{0}` is there twice, or is not of letters, digits and underscores")]
    Name(String),
    /// An answer that no list gives.
    #[error("dnsbl.codes: {0} is not in 127.0.0.0/8, or is an error (127.255.255.0/24)")]
    Code(Ipv4Addr),
    /// Not a number that can be added.
    #[error("{0}: {1} is not between -1000 and 1000")]
    Weight(String, f64),
    /// No such symbol.
    #[error("weights.{0}: there is no such symbol; docs/services/spam-filter.md lists them")]
    Symbol(String),
    /// What nobody can be blamed for.
    #[error("weights.{0}: what DNS does not answer weighs nothing; see dnsFailure")]
    Fixed(String),
    /// Thresholds that contradict each other.
    #[error("thresholds.{0}: {1} is below thresholds.mark, {2}")]
    Order(&'static str, f64, f64),
    /// The system's resolver configuration.
    #[error("nameservers: /etc/resolv.conf cannot be read ({0}); name a resolver")]
    System(String),
    /// The resolver cannot be made.
    #[error("nameservers: no resolver can be made: {0}")]
    Resolver(String),
}

// === impl OwnConfig ===

impl OwnConfig {
    pub(super) fn check(&self) -> Result<(), OwnError> {
        let is_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let id = &self.authserv_id;
        if id.is_empty() || id.len() > 253 || !id.chars().all(is_id) {
            return Err(OwnError::AuthservId(id.clone()));
        }
        self.check_limits()?;
        self.addresses()?;
        for list in &self.dnsbl {
            list.check()?;
        }
        let mut names: Vec<_> = self.dnsbl.iter().map(DnsblConfig::symbol).collect();
        names.sort();
        if let Some([twice, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(OwnError::Name(twice.clone()));
        }
        for (name, weight) in &self.weights {
            let symbol = Symbol::parse(name).ok_or_else(|| OwnError::Symbol(name.clone()))?;
            if symbol.is_fixed() {
                return Err(OwnError::Fixed(name.clone()));
            }
            weight_ok(|| format!("weights.{name}"), *weight)?;
        }
        self.thresholds.check()
    }

    fn check_limits(&self) -> Result<(), OwnError> {
        for (name, value, max) in [
            ("dnsTimeoutMs", self.dns_timeout_ms, TIMEOUT_MS_MAX),
            ("timeoutMs", self.timeout_ms, TIMEOUT_MS_MAX),
            (
                "dnsQueriesMax",
                self.dns_queries_max as u64,
                QUERIES_MAX as u64,
            ),
            ("dnsCacheSize", self.dns_cache_size, CACHE_MAX),
        ] {
            if value == 0 {
                return Err(OwnError::Zero(name));
            }
            if value > max {
                return Err(OwnError::TooMany(name, max));
            }
        }
        for (name, len, max) in [
            ("nameservers", self.nameservers.len(), NAMESERVERS_MAX),
            ("dnsbl", self.dnsbl.len(), DNSBL_MAX),
            ("trustedNetworks", self.trusted_networks.len(), NETWORKS_MAX),
        ] {
            if len > max {
                return Err(OwnError::TooMany(name, max as u64));
            }
        }
        Ok(())
    }

    /// Of the resolvers; empty: the system's.
    pub(crate) fn addresses(&self) -> Result<Vec<SocketAddr>, OwnError> {
        let read = |text: &String| {
            let with_port = text.parse::<SocketAddr>();
            let alone = || {
                text.parse::<IpAddr>()
                    .map(|ip| SocketAddr::new(ip, DNS_PORT))
            };
            with_port
                .or_else(|_| alone())
                .map_err(|_| OwnError::Nameserver(text.clone()))
        };
        self.nameservers.iter().map(read).collect()
    }

    /// Is this client's word taken for what it relays?
    pub(crate) fn trusts(&self, client: IpAddr) -> bool {
        self.trusted_networks
            .iter()
            .any(|network| network.contains(&client))
    }

    pub(crate) fn weight(&self, symbol: Symbol) -> f64 {
        let own = self.weights.get(symbol.name());
        own.copied().unwrap_or_else(|| symbol.weight())
    }
}

// === impl DnsblConfig ===

impl DnsblConfig {
    fn check(&self) -> Result<(), OwnError> {
        let is_label = |label: &str| {
            let within = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            !label.is_empty() && label.len() <= 63 && label.chars().all(within)
        };
        let zone = self.zone.trim_end_matches('.');
        if zone.len() > ZONE_MAX || !zone.contains('.') || !zone.split('.').all(is_label) {
            return Err(OwnError::Zone(self.zone.clone()));
        }
        let within = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if self.name.len() > NAME_MAX || !self.name.chars().all(within) {
            return Err(OwnError::Name(self.name.clone()));
        }
        if self.codes.len() > CODES_MAX {
            return Err(OwnError::TooMany("dnsbl.codes", CODES_MAX as u64));
        }
        weight_ok(|| "dnsbl.weight".to_owned(), self.weight)?;
        for (code, weight) in &self.codes {
            if !code.is_loopback() || is_error(*code) {
                return Err(OwnError::Code(*code));
            }
            weight_ok(|| format!("dnsbl.codes.{code}"), *weight)?;
        }
        Ok(())
    }

    /// `DNSBL_ZEN`.
    pub(crate) fn symbol(&self) -> String {
        if !self.name.is_empty() {
            return format!("DNSBL_{}", self.name);
        }
        let zone = self.zone.trim_end_matches('.').to_ascii_uppercase();
        format!("DNSBL_{}", zone.replace(['.', '-'], "_"))
    }

    pub(crate) fn weight_of(&self, code: Ipv4Addr) -> Option<f64> {
        if self.codes.is_empty() {
            Some(self.weight)
        } else {
            self.codes.get(&code).copied()
        }
    }
}

/// What lists answer instead of an answer: over quota, not from public resolvers.
pub(crate) fn is_error(code: Ipv4Addr) -> bool {
    matches!(code.octets(), [127, 255, 255, _])
}

// === impl Thresholds ===

impl Thresholds {
    fn check(&self) -> Result<(), OwnError> {
        weight_ok(|| "thresholds.mark".to_owned(), self.mark)?;
        for (name, value) in [("queue", self.queue), ("reject", self.reject)] {
            let Some(value) = value else { continue };
            weight_ok(|| format!("thresholds.{name}"), value)?;
            if value < self.mark {
                return Err(OwnError::Order(name, value, self.mark));
            }
        }
        Ok(())
    }
}

fn weight_ok(name: impl FnOnce() -> String, weight: f64) -> Result<(), OwnError> {
    if weight.abs() <= WEIGHT_MAX {
        Ok(())
    } else {
        Err(OwnError::Weight(name(), weight))
    }
}

#[cfg(test)]
mod tests;
