//! Who looks at messages, and what that comes to: the `config` of a `CalloutService`.

use std::path::PathBuf;
use std::time::Duration;

use opes_http::{Credential, Engine, Settings, SettingsError};
use serde::Deserialize;

pub(crate) mod own;

use own::{OwnConfig, OwnError};

/// What `config` may hold; every field but `engine` has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Who looks at messages.
    pub engine: EngineConfig,
    /// Octets of a message that are looked at. rspamd is not asked about what is larger; our own engine leaves DKIM out.
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
    /// What is done where the engine would refuse.
    #[serde(default)]
    pub on_reject: OnAction,
    /// Text of refusals.
    #[serde(default = "text_default")]
    pub text: String,
}

/// One of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EngineConfig {
    /// rspamd, over HTTP.
    Rspamd(RspamdConfig),
    /// SPF, DKIM, DMARC, DNS lists and what the header shows, as a sum.
    Own(Box<OwnConfig>),
}

/// Where rspamd is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RspamdConfig {
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
    /// What a `greylist` or `soft reject` of rspamd does.
    #[serde(default = "later")]
    pub on_greylist: OnAction,
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
    /// As what is likely spam.
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

/// Fields that stood beside `url` before there was a second engine.
const MOVED: [&str; 5] = [
    "url",
    "caFile",
    "insecurePlaintext",
    "timeoutMs",
    "onGreylist",
];

/// Why a configuration makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the fields above.
    #[error("{0}; docs/services/spam-filter.md lists the fields")]
    Fields(#[from] serde_json::Error),
    /// As it was written when rspamd was the only engine.
    #[error("{0}: it stands below `engine: {{ rspamd: {{ … }} }}` now")]
    Moved(&'static str),
    /// How rspamd is reached.
    #[error(transparent)]
    Engine(#[from] SettingsError),
    /// Of our own engine.
    #[error("engine.own.{0}")]
    Own(#[from] OwnError),
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
        if let Some(moved) = MOVED.into_iter().find(|name| json.get(name).is_some()) {
            return Err(ConfigError::Moved(moved));
        }
        let config = Self::deserialize(json)?;
        // RFC 5322 §2.2: printable US-ASCII but the colon.
        let is_name = |c: char| c.is_ascii_graphic() && c != ':';
        if !config.header.chars().all(is_name) {
            return Err(ConfigError::Header(config.header));
        }
        if config.message_size_max == 0 {
            return Err(ConfigError::Zero("messageSizeMax"));
        }
        match &config.engine {
            EngineConfig::Rspamd(rspamd) if rspamd.timeout_ms == 0 => {
                return Err(ConfigError::Zero("engine.rspamd.timeoutMs"));
            }
            EngineConfig::Rspamd(_) => {}
            EngineConfig::Own(own) => own.check()?,
        }
        Ok(config)
    }
}

// === impl RspamdConfig ===

impl RspamdConfig {
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
        let url = "http://127.0.0.1/";
        let rspamd = json!({ "rspamd": { "url": url } });
        for (config, said) in [
            (json!({}), "missing field `engine`"),
            (json!({ "engine": { "rspamd": {} } }), "missing field `url`"),
            (
                json!({ "engine": { "bayes": {} } }),
                "unknown variant `bayes`",
            ),
            (
                json!({ "url": url }),
                "url: it stands below `engine: { rspamd: { … } }` now",
            ),
            (
                json!({ "engine": rspamd, "onGreylist": "mark" }),
                "onGreylist: it stands below",
            ),
            (
                json!({ "engine": rspamd, "mark": "x" }),
                "unknown field `mark`",
            ),
            (
                json!({ "engine": rspamd, "header": "X Spam" }),
                "header: `X Spam`",
            ),
            (
                json!({ "engine": rspamd, "onReject": "drop" }),
                "unknown variant `drop`",
            ),
            (
                json!({ "engine": { "rspamd": { "url": url, "timeoutMs": 0 } } }),
                "engine.rspamd.timeoutMs",
            ),
            (
                json!({ "engine": { "own": { "authservId": "mx one" } } }),
                "engine.own.authservId: `mx one`",
            ),
        ] {
            let error = Config::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let plain = json!({ "engine": { "rspamd": { "url": "http://scan.example.com/checkv2" } } });
        let plain = Config::from_json(&plain).unwrap();
        let EngineConfig::Rspamd(plain) = plain.engine else {
            unreachable!()
        };
        let refused = plain.engine().unwrap_err().to_string();
        assert!(refused.contains("in the clear"), "{refused}");
    }
}
