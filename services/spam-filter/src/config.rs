//! Where rspamd is, and what its verdicts mean here: the `config` of a `CalloutService`.

use std::path::PathBuf;
use std::time::Duration;

use opes_http::{Credential, Engine, Settings, SettingsError};
use serde::Deserialize;

/// What `config` may hold; every field but `url` has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Of rspamd's normal or proxy worker: `http://127.0.0.1:11333/checkv2`.
    pub url: String,
    /// As in [`Settings::ca_file`].
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// As in [`Settings::insecure_plaintext`].
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// Milliseconds for one request; the rule's `timeout` should be longer.
    #[serde(default = "timeout_default")]
    pub timeout_ms: u64,
    /// Octets of a message that are handed over; what is larger is not looked at, and passes.
    #[serde(default = "message_default")]
    pub message_size_max: usize,
    /// Field that says what was found, on every message that was looked at; empty: none.
    #[serde(default = "header_default")]
    pub header: String,
    /// In front of the subject of what is likely spam; empty: none.
    #[serde(default = "mark_default")]
    pub subject_mark: String,
    /// What is likely spam goes to this queue instead of being delivered; empty: it is delivered.
    #[serde(default)]
    pub spam_queue: String,
    /// What a `reject` of rspamd does.
    #[serde(default)]
    pub on_reject: OnAction,
    /// What a `greylist` or `soft reject` of rspamd does.
    #[serde(default = "later")]
    pub on_greylist: OnAction,
    /// Text of refusals.
    #[serde(default = "text_default")]
    pub text: String,
}

/// What is done about a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnAction {
    /// 550.
    #[default]
    Reject,
    /// 451.
    Tempfail,
    /// As if rspamd had said `add header`.
    Mark,
    /// The field only.
    Accept,
}

const fn timeout_default() -> u64 {
    20_000
}

const fn message_default() -> usize {
    20 * 1024 * 1024
}

fn header_default() -> String {
    "X-Spam-Status".to_owned()
}

fn mark_default() -> String {
    "[SPAM] ".to_owned()
}

const fn later() -> OnAction {
    OnAction::Tempfail
}

fn text_default() -> String {
    "This message looks like spam".to_owned()
}

/// Octets of a reply of rspamd.
const REPLY_OCTETS_MAX: usize = 4 * 1024 * 1024;

/// Why a configuration makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the fields above.
    #[error("{0}; docs/services/spam-filter.md lists the fields")]
    Fields(#[from] serde_json::Error),
    /// How rspamd is reached.
    #[error(transparent)]
    Engine(#[from] SettingsError),
    /// Not the name of a field.
    #[error("header: `{0}` is not the name of a header field")]
    Header(String),
    /// A limit of nothing.
    #[error("{0}: 0 would let nothing pass; leave it out for the default")]
    Zero(&'static str),
}

// === impl Config ===

impl Config {
    /// Reads and checks it.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ConfigError> {
        let config = Self::deserialize(json)?;
        // RFC 5322 §2.2: printable US-ASCII but the colon.
        let is_name = |c: char| c.is_ascii_graphic() && c != ':';
        if !config.header.chars().all(is_name) {
            return Err(ConfigError::Header(config.header));
        }
        match (config.timeout_ms, config.message_size_max) {
            (0, _) => Err(ConfigError::Zero("timeoutMs")),
            (_, 0) => Err(ConfigError::Zero("messageSizeMax")),
            _ => Ok(config),
        }
    }

    /// Connects to nothing yet.
    pub(crate) fn engine(&self) -> Result<Engine, ConfigError> {
        Ok(Engine::new(Settings {
            url: self.url.clone(),
            ca_file: self.ca_file.clone(),
            insecure_plaintext: self.insecure_plaintext,
            credential: Credential::None,
            timeout: Duration::from_millis(self.timeout_ms),
            response_size_max: REPLY_OCTETS_MAX,
        })?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (config, said) in [
            (json!({}), "missing field `url`"),
            (
                json!({ "url": "http://127.0.0.1/", "mark": "x" }),
                "unknown field `mark`",
            ),
            (
                json!({ "url": "http://127.0.0.1/", "header": "X Spam" }),
                "header: `X Spam`",
            ),
            (
                json!({ "url": "http://127.0.0.1/", "onReject": "drop" }),
                "unknown variant `drop`",
            ),
            (
                json!({ "url": "http://127.0.0.1/", "timeoutMs": 0 }),
                "timeoutMs",
            ),
        ] {
            let error = Config::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let plain =
            Config::from_json(&json!({ "url": "http://scan.example.com/checkv2" })).unwrap();
        assert!(
            plain
                .engine()
                .unwrap_err()
                .to_string()
                .contains("in the clear")
        );
    }
}
