//! Where the scanner is and how to talk to it: the `config` of a `CalloutService`.
//!
//! Owns the defaults. Fails with [`ConfigError`], which names field and remedy.

use std::path::PathBuf;
use std::time::Duration;

use opes_http::{Credential, Engine, Settings, SettingsError};
use serde::Deserialize;

/// What `config` may hold; every field but `url` has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Of the scanner: `https://host/path`; `http://` on this machine only, unless [`insecure_plaintext`](Self::insecure_plaintext).
    pub url: String,
    /// PEM file with the authorities that may vouch for the scanner, in place of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Mail may go over the network in the clear.
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// `user:password` of HTTP Basic authentication is in this file.
    #[serde(default)]
    pub basic_auth_file: Option<PathBuf>,
    /// A bearer token is in this file.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// Milliseconds for one request; the rule's `timeout` should be longer.
    #[serde(default = "timeout_default")]
    pub timeout_ms: u64,
    /// Octets of a message that are handed over; a larger one is a failure of this service.
    #[serde(default = "message_default")]
    pub message_size_max: usize,
    /// Octets of a response.
    #[serde(default = "response_default")]
    pub response_size_max: usize,
}

const fn timeout_default() -> u64 {
    20_000
}

const fn message_default() -> usize {
    50 * 1024 * 1024
}

const fn response_default() -> usize {
    50 * 1024 * 1024
}

/// Why a configuration makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the fields above.
    #[error("{0}; docs/services/mta-hooks.md lists the fields")]
    Fields(#[from] serde_json::Error),
    /// What makes no sense of the rest.
    #[error(transparent)]
    Engine(#[from] SettingsError),
    /// A limit of nothing.
    #[error("{field}: 0 would let nothing pass; leave it out for the default")]
    Zero {
        /// Of the limit.
        field: &'static str,
    },
}

// === impl Config ===

impl Config {
    /// Reads and checks it.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ConfigError> {
        let config = Self::deserialize(json)?;
        let files = (
            config.basic_auth_file.is_some(),
            config.bearer_token_file.is_some(),
        );
        if files == (true, true) {
            return Err(SettingsError::TwoCredentials.into());
        }
        let zeros = [
            ("timeoutMs", config.timeout_ms == 0),
            ("messageSizeMax", config.message_size_max == 0),
            ("responseSizeMax", config.response_size_max == 0),
        ];
        match zeros.into_iter().find(|(_, zero)| *zero) {
            Some((field, _)) => Err(ConfigError::Zero { field }),
            None => Ok(config),
        }
    }

    /// The scanner. Reads the files that are named.
    pub(crate) fn engine(&self) -> Result<Engine, ConfigError> {
        let (basic, bearer) = (
            self.basic_auth_file.as_deref(),
            self.bearer_token_file.as_deref(),
        );
        Ok(Engine::new(Settings {
            url: self.url.clone(),
            ca_file: self.ca_file.clone(),
            insecure_plaintext: self.insecure_plaintext,
            credential: Credential::from_files(basic, bearer)?,
            timeout: Duration::from_millis(self.timeout_ms),
            response_size_max: self.response_size_max,
        })?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_those_of_the_page() {
        let config = Config::from_json(&json!({ "url": "https://scan.example.com/hook" })).unwrap();
        assert_eq!(config.timeout_ms, 20_000);
        assert_eq!(config.message_size_max, 52_428_800);
        assert_eq!(config.response_size_max, 52_428_800);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (config, said) in [
            (json!({}), "missing field `url`"),
            (
                json!({ "url": "https://a.example.com", "urls": [] }),
                "unknown field `urls`",
            ),
            (
                json!({ "url": "https://a.example.com", "basicAuthFile": "a", "bearerTokenFile": "b" }),
                "one of them",
            ),
            (
                json!({ "url": "https://a.example.com", "timeoutMs": 0 }),
                "timeoutMs",
            ),
        ] {
            let error = Config::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let plain = Config::from_json(&json!({ "url": "http://scan.example.com/" })).unwrap();
        let error = plain.engine().unwrap_err().to_string();
        assert!(
            error.contains("in the clear to scan.example.com"),
            "{error}"
        );
    }
}
