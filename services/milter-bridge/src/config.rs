//! Which milter, and what it is told of this system: the `config` of a `CalloutService`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::endpoint::{Endpoint, EndpointError};

/// Macros that can be configured.
const MACROS_MAX: usize = 64;
/// Octets of the name or value of one.
const MACRO_OCTETS_MAX: usize = 1024;

/// What `config` may hold; every field but `endpoint` has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// `inet:HOST:PORT` or `unix:/PATH`.
    pub endpoint: String,
    /// Mail may go over the network in the clear: the protocol has no TLS.
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// Name of the mail system, macro `j`; the name of this machine if it is not set.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Further macros, without braces; they count before what is known otherwise.
    #[serde(default)]
    pub macros: BTreeMap<String, String>,
    /// Milliseconds until the connection is there and the negotiation over.
    #[serde(default = "command_default")]
    pub connect_timeout_ms: u64,
    /// Milliseconds for the reply to one command.
    #[serde(default = "command_default")]
    pub command_timeout_ms: u64,
    /// Milliseconds for the reply to a header field, a piece of the body, or the end of the message.
    #[serde(default = "content_default")]
    pub content_timeout_ms: u64,
    /// Octets of a body that the milter puts in place of the message's.
    #[serde(default = "body_default")]
    pub body_size_max: usize,
}

const fn command_default() -> u64 {
    30_000
}

const fn content_default() -> u64 {
    300_000
}

const fn body_default() -> usize {
    50 * 1024 * 1024
}

/// Why a configuration makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the fields above.
    #[error("{0}; docs/services/milter-bridge.md lists the fields")]
    Fields(#[from] serde_json::Error),
    /// Not a milter's socket.
    #[error("endpoint: {0}")]
    Endpoint(#[from] EndpointError),
    /// On another machine.
    #[error(
        "endpoint: mail would go over the network in the clear to {0}\n  help: a milter on this machine, or insecurePlaintext: true if the network is trusted"
    )]
    InTheClear(Endpoint),
    /// Not something that a macro can be.
    #[error(
        "macros: `{0}`: a name of letters, digits and underscores without braces, and a value without NUL, at most 1,024 octets each"
    )]
    Macro(String),
    /// Too many.
    #[error("macros: {0} are more than 64")]
    Macros(usize),
    /// A limit of nothing.
    #[error("{0}: 0 would let nothing pass; leave it out for the default")]
    Zero(&'static str),
}

/// The configuration, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) endpoint: Endpoint,
    pub(crate) hostname: String,
    pub(crate) macros: BTreeMap<String, String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) command_timeout: Duration,
    pub(crate) content_timeout: Duration,
    pub(crate) body_size_max: usize,
}

impl Config {
    /// Reads it.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ConfigError> {
        Ok(Self::deserialize(json)?)
    }

    /// Checks it. Connects to nothing yet.
    pub(crate) fn settings(self) -> Result<Settings, ConfigError> {
        let endpoint: Endpoint = self.endpoint.parse()?;
        if !self.insecure_plaintext && !endpoint.is_this_machine() {
            return Err(ConfigError::InTheClear(endpoint));
        }
        let zeros = [
            ("connectTimeoutMs", self.connect_timeout_ms == 0),
            ("commandTimeoutMs", self.command_timeout_ms == 0),
            ("contentTimeoutMs", self.content_timeout_ms == 0),
            ("bodySizeMax", self.body_size_max == 0),
        ];
        if let Some((field, _)) = zeros.into_iter().find(|(_, zero)| *zero) {
            return Err(ConfigError::Zero(field));
        }
        if self.macros.len() > MACROS_MAX {
            return Err(ConfigError::Macros(self.macros.len()));
        }
        if let Some((name, _)) = self
            .macros
            .iter()
            .find(|(name, value)| !is_macro(name, value))
        {
            return Err(ConfigError::Macro(name.clone()));
        }
        Ok(Settings {
            endpoint,
            hostname: self.hostname.unwrap_or_else(machine),
            macros: self.macros,
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
            command_timeout: Duration::from_millis(self.command_timeout_ms),
            content_timeout: Duration::from_millis(self.content_timeout_ms),
            body_size_max: self.body_size_max,
        })
    }
}

fn is_macro(name: &str, value: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty()
        && name.len().max(value.len()) <= MACRO_OCTETS_MAX
        && name.chars().all(is_name)
        && !value.contains('\0')
}

fn machine() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy().into_owned();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(json: &serde_json::Value) -> Result<Settings, ConfigError> {
        Config::from_json(json)?.settings()
    }

    #[test]
    fn defaults_are_those_of_the_page() {
        let settings = settings(&json!({ "endpoint": "unix:/run/a" })).unwrap();
        assert_eq!(settings.connect_timeout, Duration::from_secs(30));
        assert_eq!(settings.command_timeout, Duration::from_secs(30));
        assert_eq!(settings.content_timeout, Duration::from_mins(5));
        assert_eq!(settings.body_size_max, 52_428_800);
        assert!(!settings.hostname.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (config, said) in [
            (json!({}), "missing field `endpoint`"),
            (
                json!({ "endpoint": "unix:/a", "milter": 1 }),
                "unknown field `milter`",
            ),
            (
                json!({ "endpoint": "inet:8891@localhost" }),
                "endpoint: `inet:8891@localhost`",
            ),
            (
                json!({ "endpoint": "inet:192.0.2.1:8891" }),
                "in the clear to inet:192.0.2.1:8891",
            ),
            (
                json!({ "endpoint": "unix:/a", "commandTimeoutMs": 0 }),
                "commandTimeoutMs: 0",
            ),
            (
                json!({ "endpoint": "unix:/a", "macros": { "{i}": "x" } }),
                "macros: `{i}`",
            ),
        ] {
            let error = settings(&config).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let trusted = json!({ "endpoint": "inet:192.0.2.1:8891", "insecurePlaintext": true });
        settings(&trusted).unwrap();
    }
}
