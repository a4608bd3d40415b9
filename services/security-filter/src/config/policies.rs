//! Sub-policies by sender and recipient (RFC 4496 §4.1).

use std::sync::Arc;

use serde::Deserialize;

use super::{Config, ConfigError, Fields, LINE_OCTETS_MAX, SERVICE_FIELDS};
use crate::names::Glob;

/// Most sub-policies.
pub const POLICIES_MAX: usize = 100;
/// Most patterns in one of them.
const PATTERNS_MAX: usize = 1000;

/// A sub-policy as written, camelCase.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyAsWritten {
    /// Patterns for reverse-paths, `*` and `?`, case does not matter; the null reverse-path is the empty text. None: every sender.
    #[serde(default)]
    pub senders: Vec<String>,
    /// The same for forward-paths.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Fields that take the place of those around it.
    pub set: Fields,
}

/// A sub-policy.
#[derive(Debug, Clone)]
pub struct Policy {
    senders: Vec<Glob>,
    recipients: Vec<Glob>,
    /// What holds under it.
    pub config: Arc<Config>,
}

// === impl Policy ===

impl Policy {
    /// `around`: the fields that it is written among.
    pub(super) fn new(written: &PolicyAsWritten, around: &Fields) -> Result<Self, ConfigError> {
        let wrong = |problem| {
            let field = "policies";
            Err(ConfigError::Value { field, problem })
        };
        let inside = |field: &&&str| written.set.contains_key(**field);
        if SERVICE_FIELDS.iter().find(inside).is_some() {
            return wrong(
                "sizeMax, largeMessages, archives and clamd are the service's, not a sub-policy's; set them in builtin.config of the CalloutService",
            );
        }
        if written.set.contains_key("policies") {
            return wrong("a sub-policy has none of its own; write them side by side");
        }
        let patterns = || written.senders.iter().chain(&written.recipients);
        if patterns().count() > PATTERNS_MAX
            || patterns().any(|pattern| pattern.len() > LINE_OCTETS_MAX)
        {
            return wrong("more than 1000 patterns, or one of more than 998 octets; use * and ?");
        }
        let mut fields = around.clone();
        fields.remove("policies");
        fields.extend(written.set.clone());
        let globs = |patterns: &[String]| patterns.iter().map(|text| Glob::new(text)).collect();
        Ok(Self {
            senders: globs(&written.senders),
            recipients: globs(&written.recipients),
            config: Arc::new(Config::parse(
                serde_json::Value::Object(fields),
                "policies: set",
            )?),
        })
    }

    /// Is this sub-policy the one for a message from `sender` to `recipient`?
    pub fn is_for(&self, sender: &str, recipient: &str) -> bool {
        let fits = |globs: &[Glob], address: &str| {
            globs.is_empty() || globs.iter().any(|glob| glob.matches(address))
        };
        fits(&self.senders, sender) && fits(&self.recipients, recipient)
    }
}
