//! Where ClamAV's daemon is and what it gets.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;

/// Settings as written, camelCase; every field but `address` has a default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClamdConfig {
    /// `unix:/run/clamav/clamd.ctl`, or `HOST:PORT`.
    pub address: String,
    /// Mail may go over the network in the clear: clamd has no TLS.
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// Milliseconds for one message, waiting for a connection included; the rule's `timeout` should be longer.
    #[serde(default = "timeout_default")]
    pub timeout_ms: u64,
    /// Octets of one part that are sent; not more than clamd's `StreamMaxLength`.
    #[serde(default = "size_default")]
    pub size_max: u64,
    /// Connections at once; not more than clamd's `MaxThreads` makes sense.
    #[serde(default = "connections_default")]
    pub connections_max: u32,
    /// When the message as a whole is sent besides its parts.
    #[serde(default)]
    pub whole_message: WholeMessage,
}

/// When clamd gets the message as a whole besides its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WholeMessage {
    /// If mail readers may see other parts in it than a strict one.
    #[default]
    Odd,
    /// Always: for signatures that look at header fields.
    Always,
}

/// Where clamd listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket file.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

const fn timeout_default() -> u64 {
    20_000
}

const fn size_default() -> u64 {
    25 * 1024 * 1024
}

const fn connections_default() -> u32 {
    10
}

// === impl ClamdConfig ===

impl ClamdConfig {
    /// [`timeout_ms`](Self::timeout_ms).
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// [`address`](Self::address), taken apart.
    pub fn place(&self) -> Result<Address, ConfigError> {
        let wrong = |problem| {
            let field = "clamd.address";
            Err(ConfigError::Value { field, problem })
        };
        if let Some(path) = self.address.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Address::Unix(path.into()))
            } else {
                wrong("not an absolute path; write unix:/run/clamav/clamd.ctl")
            };
        }
        let parts = self.address.rsplit_once(':');
        let Some((host, port)) = parts.filter(|(host, _)| !host.is_empty()) else {
            return wrong("neither unix:/PATH nor HOST:PORT; clamd's usual port is 3310");
        };
        if port.parse::<u16>().is_err() {
            return wrong("the port is not a number; write HOST:PORT, as 127.0.0.1:3310");
        }
        if !self.insecure_plaintext && !is_this_machine(&self.address, host) {
            return wrong(
                "mail would go to another machine in the clear; use a Unix socket or 127.0.0.1, or insecurePlaintext: true if the network is trusted",
            );
        }
        Ok(Address::Tcp(self.address.clone()))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.place()?;
        for (field, value, max, problem) in [
            (
                "clamd.timeoutMs",
                self.timeout_ms,
                3_600_000,
                "not between 1 and 3600000 milliseconds; 20000 is usual",
            ),
            (
                "clamd.sizeMax",
                self.size_max,
                1 << 31,
                "not between 1 and 2147483648 octets; clamd's StreamMaxLength is the right value",
            ),
            (
                "clamd.connectionsMax",
                self.connections_max.into(),
                1000,
                "not between 1 and 1000; clamd's MaxThreads is the right value",
            ),
        ] {
            if value == 0 || value > max {
                return Err(ConfigError::Value { field, problem });
            }
        }
        Ok(())
    }
}

fn is_this_machine(address: &str, host: &str) -> bool {
    let ip = address.parse().map(|socket: SocketAddr| socket.ip());
    let is_loopback = |ip: IpAddr| ip.is_loopback();
    ip.is_ok_and(is_loopback) || host == "localhost"
}
