//! Bypass requests: the header field `OPES-Bypass` (RFC 4236 §5) and the ESMTP parameter `OPESBYPASS`.
//!
//! A request names agents by URI or all of them by `*`. A URI that nobody here has counts as `*` (R3897-22): whoever asks for too much is
//! still refused what is not to be bypassed.

use std::collections::BTreeSet;

use crate::uri::{AgentUri, UriError};
use crate::xtext;

/// Most URIs of one request; one with more asks for everything.
pub const URIS_MAX: usize = 32;

/// Why a request cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BypassSyntax {
    /// Neither `*` nor an absolute URI.
    #[error("{text:?} {error}, or `*`")]
    Uri {
        /// As it stands there.
        text: String,
        /// What is wrong with it.
        error: UriError,
    },
    /// Nothing is named.
    #[error("names nothing; write `*` or the URIs of services")]
    Empty,
    /// Not `xtext` (RFC 3461 §4).
    #[error("is not xtext; write +2B for + and +3D for =")]
    Xtext,
}

/// What somebody wants left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BypassRequest {
    /// `*`: everything.
    All,
    /// Whatever has one of these URIs; never empty.
    Named(Vec<AgentUri>),
}

/// What a request means here. Services that are not to be bypassed may be among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bypass {
    /// Everything.
    All,
    /// Services by name (`namespace/name`); never empty.
    Services(BTreeSet<String>),
}

// === impl BypassRequest ===

impl BypassRequest {
    /// Reads the body of an `OPES-Bypass` field.
    pub fn parse_field(value: &[u8]) -> Result<Self, BypassSyntax> {
        Self::parse(&crate::field::unfolded(value))
    }

    /// Reads the value of the MAIL parameter `OPESBYPASS`.
    pub fn parse_parameter(value: &str) -> Result<Self, BypassSyntax> {
        Self::parse(&xtext::decode(value).ok_or(BypassSyntax::Xtext)?)
    }

    fn parse(text: &str) -> Result<Self, BypassSyntax> {
        let named = text.split(',').map(str::trim).filter(|uri| !uri.is_empty());
        let mut request: Option<Self> = None;
        for text in named {
            let one = match text {
                "*" => Self::All,
                text => Self::Named(vec![AgentUri::parse(text).map_err(|error| {
                    BypassSyntax::Uri {
                        text: text.to_owned(),
                        error,
                    }
                })?]),
            };
            request = Some(match request {
                None => one,
                Some(request) => request.and(one),
            });
        }
        request.ok_or(BypassSyntax::Empty)
    }

    /// Both requests as one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Named(mut uris), Self::Named(others)) => {
                for uri in others {
                    if !uris.contains(&uri) {
                        uris.push(uri);
                    }
                }
                if uris.len() > URIS_MAX {
                    Self::All
                } else {
                    Self::Named(uris)
                }
            }
            (Self::All, _) | (_, Self::All) => Self::All,
        }
    }

    /// The value of the MAIL parameter.
    pub fn parameter(&self) -> String {
        match self {
            Self::All => "*".to_owned(),
            Self::Named(uris) => {
                let uris: Vec<&str> = uris.iter().map(AgentUri::as_str).collect();
                xtext::encode(&uris.join(","))
            }
        }
    }

    /// What is meant, where `services` are all there are, each with its name. The URI of the system, of the processor or of anything
    /// unknown means all of them (R3897-18, -22).
    pub fn resolve<'a>(
        &self,
        services: &(impl Iterator<Item = (&'a str, &'a AgentUri)> + Clone),
    ) -> Bypass {
        let Self::Named(uris) = self else {
            return Bypass::All;
        };
        let mut names = BTreeSet::new();
        for uri in uris {
            let known: Vec<&str> = services
                .clone()
                .filter(|(_, service)| *service == uri)
                .map(|(name, _)| name)
                .collect();
            if known.is_empty() {
                return Bypass::All;
            }
            names.extend(known.into_iter().map(str::to_owned));
        }
        Bypass::Services(names)
    }
}

// === impl Bypass ===

impl Bypass {
    /// Is the service of this name meant?
    pub fn covers(&self, service: &str) -> bool {
        match self {
            Self::All => true,
            Self::Services(names) => names.contains(service),
        }
    }
}

#[cfg(test)]
mod tests;
