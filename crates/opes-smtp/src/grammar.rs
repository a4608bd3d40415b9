//! Paths, mailboxes and parameters of SMTP commands (RFC 5321 §4.1.2, RFC 6531 §3.3).
//!
//! Values are kept as the client wrote them (RFC 4496 §4.6: a service may want to see exactly that): quoted local parts keep
//! their quotes and pairs, nothing is lower-cased. Whether a non-ASCII address is permitted is for the session to say.
//!
//! Lenient in four places: spaces between the colon and `<`, more than one space between parameters, `_` in domain labels
//! (hosts of containers), `=` inside a parameter value (SRS addresses in ORCPT). Source routes are taken and dropped, as
//! RFC 5321 §4.1.2 says.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::limits::{DOMAIN_OCTETS_MAX, PARAMETERS_MAX, PATH_OCTETS_MAX};

/// `local-part@domain`, verbatim, without source route and angle brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    text: Arc<str>,
    /// Offset of the `@` that ends the local part.
    at: usize,
}

/// Argument of MAIL FROM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: never answered by a non-delivery report (RFC 5321 §4.5.5).
    Null,
    /// A sender that can be written to.
    Mailbox(Mailbox),
}

/// Argument of RCPT TO.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<Postmaster>` without a domain, as written: the postmaster of this host (RFC 5321 §4.1.1.3).
    Postmaster(Arc<str>),
    /// Everybody else.
    Mailbox(Mailbox),
}

/// ESMTP parameters as written, `KEYWORD` or `KEYWORD=VALUE`, in their order (RFC 5321 §4.1.1.11).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Parameters(Vec<String>);

/// Why an argument is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathError {
    /// No `<`, or something other than parameters after `>`.
    Framing,
    /// Between the angle brackets.
    Mailbox,
    /// Longer than [`PATH_OCTETS_MAX`] or [`DOMAIN_OCTETS_MAX`].
    TooLong,
}

// === impl Mailbox ===

impl Mailbox {
    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As written, with the quotes of a quoted string.
    pub fn local_part(&self) -> &str {
        self.text.get(..self.at).unwrap_or_default()
    }

    /// A domain, or an address literal with its square brackets.
    pub fn domain(&self) -> &str {
        self.text.get(self.at + 1..).unwrap_or_default()
    }

    /// Reads an address without angle brackets, such as one that a service sends; `None` = malformed or too long.
    pub fn parse(text: &str) -> Option<Self> {
        let at = mailbox_at(text).ok()?;
        Some(Self {
            text: text.into(),
            at,
        })
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// === impl ReversePath ===

impl ReversePath {
    /// Without angle brackets; empty for the null reverse-path.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Mailbox(mailbox) => mailbox.as_str(),
        }
    }

    /// Reads an address without angle brackets; empty = the null reverse-path.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            Some(Self::Null)
        } else {
            Mailbox::parse(text).map(Self::Mailbox)
        }
    }

    /// The path at the start of `text` and what follows it.
    pub(crate) fn parse_prefix(text: &str) -> Result<(Self, &str), PathError> {
        if let Some(rest) = text.strip_prefix("<>") {
            return Ok((Self::Null, rest));
        }
        let (mailbox, rest) = path(text)?;
        Ok((Self::Mailbox(mailbox), rest))
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl ForwardPath ===

impl ForwardPath {
    const POSTMASTER: &'static str = "postmaster";

    /// Without angle brackets.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Postmaster(text) => text,
            Self::Mailbox(mailbox) => mailbox.as_str(),
        }
    }

    /// The domain; `None` for `<Postmaster>`.
    pub fn domain(&self) -> Option<&str> {
        match self {
            Self::Postmaster(_) => None,
            Self::Mailbox(mailbox) => Some(mailbox.domain()),
        }
    }

    /// Reads an address without angle brackets.
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case(Self::POSTMASTER) {
            return Some(Self::Postmaster(text.into()));
        }
        Mailbox::parse(text).map(Self::Mailbox)
    }

    /// The path at the start of `text` and what follows it.
    pub(crate) fn parse_prefix(text: &str) -> Result<(Self, &str), PathError> {
        let bare = text.strip_prefix('<').and_then(|text| text.split_once('>'));
        if let Some((name, rest)) =
            bare.filter(|(name, _)| name.eq_ignore_ascii_case(Self::POSTMASTER))
        {
            return Ok((Self::Postmaster(name.into()), rest));
        }
        let (mailbox, rest) = path(text)?;
        Ok((Self::Mailbox(mailbox), rest))
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Parameters ===

impl Parameters {
    /// Each as written.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Keyword and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|parameter| split(parameter))
    }

    /// The value of a keyword, which is compared without case: `None` = absent, `Some(None)` = without value.
    pub fn get(&self, keyword: &str) -> Option<Option<&str>> {
        self.iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(keyword))
            .map(|(_, value)| value)
    }

    /// True if the keyword is there, with or without a value.
    pub fn contains(&self, keyword: &str) -> bool {
        self.get(keyword).is_some()
    }

    /// Reads what follows a path; `None` = malformed, repeated or too many.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parameters = Self::default();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let (keyword, value) = split(word);
            let refused = !is_keyword(keyword)
                || value.is_some_and(str::is_empty)
                || parameters.contains(keyword)
                || parameters.0.len() == PARAMETERS_MAX;
            if refused {
                return None;
            }
            parameters.0.push(word.to_owned());
        }
        Some(parameters)
    }
}

fn split(parameter: &str) -> (&str, Option<&str>) {
    match parameter.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (parameter, None),
    }
}

/// `esmtp-keyword` (RFC 5321 §4.1.2).
fn is_keyword(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

// === Path ===

/// `Path = "<" [ A-d-l ":" ] Mailbox ">"`, at the start of `text`.
fn path(text: &str) -> Result<(Mailbox, &str), PathError> {
    let inner = text.strip_prefix('<').ok_or(PathError::Framing)?;
    let inner = skip_source_route(inner).ok_or(PathError::Mailbox)?;
    let end = path_end(inner).ok_or(PathError::Mailbox)?;
    let (address, rest) = inner.split_at_checked(end).ok_or(PathError::Mailbox)?;
    let at = mailbox_at(address)?;
    Ok((
        Mailbox {
            text: address.into(),
            at,
        },
        rest.strip_prefix('>').ok_or(PathError::Framing)?,
    ))
}

/// Offset of the `>` that ends the path: the first outside a quoted local part.
fn path_end(text: &str) -> Option<usize> {
    let quoted = if text.starts_with('"') {
        quoted_string_len(text)?
    } else {
        0
    };
    text.get(quoted..)?.find('>').map(|offset| quoted + offset)
}

/// `A-d-l = At-domain *( "," At-domain )`; "SHOULD be ignored" (RFC 5321 §4.1.2).
fn skip_source_route(text: &str) -> Option<&str> {
    if !text.starts_with('@') {
        return Some(text);
    }
    let (route, rest) = text.split_once(':')?;
    let hop = |hop: &str| hop.strip_prefix('@').is_some_and(is_domain);
    route.split(',').all(hop).then_some(rest)
}

/// Offset of the `@` of a well-formed mailbox.
fn mailbox_at(text: &str) -> Result<usize, PathError> {
    if text.len() > PATH_OCTETS_MAX - 2 {
        return Err(PathError::TooLong);
    }
    let at = if text.starts_with('"') {
        quoted_string_len(text).ok_or(PathError::Mailbox)?
    } else {
        let at = text.find('@').ok_or(PathError::Mailbox)?;
        text.get(..at)
            .filter(|local| is_dot_string(local))
            .ok_or(PathError::Mailbox)?;
        at
    };
    let domain = text
        .get(at..)
        .and_then(|rest| rest.strip_prefix('@'))
        .ok_or(PathError::Mailbox)?;
    if domain.len() > DOMAIN_OCTETS_MAX {
        return Err(PathError::TooLong);
    }
    if is_domain(domain) || is_address_literal(domain) {
        Ok(at)
    } else {
        Err(PathError::Mailbox)
    }
}

/// Octets of the quoted string at the start of `text`, quotes included: `DQUOTE *QcontentSMTP DQUOTE`.
fn quoted_string_len(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().skip(1);
    while let Some((offset, character)) = characters.next() {
        match character {
            '"' => return Some(offset + 1),
            '\\' => {
                characters
                    .next()
                    .filter(|(_, pair)| matches!(pair, ' '..='~'))?;
            }
            _ if character.is_control() => return None,
            _ => {}
        }
    }
    None
}

/// `Dot-string = Atom *("." Atom)`.
fn is_dot_string(text: &str) -> bool {
    text.split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5322 §3.2.3, with UTF8-non-ascii of RFC 6531 §3.3.
fn is_atext(character: char) -> bool {
    match character {
        '!' | '#' | '$' | '%' | '&' | '\'' | '*' | '+' | '-' | '/' | '=' | '?' | '^' | '_'
        | '`' | '{' | '|' | '}' | '~' => true,
        _ if character.is_ascii() => character.is_ascii_alphanumeric(),
        _ => !character.is_control(),
    }
}

/// `Domain = sub-domain *("." sub-domain)`; labels of at most 63 octets (RFC 1035 §2.3.4), U-labels allowed.
pub(crate) fn is_domain(text: &str) -> bool {
    const LABEL_OCTETS_MAX: usize = 63;
    let inner = |c: char| {
        c.is_ascii_alphanumeric() || c == '-' || c == '_' || !c.is_ascii() && !c.is_control()
    };
    let label = |label: &str| {
        !label.is_empty()
            && (label.len() <= LABEL_OCTETS_MAX || !label.is_ascii())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(inner)
    };
    text.split('.').all(label)
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3); no other tag is registered.
pub(crate) fn is_address_literal(text: &str) -> bool {
    let Some(inner) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    else {
        return false;
    };
    match inner.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
            address.parse::<Ipv6Addr>().is_ok()
        }
        _ => inner.parse::<Ipv4Addr>().is_ok(),
    }
}
