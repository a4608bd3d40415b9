//! What is refused and how: the `config` of a `CalloutService`, and what a rule's `parameters` say otherwise.

use serde::{Deserialize, Serialize};

use crate::addresses::AddressList;
use crate::words::{WordError, Words};

/// Most entries in one list.
pub const ENTRIES_MAX: usize = 10_000;

/// Octets of one entry.
const ENTRY_OCTETS_MAX: usize = 1000;

/// Where words are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The Subject field.
    Subject,
    /// Parts of type text.
    Text,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Written {
    senders: Vec<String>,
    recipients: Vec<String>,
    words: Vec<String>,
    patterns: Vec<String>,
    look_at: Vec<Place>,
    code: u32,
    enhanced: String,
    text: String,
    look_octets_max: usize,
}

/// Checked and compiled.
#[derive(Debug, Clone)]
pub struct Config {
    written: Written,
    /// Refused in the reply to MAIL.
    pub senders: AddressList,
    /// Refused in the reply to RCPT.
    pub recipients: AddressList,
    /// Refused in the reply to the content.
    pub words: Words,
}

/// Why a configuration makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the fields there are.
    #[error("{0}; docs/services/content-block.md lists the fields")]
    Fields(#[from] serde_json::Error),
    /// Neither senders nor recipients nor words nor patterns.
    #[error("nothing is refused; write senders, recipients, words or patterns")]
    Nothing,
    /// Too long a list.
    #[error(
        "{field}: {count} entries, more than {ENTRIES_MAX}; use access-control for long lists of addresses"
    )]
    TooMany {
        /// The list.
        field: &'static str,
        /// Its length.
        count: usize,
    },
    /// Too long, or nothing at all: it would be found everywhere.
    #[error("{field}: `{entry}` is empty or longer than {ENTRY_OCTETS_MAX} octets")]
    Entry {
        /// The list.
        field: &'static str,
        /// The start of the entry.
        entry: String,
    },
    /// Not an address.
    #[error("{field}: `{entry}` is none of joe@example.org, joe@, @example.org and @.example.org")]
    Address {
        /// The list.
        field: &'static str,
        /// As configured.
        entry: String,
    },
    /// Not a pattern.
    #[error(transparent)]
    Word(#[from] WordError),
    /// Not a refusal.
    #[error(
        "code {code} {enhanced}: a refusal is 400 to 599, and its enhanced code begins with the same digit"
    )]
    Reply {
        /// As configured.
        code: u32,
        /// As configured.
        enhanced: String,
    },
}

// === impl Written ===

impl Default for Written {
    fn default() -> Self {
        Self {
            senders: Vec::new(),
            recipients: Vec::new(),
            words: Vec::new(),
            patterns: Vec::new(),
            look_at: vec![Place::Subject, Place::Text],
            code: 550,
            enhanced: "5.7.1".to_owned(),
            text: "This message is not welcome here".to_owned(),
            look_octets_max: 8 * 1024 * 1024,
        }
    }
}

// === impl Config ===

impl Config {
    /// Reads, checks and compiles it.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ConfigError> {
        Self::compile(Written::deserialize(json)?)
    }

    /// The same with the fields that a rule's `parameters` have; a list there replaces the list here.
    pub fn with_parameters(&self, json: &str) -> Result<Self, ConfigError> {
        let mut all = serde_json::to_value(&self.written)?;
        let own: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json)?;
        if let Some(fields) = all.as_object_mut() {
            fields.extend(own);
        }
        Self::compile(Written::deserialize(&all)?)
    }

    fn compile(written: Written) -> Result<Self, ConfigError> {
        for (field, list) in [
            ("senders", &written.senders),
            ("recipients", &written.recipients),
            ("words", &written.words),
            ("patterns", &written.patterns),
        ] {
            check(field, list)?;
        }
        let addresses = |field, list: &[String]| {
            AddressList::new(list).map_err(|entry| ConfigError::Address { field, entry })
        };
        let class = written.code / 100;
        if !(4..=5).contains(&class) || !written.enhanced.starts_with(&format!("{class}.")) {
            let (code, enhanced) = (written.code, written.enhanced);
            return Err(ConfigError::Reply { code, enhanced });
        }
        let config = Self {
            senders: addresses("senders", &written.senders)?,
            recipients: addresses("recipients", &written.recipients)?,
            words: Words::new(&written.words, &written.patterns)?,
            written,
        };
        if config.senders.is_empty() && config.recipients.is_empty() && config.words.is_empty() {
            return Err(ConfigError::Nothing);
        }
        Ok(config)
    }

    /// Are words looked for there?
    pub fn looks_at(&self, place: Place) -> bool {
        self.written.look_at.contains(&place)
    }

    /// Code, enhanced code and text of a refusal.
    pub fn reply(&self) -> (u32, &str, &str) {
        (
            self.written.code,
            &self.written.enhanced,
            &self.written.text,
        )
    }

    /// Octets of a message that are looked at, from its start.
    pub fn look_octets_max(&self) -> usize {
        self.written.look_octets_max
    }
}

fn check(field: &'static str, list: &[String]) -> Result<(), ConfigError> {
    if list.len() > ENTRIES_MAX {
        return Err(ConfigError::TooMany {
            field,
            count: list.len(),
        });
    }
    let wrong = list
        .iter()
        .find(|entry| entry.trim().is_empty() || entry.len() > ENTRY_OCTETS_MAX);
    match wrong {
        Some(entry) => Err(ConfigError::Entry {
            field,
            entry: entry.chars().take(40).collect(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (config, said) in [
            (json!({}), "nothing is refused"),
            (json!({ "sender": [] }), "unknown field `sender`"),
            (json!({ "senders": ["spam"] }), "senders: `spam` is none of"),
            (json!({ "words": [" "] }), "words: ` ` is empty"),
            (json!({ "patterns": ["("] }), "patterns: `(`"),
            (json!({ "words": ["a"], "code": 250 }), "code 250"),
            (json!({ "words": ["a"], "code": 450 }), "code 450 5.7.1"),
            (
                json!({ "words": vec!["a"; ENTRIES_MAX + 1] }),
                "10001 entries",
            ),
        ] {
            let error = Config::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_rule_says_it_otherwise_for_its_own_mail() {
        let config = Config::from_json(&json!({ "words": ["casino"], "text": "No" })).unwrap();
        let own = config
            .with_parameters(r#"{"text": "Not here", "lookAt": ["subject"]}"#)
            .unwrap();
        assert_eq!(own.reply(), (550, "5.7.1", "Not here"));
        assert!(own.words.find("casino").is_some() && !own.looks_at(Place::Text));
        let error = config
            .with_parameters(r#"{"txt": "x"}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown field `txt`"), "{error}");
    }
}
