//! Where services' reports of incidents go besides the log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use opes_http::{Credential, Engine, Settings, SettingsError};
use serde::Deserialize;

use super::ConfigError;
use super::units::duration;

/// Octets of what a webhook answers that are read.
const RESPONSE_OCTETS_MAX: usize = 64 * 1024;

/// Reports of incidents.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IncidentsConfig {
    /// A file that gets a line of JSON for each. None: they are in the log only.
    pub file: Option<PathBuf>,
    /// A tool that is told of each.
    pub webhook: Option<WebhookConfig>,
}

/// Another tool, such as one for intrusion detection, that gets each incident in a POST of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookConfig {
    /// `https://…`; `http://` on this machine only, unless `insecurePlaintext`.
    pub url: String,
    /// PEM file with the authorities that may vouch for it. None: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Incidents may go over the network in the clear.
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// File with a token that lets us in.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// For one attempt.
    #[serde(default = "default_timeout", deserialize_with = "duration")]
    pub timeout: Duration,
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

// === impl WebhookConfig ===

impl WebhookConfig {
    /// Reads the files that are named; connects to nothing yet.
    pub(crate) fn engine(&self) -> Result<Engine, SettingsError> {
        Engine::new(Settings {
            credential: Credential::from_files(None, self.bearer_token_file.as_deref())?,
            ..self.settings()
        })
    }

    pub(super) fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |key: &str, message: String, remedy| ConfigError::Value {
            path: path.into(),
            field: format!("incidents.webhook.{key}"),
            message,
            remedy,
        };
        if let Err(error) = self.settings().parsed_url() {
            let remedy = "write `url: https://HOST/PATH`";
            return Err(wrong("url", error.to_string(), remedy));
        }
        if self.timeout.is_zero() {
            let remedy = "write `timeout: 10s`";
            return Err(wrong("timeout", "leaves no time".to_owned(), remedy));
        }
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings {
            url: self.url.clone(),
            ca_file: self.ca_file.clone(),
            insecure_plaintext: self.insecure_plaintext,
            credential: Credential::None,
            timeout: self.timeout,
            response_size_max: RESPONSE_OCTETS_MAX,
        }
    }
}
