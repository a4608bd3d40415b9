//! Whom to follow, and as whom: [`FollowerConfig`], [`Address`].

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use opes_host::Host;
use opes_tls::ClientTls;

/// Replicas that an edge has streams to at most; more are left out, in order of their addresses.
pub const PEERS_MAX: usize = 8;

/// How long an operator may take at the start before the table on disk is used.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a follower is started with.
#[derive(Debug, Clone)]
pub struct FollowerConfig {
    /// Where an operator is found first; others are learnt of from it. Its name is resolved again for every attempt.
    pub operator: Address,
    /// Unique among the edges of the installation: the pod's name.
    pub edge: String,
    /// The pod's namespace; empty outside Kubernetes.
    pub namespace: String,
    /// Version of the program.
    pub version: String,
    /// What operators are shown, and the authorities that theirs must come from.
    pub tls: ClientTls,
    /// Folder of the last good table. None: nothing is kept, and a restart waits for an operator.
    pub cache: Option<PathBuf>,
    /// How long an operator may take at the start before the table on disk is used.
    pub patience: Duration,
    /// Network and randomness to work with.
    pub host: Host,
}

impl FollowerConfig {
    /// Defaults for everything but who and whom.
    pub fn new(operator: Address, edge: impl Into<String>, tls: ClientTls) -> Self {
        Self {
            operator,
            edge: edge.into(),
            namespace: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tls,
            cache: None,
            patience: PATIENCE,
            host: Host::default(),
        }
    }
}

/// `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

/// Not an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not https://HOST:PORT")]
pub struct AddressError(String);

// === impl Address ===

impl Address {
    /// A name or an IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.chars().take(200).collect());
        let rest = text.strip_prefix("https://").ok_or_else(wrong)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        // An IPv6 address is in brackets in a URI and nowhere else (RFC 3986 §3.2.2).
        let bare = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let is_name = !bare.is_empty() && bare.len() <= 253;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        match port.parse() {
            Ok(port) if port > 0 && is_name && bare.chars().all(is_plain) => Ok(Self {
                host: bare.to_owned(),
                port,
            }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for text in [
            "https://opes-operator.opes.svc:9443",
            "https://192.0.2.7:9443",
            "https://[2001:db8::1]:9443",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            "http://operator:9443",
            "https://operator",
            "https://:9443",
            "https://operator:0",
            "https://operator:70000",
            "https://2001:db8::1:9443",
            "https://[2001:db8::1:9443",
            "https://a/b:9443",
            "https://user@operator:9443",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
