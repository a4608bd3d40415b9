//! What is repaired: the `config` of a `CalloutService`.

use serde::Deserialize;

/// One kind of repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Repair {
    /// Lines end with CRLF, the last one too (RFC 5322 §2.1).
    LineEnds,
    /// Fields that may be there once are there once (RFC 5322 §3.6).
    Singletons,
    /// `Date` is there (RFC 5322 §3.6.1).
    Date,
    /// `Message-ID` is there (RFC 5322 §3.6.4).
    MessageId,
    /// Header fields are US-ASCII unless the client said SMTPUTF8 (RFC 2047, RFC 2231).
    RawHeaders,
    /// Names of MIME sections are names that a file may have (RFC 2183 §2.3).
    SectionNames,
    /// Multiparts are closed (RFC 2046 §5.1.1).
    Boundaries,
    /// Base64 is base64, in lines of 76 (RFC 2045 §6.8).
    Base64,
    /// Lines of a text have at most 998 octets (RFC 5322 §2.1.1).
    LongLines,
}

/// What `config` may hold; every field has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// All of them by default.
    pub repairs: Vec<Repair>,
    /// Right-hand side of a `Message-ID` that is missing.
    pub domain: String,
    /// Octets of a message that is looked at; a larger one passes as it is.
    pub message_size_max: usize,
}

/// Why a configuration makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the fields above.
    #[error("{0}; docs/services/normalizer.md lists the fields")]
    Fields(#[from] serde_json::Error),
    /// Not the right-hand side of an id.
    #[error("domain: `{0}` is not a domain name")]
    Domain(String),
    /// A limit of nothing.
    #[error("messageSizeMax: 0 would let nothing be looked at; leave it out for the default")]
    Zero,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            repairs: vec![
                Repair::LineEnds,
                Repair::Singletons,
                Repair::Date,
                Repair::MessageId,
                Repair::RawHeaders,
                Repair::SectionNames,
                Repair::Boundaries,
                Repair::Base64,
                Repair::LongLines,
            ],
            domain: "normalizer.invalid".to_owned(),
            message_size_max: 64 * 1024 * 1024,
        }
    }
}

impl Config {
    /// Reads and checks it.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ConfigError> {
        let config = Self::deserialize(json)?;
        let is_label = |label: &str| {
            !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        if config.domain.len() > 255 || !config.domain.split('.').all(is_label) {
            return Err(ConfigError::Domain(config.domain));
        }
        if config.message_size_max == 0 {
            return Err(ConfigError::Zero);
        }
        Ok(config)
    }

    /// Is this repaired?
    pub fn has(&self, repair: Repair) -> bool {
        self.repairs.contains(&repair)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (config, said) in [
            (json!({ "repair": [] }), "unknown field `repair`"),
            (
                json!({ "repairs": ["spelling"] }),
                "unknown variant `spelling`",
            ),
            (json!({ "domain": "a b" }), "domain: `a b`"),
            (json!({ "messageSizeMax": 0 }), "messageSizeMax"),
        ] {
            let error = Config::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(Config::from_json(&json!({})).unwrap().has(Repair::Base64));
    }
}
