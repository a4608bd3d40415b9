//! Absolute URIs that name OPES systems, processors and services (RFC 3986 §4.3).
//!
//! Comma and semicolon separate entries and parameters in every place where these URIs stand, so a URI with one of them has to have it
//! percent-encoded.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Longest URI: with its parameters it still fits a line of 998 octets (RFC 5322 §2.1.1).
pub const URI_OCTETS_MAX: usize = 800;
/// Longest URI of a system: with a trace id it fits one line of a reply (RFC 5321 §4.5.3.1.5).
pub const SYSTEM_OCTETS_MAX: usize = 200;

/// Why a text names no agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// No `scheme:` at the beginning, or nothing after it.
    #[error("is not an absolute URI; write one such as https://mail.example.com/opes")]
    NotAbsolute,
    /// A character that no URI has, a fragment, or one of the separators.
    #[error(
        "has {0:?}, which a URI in a trace field cannot have; percent-encode it, and leave out a fragment"
    )]
    Character(char),
    /// Over [`URI_OCTETS_MAX`] or [`SYSTEM_OCTETS_MAX`].
    #[error("has {octets} octets, at most {max} are possible; shorten it")]
    TooLong {
        /// Octets that it has.
        octets: usize,
        /// Octets that it may have.
        max: usize,
    },
}

/// The name of an OPES system, processor or service. Two are equal if RFC 3986 §6.2.2 says so; shown as written.
#[derive(Debug, Clone)]
pub struct AgentUri {
    text: String,
    normal: String,
}

// === impl AgentUri ===

impl AgentUri {
    /// Reads any agent's URI.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        Self::within(text, URI_OCTETS_MAX)
    }

    /// Reads the URI of a system, which has to be shorter.
    pub fn system(text: &str) -> Result<Self, UriError> {
        Self::within(text, SYSTEM_OCTETS_MAX)
    }

    fn within(text: &str, max: usize) -> Result<Self, UriError> {
        if text.len() > max {
            return Err(UriError::TooLong {
                octets: text.len(),
                max,
            });
        }
        let (scheme, rest) = text.split_once(':').ok_or(UriError::NotAbsolute)?;
        if rest.is_empty() || !is_scheme(scheme) {
            return Err(UriError::NotAbsolute);
        }
        check_characters(rest)?;
        Ok(Self {
            text: text.to_owned(),
            normal: normal_form(scheme, rest),
        })
    }

    /// What is below this agent: `system.child(&["service", "default", "scan"])`.
    pub fn child(&self, segments: &[&str]) -> Result<Self, UriError> {
        let mut text = self.text.trim_end_matches('/').to_owned();
        for segment in segments {
            text.push('/');
            segment.bytes().for_each(|octet| encode(octet, &mut text));
        }
        Self::parse(&text)
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// This is `other`, or something below it.
    pub fn is_within(&self, other: &Self) -> bool {
        let above = other.normal.trim_end_matches('/');
        self.normal
            .strip_prefix(above)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    /// Does `text`, which is no list of entries, have this URI in it, or one below it?
    pub(crate) fn stands_in(&self, text: &str) -> bool {
        let (text, ours) = (text.to_ascii_lowercase(), self.text.to_ascii_lowercase());
        let ours = ours.trim_end_matches('/');
        text.match_indices(ours).any(|(at, found)| {
            let rest = text.get(at + found.len()..).unwrap_or_default();
            !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || "-._~%".contains(c))
        })
    }
}

impl fmt::Display for AgentUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for AgentUri {
    fn eq(&self, other: &Self) -> bool {
        self.normal == other.normal
    }
}

impl Eq for AgentUri {}

impl Hash for AgentUri {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.normal.hash(state);
    }
}

impl PartialOrd for AgentUri {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for AgentUri {
    fn cmp(&self, other: &Self) -> Ordering {
        self.normal.cmp(&other.normal)
    }
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"+-.".contains(&octet))
}

/// RFC 3986 §2, without `#`, comma and semicolon.
fn check_characters(rest: &str) -> Result<(), UriError> {
    let is_hex = |c: Option<char>| c.is_some_and(|c| c.is_ascii_hexdigit());
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        let fine = match character {
            '%' => is_hex(characters.next()) && is_hex(characters.next()),
            c => c.is_ascii_alphanumeric() || "-._~:/?@!$&'()*+=[]".contains(c),
        };
        if !fine {
            return Err(UriError::Character(character));
        }
    }
    Ok(())
}

/// RFC 3986 §6.2.2: case of scheme and authority, percent-encoding of what needs none.
fn normal_form(scheme: &str, rest: &str) -> String {
    let mut normal = scheme.to_ascii_lowercase();
    normal.push(':');
    let path_at = match rest.strip_prefix("//") {
        Some(authority) => authority
            .find(['/', '?'])
            .map_or(rest.len(), |length| length + 2),
        None => 0,
    };
    let (authority, path) = rest.split_at_checked(path_at).unwrap_or((rest, ""));
    normal.push_str(&decoded(authority).to_ascii_lowercase());
    normal.push_str(&decoded(path));
    normal
}

/// Unreserved characters decoded, the rest in upper-case digits. `text` was checked.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        match u8::from_str_radix(digits, 16) {
            Ok(octet) => encode(octet, &mut decoded),
            Err(_) => decoded.push_str(digits),
        }
        decoded.push_str(rest);
    }
    decoded
}

/// RFC 3986 §2.3: what is not unreserved is percent-encoded.
fn encode(octet: u8, text: &mut String) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
        text.push(char::from(octet));
    } else {
        text.extend(['%', digit(octet >> 4), digit(octet & 15)]);
    }
}

#[cfg(test)]
mod tests;
