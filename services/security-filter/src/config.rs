//! The policy: what `builtin.config` of the CalloutService says, and what a rule's `parameters` override.
//!
//! Owns the defaults, which block executables out of the box. Fails with [`ConfigError`], which names field and remedy.

use opes_mime::edit::LINE_OCTETS_MAX;
use serde::Deserialize;

use crate::formats::{self, Format};
use crate::names::Pattern;

/// Most entries in `blockTypes` and in `blockNames`.
pub const ENTRIES_MAX: usize = 1000;
/// Octets: `sizeMax` if not configured.
const SIZE_MAX_DEFAULT: u64 = 64 * 1024 * 1024;

/// Fields that a rule cannot override.
const SERVICE_FIELDS: [&str; 2] = ["sizeMax", "largeMessages"];

/// Names of files that a double click runs.
const BLOCK_NAMES: [&str; 52] = [
    "*.exe",
    "*.com",
    "*.scr",
    "*.pif",
    "*.bat",
    "*.cmd",
    "*.cpl",
    "*.dll",
    "*.sys",
    "*.ocx",
    "*.msi",
    "*.msp",
    "*.mst",
    "*.msix",
    "*.appx",
    "*.application",
    "*.appref-ms",
    "*.gadget",
    "*.vbs",
    "*.vbe",
    "*.vb",
    "*.js",
    "*.jse",
    "*.ws",
    "*.wsf",
    "*.wsc",
    "*.wsh",
    "*.sct",
    "*.hta",
    "*.ps1",
    "*.psm1",
    "*.ps1xml",
    "*.msc",
    "*.lnk",
    "*.scf",
    "*.url",
    "*.inf",
    "*.reg",
    "*.chm",
    "*.hlp",
    "*.jar",
    "*.xll",
    "*.iso",
    "*.img",
    "*.vhd",
    "*.vhdx",
    "*.apk",
    "*.xpi",
    "*.settingcontent-ms",
    "*.library-ms",
    "*.search-ms",
    "*.rdp",
];
/// Groups of detected formats that run.
const BLOCK_TYPES: [&str; 6] = [
    "executable",
    "script",
    "shortcut",
    "office-macro",
    "disk-image",
    "test-virus",
];

/// Settings as written, camelCase; every field has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Detected formats by name or group (docs/services/security-filter.md), or media types, detected and declared; `audio/*`.
    pub block_types: Vec<String>,
    /// File names, `*` and `?` allowed; also names inside ZIP files.
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
    #[error("blockTypes: {0:?} is neither a media type such as application/pdf nor one of: {known}", known = known_types())]
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
            let problem = "bounds the memory of the service, not of a rule; set it in builtin.config of the CalloutService";
            return Err(ConfigError::Value { field, problem });
        }
        let mut fields = self.written.clone();
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
        check(&settings)?;
        let names = settings
            .block_names
            .iter()
            .map(|pattern| Pattern::new(pattern))
            .collect();
        Ok(Self {
            settings,
            names,
            written,
        })
    }

    /// The pattern that forbids this file name.
    pub fn blocks_name(&self, name: &str) -> Option<&str> {
        self.names
            .iter()
            .find(|pattern| pattern.matches(name))
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

fn check(settings: &Settings) -> Result<(), ConfigError> {
    let problem = |field, problem| Err(ConfigError::Value { field, problem });
    let is_type = |entry: &&String| !entry.contains('/') && !formats::is_known(entry);
    if let Some(unknown) = settings.block_types.iter().find(is_type) {
        return Err(ConfigError::UnknownType(unknown.clone()));
    }
    if settings.block_types.len() > ENTRIES_MAX {
        return problem("blockTypes", "more than 1000 entries; use groups or type/*");
    }
    if settings.block_names.len() > ENTRIES_MAX {
        return problem("blockNames", "more than 1000 entries; use * and ?");
    }
    if settings
        .block_names
        .iter()
        .any(|pattern| pattern.trim().is_empty())
    {
        return problem("blockNames", "an empty pattern; write a name such as *.exe");
    }
    if settings
        .block_names
        .iter()
        .any(|pattern| pattern.len() > LINE_OCTETS_MAX)
    {
        return problem(
            "blockNames",
            "a pattern of more than 998 octets; use * and ?",
        );
    }
    if !settings
        .header
        .bytes()
        .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
        || settings.header.len() > 76
    {
        return problem(
            "header",
            "not a header field name; use letters, digits and hyphens, 76 at most, e.g. X-Opes-Security",
        );
    }
    if settings.subject_mark.chars().any(char::is_control)
        || settings.subject_mark.chars().count() > 200
    {
        return problem(
            "subjectMark",
            "more than one line or 200 characters; use a short text, or an empty one for no mark",
        );
    }
    if settings.size_max == 0 || settings.size_max > 1 << 32 {
        return problem(
            "sizeMax",
            "not between 1 and 4294967296 octets; 67108864 is 64 MiB",
        );
    }
    if settings.large_messages == 0 || settings.large_messages > 10_000 {
        return problem(
            "largeMessages",
            "not between 1 and 10000; memory is bounded by this times sizeMax",
        );
    }
    Ok(())
}

fn known_types() -> String {
    let mut names: Vec<&str> = formats::FORMATS
        .iter()
        .flat_map(|format| [format.group, format.name])
        .collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn error(config: &serde_json::Value) -> String {
        Config::from_json(config).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_block_what_runs() {
        for config in [json!(null), json!({})] {
            let config = Config::from_json(&config).unwrap();
            assert_eq!(config.blocks_name("Invoice.PDF.exe"), Some("*.exe"));
            assert_eq!(config.blocks_name("report.pdf"), None);
            assert!(config.blocks_format(formats::detect(b"\x7fELF").unwrap()));
            assert!(!config.blocks_format(formats::detect(b"%PDF-1.7").unwrap()));
        }
    }

    #[test]
    fn types_by_name_group_and_media_type() {
        let config = json!({ "blockTypes": ["archive", "pdf", "audio/*", "application/x-msdownload"], "blockNames": [] });
        let config = Config::from_json(&config).unwrap();
        for content in [&b"PK\x05\x06"[..], b"%PDF-1", b"MZ"] {
            assert!(config.blocks_format(formats::detect(content).unwrap()));
        }
        assert!(config.blocks_media_type("audio/mpeg") && !config.blocks_media_type("video/mpeg"));
        assert!(!config.blocks_format(formats::detect(b"\x7fELF").unwrap()));
    }

    #[test]
    fn errors_name_field_and_remedy() {
        for (config, parts) in [
            (json!({ "blockType": [] }), ["blockType", "blockTypes"]),
            (json!({ "onViolation": "drop" }), ["onViolation", "replace"]),
            (
                json!({ "blockTypes": ["executables"] }),
                ["executables", "executable, "],
            ),
            (json!({ "blockNames": [" "] }), ["blockNames", "*.exe"]),
            (json!({ "header": "X Opes" }), ["header", "X-Opes-Security"]),
            (
                json!({ "subjectMark": "a\nb" }),
                ["subjectMark", "short text"],
            ),
            (json!({ "sizeMax": 0 }), ["sizeMax", "67108864"]),
            (json!({ "largeMessages": 0 }), ["largeMessages", "10000"]),
            (json!([]), ["config", "docs/"]),
        ] {
            let message = error(&config);
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }

    #[test]
    fn a_rule_may_override() {
        let config = Config::from_json(&json!({ "quarantine": true })).unwrap();
        let rule = config
            .with_parameters(r#"{"onViolation":"reject","notify":["administrator"]}"#)
            .unwrap();
        assert_eq!(rule.settings.on_violation, OnViolation::Reject);
        assert_eq!(rule.settings.notify, [NotifyTo::Administrator]);
        assert!(rule.settings.quarantine && rule.blocks_name("a.exe").is_some());
        assert!(config.with_parameters("null").is_ok());
        let message = config
            .with_parameters(r#"{"sizeMax":1}"#)
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("sizeMax: ") && message.contains("builtin.config"),
            "{message}"
        );
        let message = config
            .with_parameters(r#"{"blockName":[]}"#)
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("parameters: blockName: unknown field `blockName`"),
            "{message}"
        );
    }
}
