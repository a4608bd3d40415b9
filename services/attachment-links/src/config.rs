//! What is moved, where to, and what is written in its place: `builtin.config` of the CalloutService, and what a rule's `parameters` override.
//!
//! Owns the defaults. Fails with [`ConfigError`], which names field and remedy.

mod check;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// Fields that a rule cannot override.
const SERVICE_FIELDS: [&str; 6] = [
    "baseUrl",
    "web",
    "keyFile",
    "store",
    "uploadsMax",
    "connectionsMax",
];

/// What is written where an attachment was; see [`Settings::text`].
const TEXT: &str = "The attachment {name} ({size}) is not in this message.\nIt can be downloaded until {expires}:\n{link}\n";

/// Fields as written.
type Fields = serde_json::Map<String, serde_json::Value>;

/// A configuration that was checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// What a rule may say otherwise.
    pub settings: Settings,
    /// Where the store is.
    pub store: StoreConfig,
    /// What links begin with, without a slash at the end.
    pub base_url: String,
    /// Where the files are served; none: not by this process.
    pub web: Option<SocketAddr>,
    /// Keys of links; none: one is made beside the folder.
    pub key_file: Option<PathBuf>,
    /// Parts that are being stored at once.
    pub uploads_max: usize,
    /// Connections of the web server at once.
    pub connections_max: usize,
    /// The fields that were written, for rules to override.
    written: Fields,
}

/// What a rule may say otherwise; camelCase.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Smaller parts stay, decoded octets.
    pub size_min: u64,
    /// Larger parts stay, decoded octets.
    pub size_max: u64,
    /// Further parts of a message stay.
    pub count_max: usize,
    /// Media types that may be moved, `image/*` or `*/*` too.
    pub types: Vec<String>,
    /// Media types that stay.
    pub types_excluded: Vec<String>,
    /// Pictures that are shown in the text are moved too.
    pub inline: bool,
    /// How long a link works.
    #[serde(deserialize_with = "duration")]
    pub lifetime: Duration,
    /// What becomes of the part.
    pub replacement: Replacement,
    /// Written in the text and in place of the part; `{name}`, `{type}`, `{size}`, `{expires}` and `{link}` are filled in.
    pub text: String,
}

/// What becomes of a part that was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Replacement {
    /// The text takes its place.
    Note,
    /// It is gone, if the text could be written where a reader sees it.
    Remove,
}

/// Where octets go.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum StoreConfig {
    /// A folder of the service's own.
    Folder(PathBuf),
    /// An S3-compatible bucket.
    S3(S3),
}

/// A bucket.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3 {
    /// `https://…`; none: Amazon's, by region.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Its name.
    pub bucket: String,
    /// Its region.
    #[serde(default = "default_region")]
    pub region: String,
    /// Before all keys.
    #[serde(default)]
    pub prefix: String,
    /// File with the access key's id; none: from the environment.
    #[serde(default)]
    pub access_key_id_file: Option<PathBuf>,
    /// File with the access key's secret.
    #[serde(default)]
    pub secret_access_key_file: Option<PathBuf>,
}

/// The fields that are of the service alone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceFields {
    #[serde(default)]
    base_url: String,
    #[serde(default)]
    web: Option<SocketAddr>,
    #[serde(default)]
    key_file: Option<PathBuf>,
    #[serde(default)]
    store: Option<StoreConfig>,
    #[serde(default = "default_uploads")]
    uploads_max: usize,
    #[serde(default = "default_connections")]
    connections_max: usize,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the schema.
    #[error("{place}: {problem}; the fields are described in docs/services/attachment-links.md")]
    Schema {
        /// `config` or `parameters`.
        place: &'static str,
        /// What is wrong.
        problem: serde_json::Error,
    },
    /// A field with a value that cannot work.
    #[error("{field}: {problem}")]
    Value {
        /// Name of the field.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// A field of the service in a rule.
    #[error(
        "parameters: {0} is of the service, not of a rule; set it in builtin.config of the CalloutService"
    )]
    NotOfARule(&'static str),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            size_min: 5 * 1024 * 1024,
            size_max: 1024 * 1024 * 1024,
            count_max: 20,
            types: vec!["*/*".to_owned()],
            types_excluded: vec!["text/calendar".to_owned()],
            inline: false,
            lifetime: Duration::from_hours(30 * 24),
            replacement: Replacement::Note,
            text: TEXT.to_owned(),
        }
    }
}

// === impl Config ===

impl Config {
    /// From `builtin.config`.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ConfigError> {
        let place = "config";
        let schema = |problem| ConfigError::Schema { place, problem };
        let written: Option<Fields> = Deserialize::deserialize(json).map_err(schema)?;
        let written = written.unwrap_or_default();
        let (service, settings) = split(&written);
        let service: ServiceFields = read(service, place)?;
        let settings: Settings = read(settings, place)?;
        settings.check()?;
        check::base_url(&service.base_url)?;
        let store = service.store.ok_or(ConfigError::Value {
            field: "store",
            problem: "is missing; write { folder: /var/lib/opes/attachments } or { s3: { bucket: NAME } }",
        })?;
        store.check(service.key_file.is_some())?;
        check::limits(service.uploads_max, service.connections_max)?;
        Ok(Self {
            settings,
            store,
            base_url: service.base_url.trim_end_matches('/').to_owned(),
            web: service.web,
            key_file: service.key_file,
            uploads_max: service.uploads_max,
            connections_max: service.connections_max,
            written,
        })
    }

    /// With relative paths below `folder`.
    #[must_use]
    pub fn below(mut self, folder: &Path) -> Self {
        let put = |path: &mut PathBuf| *path = folder.join(&*path);
        self.key_file.iter_mut().for_each(put);
        match &mut self.store {
            StoreConfig::Folder(path) => put(path),
            StoreConfig::S3(s3) => {
                s3.access_key_id_file.iter_mut().for_each(put);
                s3.secret_access_key_file.iter_mut().for_each(put);
            }
        }
        self
    }

    /// The settings with a rule's `parameters`, a JSON object as text; its fields take the place of the service's.
    pub fn with_parameters(&self, json: &str) -> Result<Settings, ConfigError> {
        let place = "parameters";
        let schema = |problem| ConfigError::Schema { place, problem };
        let overrides: Option<Fields> = serde_json::from_str(json).map_err(schema)?;
        let overrides = overrides.unwrap_or_default();
        let of_service = |field: &&&str| overrides.contains_key(**field);
        if let Some(field) = SERVICE_FIELDS.iter().find(of_service) {
            return Err(ConfigError::NotOfARule(field));
        }
        let (_, mut settings) = split(&self.written);
        settings.extend(overrides);
        let settings: Settings = read(settings, place)?;
        settings.check()?;
        Ok(settings)
    }
}

fn split(written: &Fields) -> (Fields, Fields) {
    let fields = written.clone().into_iter();
    fields.partition(|(name, _)| SERVICE_FIELDS.contains(&name.as_str()))
}

fn read<T: for<'de> Deserialize<'de>>(
    fields: Fields,
    place: &'static str,
) -> Result<T, ConfigError> {
    serde_json::from_value(serde_json::Value::Object(fields))
        .map_err(|problem| ConfigError::Schema { place, problem })
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

const fn default_uploads() -> usize {
    32
}

const fn default_connections() -> usize {
    512
}

/// `90s`, `15m`, `12h`, `30d`.
fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = text.char_indices().next_back().and_then(|(at, unit)| {
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            _ => return None,
        };
        let number: u64 = text.get(..at)?.parse().ok()?;
        number.checked_mul(seconds).map(Duration::from_secs)
    });
    parsed.ok_or_else(|| {
        serde::de::Error::custom(format!(
            "`{text}` is no duration; write a number with s, m, h or d, such as 30d"
        ))
    })
}

#[cfg(test)]
mod tests;
