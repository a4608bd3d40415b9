//! From text or from an inline configuration to a checked [`Policy`].

use std::collections::HashSet;
use std::path::Path;

use super::{Action, LOOKUP_RULES_MAX, Policy, RULES_MAX, Rule};
use crate::lookup::Directories;

/// Why a text is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not YAML, an unknown field, a malformed pattern.
    #[error("{place}: {message}")]
    Syntax {
        /// `file:line:column` or `rules[3]`.
        place: String,
        /// With the remedy.
        message: String,
    },
    /// Each rule is fine alone, the whole is not.
    #[error("{place}: {message}")]
    Whole {
        /// The file, or `policy`.
        place: String,
        /// With the remedy.
        message: String,
    },
}

// === impl Policy ===

impl Policy {
    /// Reads the YAML `text` of `file`; the errors name file and line.
    pub fn from_yaml(
        file: &Path,
        text: &str,
        directories: &Directories,
    ) -> Result<Self, PolicyError> {
        let policy: Self = serde_saphyr::from_str(text).map_err(|error| {
            let place = match error.location() {
                Some(at) => format!("{}:{}:{}", file.display(), at.line(), at.column()),
                None => file.display().to_string(),
            };
            let message = one_line(&error.without_snippet().to_string());
            PolicyError::Syntax { place, message }
        })?;
        policy.checked(&file.display().to_string(), directories)
    }

    /// Reads a policy that stands in the configuration itself.
    pub fn from_json(
        json: &serde_json::Value,
        directories: &Directories,
    ) -> Result<Self, PolicyError> {
        let policy: Self =
            serde_json::from_value(json.clone()).map_err(|error| PolicyError::Syntax {
                place: faulty_rule(json),
                message: error.to_string(),
            })?;
        policy.checked("policy", directories)
    }

    fn checked(mut self, place: &str, directories: &Directories) -> Result<Self, PolicyError> {
        match self.flaw().or_else(|| self.bind(directories)) {
            None => Ok(self),
            Some(message) => Err(PolicyError::Whole {
                place: place.to_owned(),
                message,
            }),
        }
    }

    fn flaw(&self) -> Option<String> {
        if self.rules.len() > RULES_MAX {
            return Some(format!(
                "more than {RULES_MAX} rules; put addresses into one list"
            ));
        }
        if self.default == Action::Lookup {
            return Some("`default` is `allow` or `deny`; only a rule can look up".to_owned());
        }
        let asking = self.rules.iter().filter(|rule| rule.lookup.is_some());
        if asking.count() > LOOKUP_RULES_MAX {
            return Some(format!("more than {LOOKUP_RULES_MAX} rules with `lookup`"));
        }
        let mut names = HashSet::new();
        let twice = self
            .rules
            .iter()
            .find(|rule| !names.insert(rule.name.as_str()));
        twice
            .map(|rule| format!("two rules are called `{}`; rename one", rule.name))
            .or_else(|| self.rules.iter().find_map(Rule::flaw))
    }

    fn bind(&mut self, directories: &Directories) -> Option<String> {
        self.rules.iter_mut().find_map(|rule| {
            let bound = rule.lookup.as_mut().map(|lookup| lookup.bind(directories));
            let reason = bound?.err()?;
            Some(format!("rule `{}`: {reason}", rule.name))
        })
    }
}

// === impl Rule ===

impl Rule {
    fn flaw(&self) -> Option<String> {
        let name = &self.name;
        if self.action == Action::Allow && self.reply.is_some() {
            return Some(format!(
                "rule `{name}` allows, so its `reply` is never sent; remove it"
            ));
        }
        if let Some(flaw) = self.lookup_flaw() {
            return Some(format!("rule `{name}`: {flaw}"));
        }
        let contradiction = self.auth.is_some() && self.authenticated == Some(false);
        contradiction.then(|| {
            format!(
                "rule `{name}` never matches: `auth` names identities, `authenticated` is false"
            )
        })
    }
}

impl Rule {
    fn lookup_flaw(&self) -> Option<&'static str> {
        let lookup = self.lookup.as_ref();
        let verdict = lookup.and_then(|lookup| lookup.verdict.as_ref());
        let found = lookup.and_then(|lookup| lookup.found);
        match (self.action, verdict, found) {
            (Action::Lookup, None, _) => Some(
                "`action: lookup` needs `lookup` with `verdict`, the attribute or column that decides",
            ),
            (Action::Lookup, Some(_), Some(_)) => {
                Some("with `action: lookup` the word decides, not `found`; remove one")
            }
            (Action::Allow | Action::Deny, Some(_), _) => {
                Some("`verdict` is read with `action: lookup` only")
            }
            _ => None,
        }
    }
}

/// serde_json does not say where in a value the fault is; the first rule that cannot be read alone is it.
fn faulty_rule(json: &serde_json::Value) -> String {
    let rules = json.get("rules").and_then(serde_json::Value::as_array);
    let faulty = rules.and_then(|rules| {
        rules
            .iter()
            .position(|rule| serde_json::from_value::<Rule>(rule.clone()).is_err())
    });
    faulty.map_or_else(
        || "policy".to_owned(),
        |index| format!("policy: rules[{index}]"),
    )
}

fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}
