//! The policy: what `builtin.config` of the CalloutService says, and what a rule's `parameters` override.
//!
//! Owns the defaults, which block executables out of the box. Fails with [`ConfigError`], which names field and remedy.

mod archives;
mod check;
mod clamd;
mod defaults;
mod policies;

use opes_mime::edit::LINE_OCTETS_MAX;
use serde::Deserialize;

pub use self::archives::ArchiveLimits;
pub use self::clamd::{Address, ClamdConfig, WholeMessage};
use self::defaults::{BLOCK_NAMES, BLOCK_TYPES};
pub use self::policies::{POLICIES_MAX, Policy, PolicyAsWritten};
use crate::formats::Format;
use crate::names::{Name, Pattern};

/// Most entries in `blockTypes` and in `blockNames`.
pub const ENTRIES_MAX: usize = 1000;
/// Octets: `sizeMax` if not configured.
const SIZE_MAX_DEFAULT: u64 = 64 * 1024 * 1024;

/// Fields that a rule cannot override.
const SERVICE_FIELDS: [&str; 4] = ["sizeMax", "largeMessages", "archives", "clamd"];

/// Settings as written, camelCase; every field has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "one per switch of the configuration"
)]
pub struct Settings {
    /// Detected formats by name or group (docs/services/security-filter.md), or media types, detected and declared; `audio/*`.
    pub block_types: Vec<String>,
    /// File names, `*` and `?` allowed; also names inside archives.
    pub block_names: Vec<String>,
    /// Deepest nesting of messages inside messages.
    pub max_nesting: u32,
    /// What to do about a forbidden part.
    pub on_violation: OnViolation,
    /// What to do about a message that cannot be looked at completely.
    pub on_unscannable: OnUnscannable,
    /// In front of the subject when a part was replaced; empty = none.
    pub subject_mark: String,
    /// In front of the text when a part was replaced; empty = none.
    pub body_mark: String,
    /// Header field that says what was done; empty = none. One that came with the message is taken out.
    pub header: String,
    /// Add the header field to clean messages too.
    pub header_on_clean: bool,
    /// What stands in place of a replaced part; `{name}` and `{reason}` are filled in.
    pub replacement_text: String,
    /// Advise quarantine besides.
    pub quarantine: bool,
    /// Whom to notify of a violation.
    pub notify: Vec<NotifyTo>,
    /// Report violations as incidents.
    pub report: bool,
    /// Largest message looked at, octets.
    pub size_max: u64,
    /// Messages over 1 MiB held at once: bounds memory to this times `sizeMax`.
    pub large_messages: u32,
    /// Look into archives.
    pub open_archives: bool,
    /// How far.
    pub archives: ArchiveLimits,
    /// ClamAV's daemon; none: no search for viruses.
    pub clamd: Option<ClamdConfig>,
    /// Search for viruses, if there is a `clamd`.
    pub virus_scan: bool,
    /// Sub-policies by sender and recipient, the first that fits holds; none, not even an empty list: the service does not ask for addresses.
    pub policies: Option<Vec<PolicyAsWritten>>,
}

/// What to do about a forbidden part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnViolation {
    /// A text in its place.
    Replace,
    /// 550 to the client.
    Reject,
}

/// What to do about a message that cannot be looked at completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnUnscannable {
    /// 550, or 552 if it is too large.
    Reject,
    /// 451.
    Tempfail,
    /// A text in place of the part that cannot be looked at; 550 if it is the message itself.
    Replace,
    /// Let it through, with the header field.
    Accept,
}

/// Whom to notify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NotifyTo {
    /// The reverse-path.
    Sender,
    /// Every recipient.
    Recipients,
    /// The administrator of the processor.
    Administrator,
}

/// Fields as written.
type Fields = serde_json::Map<String, serde_json::Value>;

/// Settings that were checked, with compiled patterns.
#[derive(Debug, Clone)]
pub struct Config {
    /// As written.
    pub settings: Settings,
    names: Vec<Pattern>,
    policies: Vec<Policy>,
    /// The fields that were written, for rules to override.
    written: Fields,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the schema.
    #[error("{place}: {problem}; the fields are described in docs/services/security-filter.md")]
    Schema {
        /// `config` or `parameters`, with the field if it is known.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// A type that is neither known nor a media type.
    #[error("blockTypes: {0:?} is neither a media type such as application/pdf nor one of: {known}", known = check::known_types())]
    UnknownType(String),
    /// A field with a value that cannot work.
    #[error("{field}: {problem}")]
    Value {
        /// Name of the field.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            block_types: BLOCK_TYPES.map(str::to_owned).to_vec(),
            block_names: BLOCK_NAMES.map(str::to_owned).to_vec(),
            max_nesting: 5,
            on_violation: OnViolation::Replace,
            on_unscannable: OnUnscannable::Reject,
            subject_mark: "[attachment removed] ".to_owned(),
            body_mark: String::new(),
            header: "X-Opes-Security".to_owned(),
            header_on_clean: false,
            replacement_text: "The attachment {name} was removed from this message by the security filter: {reason}.\n".to_owned(),
            quarantine: false,
            notify: Vec::new(),
            report: true,
            size_max: SIZE_MAX_DEFAULT,
            large_messages: 4,
            open_archives: true,
            archives: ArchiveLimits::default(),
            clamd: None,
            virus_scan: true,
            policies: None,
        }
    }
}

impl Config {
    /// From `builtin.config`; `null` = all defaults.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ConfigError> {
        Self::parse(json.clone(), "config")
    }

    /// With a rule's `parameters`, a JSON object as text; its fields take the place of the service's.
    pub fn with_parameters(&self, json: &str) -> Result<Self, ConfigError> {
        let place = "parameters";
        let overrides: Option<Fields> =
            serde_json::from_str(json).map_err(|error| schema(place, &error))?;
        let overrides = overrides.unwrap_or_default();
        if let Some(field) = SERVICE_FIELDS
            .iter()
            .find(|field| overrides.contains_key(**field))
        {
            let problem = "is the service's, not a rule's: it bounds memory or names an engine; set it in builtin.config of the CalloutService";
            return Err(ConfigError::Value { field, problem });
        }
        let mut fields = self.written.clone();
        if overrides.contains_key("policies") && !fields.contains_key("policies") {
            let (field, problem) = (
                "policies",
                "the service asks for no addresses; write `policies: []` in builtin.config of the CalloutService, then rules may have some of their own",
            );
            return Err(ConfigError::Value { field, problem });
        }
        fields.extend(overrides);
        Self::parse(serde_json::Value::Object(fields), place)
    }

    fn parse(json: serde_json::Value, place: &'static str) -> Result<Self, ConfigError> {
        let fields: Option<Fields> =
            serde_json::from_value(json).map_err(|error| schema(place, &error))?;
        let written = fields.unwrap_or_default();
        let settings = read(&written).map_err(|error| match culprit(&written) {
            Some(field) => schema(&format!("{place}: {field}"), &error),
            None => schema(place, &error),
        })?;
        check::check(&settings)?;
        let names = settings
            .block_names
            .iter()
            .map(|pattern| Pattern::new(pattern))
            .collect();
        let policies = settings.policies.iter().flatten();
        let policies = policies.map(|policy| Policy::new(policy, &written));
        Ok(Self {
            policies: policies.collect::<Result<_, _>>()?,
            settings,
            names,
            written,
        })
    }

    /// Sub-policies, the first that fits holds.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The pattern that forbids this file name.
    pub fn blocks_name(&self, name: &str) -> Option<&str> {
        let name = Name::new(name);
        self.names
            .iter()
            .find(|pattern| pattern.fits(&name))
            .map(Pattern::as_str)
    }

    /// Is content of this format forbidden?
    pub fn blocks_format(&self, format: Format) -> bool {
        let named = |entry: &String| entry == format.name || entry == format.group;
        self.settings.block_types.iter().any(named) || self.blocks_media_type(format.media_type)
    }

    /// Is this media type, in lower case, forbidden?
    pub fn blocks_media_type(&self, media_type: &str) -> bool {
        let fits = |entry: &String| match entry.strip_suffix("/*") {
            Some(kind) => media_type
                .split_once('/')
                .is_some_and(|(found, _)| found.eq_ignore_ascii_case(kind)),
            None => entry.contains('/') && entry.eq_ignore_ascii_case(media_type),
        };
        self.settings.block_types.iter().any(fits)
    }
}

fn schema(place: &str, error: &serde_json::Error) -> ConfigError {
    ConfigError::Schema {
        place: place.to_owned(),
        problem: error.to_string(),
    }
}

fn read(fields: &Fields) -> Result<Settings, serde_json::Error> {
    serde_json::from_value(serde_json::Value::Object(fields.clone()))
}

/// The field that cannot be read. What serde says of a wrong value does not name it.
fn culprit(fields: &Fields) -> Option<&String> {
    let is_bad = |(name, value): &(&String, &serde_json::Value)| {
        read(&Fields::from_iter([((*name).clone(), (*value).clone())])).is_err()
    };
    fields.iter().find(is_bad).map(|(name, _)| name)
}

#[cfg(test)]
mod tests;
