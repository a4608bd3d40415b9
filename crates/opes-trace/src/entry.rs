//! Trace entries: a URI with parameters, in lists (RFC 4236 §4, with the list and parameter syntax of RFC 2616 §2.1 and §3.6).

use std::fmt;

use crate::uri::{AgentUri, UriError};

/// Most entries that are read of one field.
pub const ENTRIES_MAX: usize = 128;
/// Most parameters of one entry.
pub const PARAMETERS_MAX: usize = 16;
/// Longest value of a parameter.
pub const VALUE_OCTETS_MAX: usize = 256;

/// Why the body of a field is no list of entries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceSyntax {
    /// An entry does not begin with an absolute URI.
    #[error("entry {entry}, counted from 1: its URI {error}")]
    Uri {
        /// Which entry.
        entry: usize,
        /// What is wrong with it.
        error: UriError,
    },
    /// A parameter that is not `name`, `name=token` or `name="text"`.
    #[error("entry {entry}, counted from 1: a parameter is not name=value")]
    Parameter {
        /// Which entry.
        entry: usize,
    },
    /// More than [`ENTRIES_MAX`] entries, or one with too many or too long parameters.
    #[error(
        "more than {ENTRIES_MAX} entries, {PARAMETERS_MAX} parameters of one, or {VALUE_OCTETS_MAX} octets in a value"
    )]
    TooMuch,
}

/// One agent that handled a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub uri: AgentUri,
    /// What it says of the pass.
    pub parameters: Vec<Parameter>,
}

/// `name`, `name=token` or `name="text"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// A token in lower case.
    pub name: String,
    /// Printable US-ASCII; none if there is no `=`.
    pub value: Option<String>,
}

// === impl Entry ===

impl Entry {
    /// An agent without parameters.
    pub fn new(uri: AgentUri) -> Self {
        Self {
            uri,
            parameters: Vec::new(),
        }
    }

    /// Adds a parameter. What no parameter can hold becomes `_`, what is too long is cut.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let printable = |c: char| if matches!(c, ' '..='~') { c } else { '_' };
        let token = |c: char| if is_token_char(c) { c } else { '_' };
        self.parameters.push(Parameter {
            name: name.to_ascii_lowercase().chars().map(token).collect(),
            value: Some(
                value
                    .chars()
                    .map(printable)
                    .take(VALUE_OCTETS_MAX)
                    .collect(),
            ),
        });
        self
    }

    /// Value of the first parameter of this name (lower case).
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|found| found.name == name)?;
        found.value.as_deref()
    }

    /// The entries of an unfolded field body. Empty elements are skipped (RFC 2616 §2.1).
    pub fn parse_list(text: &str) -> Result<Vec<Self>, TraceSyntax> {
        let mut entries = Vec::new();
        for element in split_quoted(text, ',') {
            if element.trim().is_empty() {
                continue;
            }
            if entries.len() == ENTRIES_MAX {
                return Err(TraceSyntax::TooMuch);
            }
            entries.push(Self::parse(element, entries.len() + 1)?);
        }
        Ok(entries)
    }

    fn parse(text: &str, number: usize) -> Result<Self, TraceSyntax> {
        let mut parts = split_quoted(text, ';');
        let uri = parts.next().unwrap_or_default().trim();
        let uri = AgentUri::parse(uri).map_err(|error| TraceSyntax::Uri {
            entry: number,
            error,
        })?;
        let mut parameters = Vec::new();
        for part in parts {
            let parameter = Parameter::parse(part.trim());
            let parameter = parameter.ok_or(TraceSyntax::Parameter { entry: number })?;
            let long = parameter.value.as_ref().map_or(0, String::len) > VALUE_OCTETS_MAX;
            if long || parameters.len() == PARAMETERS_MAX {
                return Err(TraceSyntax::TooMuch);
            }
            parameters.push(parameter);
        }
        Ok(Self { uri, parameters })
    }

    /// What must stay on one line each.
    pub(crate) fn words(&self) -> impl Iterator<Item = String> {
        let parameters = self.parameters.iter().map(ToString::to_string);
        std::iter::once(self.uri.to_string()).chain(parameters)
    }
}

// === impl Parameter ===

impl Parameter {
    fn parse(text: &str) -> Option<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start())?)),
            None => (text, None),
        };
        (!name.is_empty() && name.chars().all(is_token_char)).then(|| Self {
            name: name.to_ascii_lowercase(),
            value,
        })
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.value {
            None => Ok(()),
            Some(value) if !value.is_empty() && value.chars().all(is_token_char) => {
                write!(f, "={value}")
            }
            Some(value) => {
                let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
                write!(f, "=\"{escaped}\"")
            }
        }
    }
}

/// A token's or a quoted string's text; none if it is neither.
fn unquoted(text: &str) -> Option<String> {
    let Some(quoted) = text.strip_prefix('"') else {
        let token = !text.is_empty() && text.chars().all(is_token_char);
        return token.then(|| text.to_owned());
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    loop {
        let character = match characters.next()? {
            '"' => return characters.next().is_none().then_some(value),
            '\\' => characters.next()?,
            character => character,
        };
        if !matches!(character, ' '..='~') {
            return None;
        }
        value.push(character);
    }
}

/// RFC 2616 §2.2.
fn is_token_char(character: char) -> bool {
    matches!(character, '!'..='~') && !"()<>@,;:\\\"/[]?={}".contains(character)
}

/// Splits where `separator` stands outside of a quoted string.
fn split_quoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| {
        let was_escaped = std::mem::take(&mut escaped);
        match character {
            '\\' if quoted && !was_escaped => escaped = true,
            '"' if !was_escaped => quoted = !quoted,
            _ => {}
        }
        character == separator && !quoted
    })
}

#[cfg(test)]
mod tests;
