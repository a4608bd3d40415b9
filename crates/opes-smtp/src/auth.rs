//! SASL PLAIN (RFC 4616) and LOGIN exchanges inside AUTH (RFC 4954): from base64 lines to [`Credentials`].
//!
//! Whether the credentials are right is for the caller. Passwords are held as secrets and appear in no `Debug` output.

#[cfg(test)]
mod tests;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use crate::reply::Reply;

/// The mechanisms that we offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Never standardized, wanted by old clients: two prompts, name and password.
    Login,
}

/// What a client claims.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// How it came.
    pub mechanism: Mechanism,
    /// Authentication identity: whose password it is. Never empty.
    pub identity: String,
    /// Never empty.
    pub password: SecretString,
}

/// One AUTH exchange under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    mechanism: Mechanism,
    /// LOGIN: the name, once it is known.
    name: Option<String>,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send the challenge and read another line.
    Challenge(Reply),
    /// The exchange is complete.
    Credentials(Credentials),
    /// The exchange has failed.
    Failed(Reply),
}

// === impl Mechanism ===

impl Mechanism {
    /// As offered in the answer to EHLO.
    pub const OFFERED: &'static str = "PLAIN LOGIN";

    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::Plain, Self::Login]
            .into_iter()
            .find(|m| m.as_str().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Exchange ===

impl Exchange {
    /// `Username:` and `Password:` in base64, as clients expect them.
    const NAME_PROMPT: &'static str = "VXNlcm5hbWU6";
    const PASSWORD_PROMPT: &'static str = "UGFzc3dvcmQ6";

    /// Begins with the initial response of the AUTH command, if there was one.
    pub(crate) fn start(mechanism: Mechanism, initial: Option<&SecretString>) -> (Self, Step) {
        let mut exchange = Self {
            mechanism,
            name: None,
        };
        let step = match initial.map(ExposeSecret::expose_secret) {
            // RFC 4954 §4: an initial response of zero length is a single equals sign.
            Some("=") => exchange.respond(&[]),
            Some(initial) => exchange.line(initial.as_bytes()),
            None => exchange.first_challenge(),
        };
        (exchange, step)
    }

    /// One line of the client, without CRLF.
    pub(crate) fn line(&mut self, line: &[u8]) -> Step {
        if line == b"*" {
            return Step::Failed(Reply::AUTHENTICATION_CANCELLED);
        }
        match STANDARD.decode(line) {
            Ok(response) => self.respond(&response),
            Err(_) => Step::Failed(Reply::AUTHENTICATION_SYNTAX),
        }
    }

    fn first_challenge(&self) -> Step {
        Step::Challenge(match self.mechanism {
            Mechanism::Plain => Reply::CHALLENGE,
            Mechanism::Login => Reply::CHALLENGE.with_text(Self::NAME_PROMPT),
        })
    }

    fn respond(&mut self, response: &[u8]) -> Step {
        let Ok(response) = std::str::from_utf8(response) else {
            return Step::Failed(Reply::AUTHENTICATION_SYNTAX);
        };
        match (self.mechanism, self.name.take()) {
            (Mechanism::Plain, _) => plain(response),
            (Mechanism::Login, None) if !is_name(response) => {
                Step::Failed(Reply::AUTHENTICATION_SYNTAX)
            }
            (Mechanism::Login, None) => {
                self.name = Some(response.to_owned());
                Step::Challenge(Reply::CHALLENGE.with_text(Self::PASSWORD_PROMPT))
            }
            (Mechanism::Login, Some(name)) => credentials(Mechanism::Login, name, response),
        }
    }
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 §2). Acting for somebody else is not offered.
fn plain(response: &str) -> Step {
    let mut fields = response.split('\0');
    let (Some(authorization), Some(name), Some(password), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Step::Failed(Reply::AUTHENTICATION_SYNTAX);
    };
    if !is_name(name) {
        return Step::Failed(Reply::AUTHENTICATION_SYNTAX);
    }
    if !authorization.is_empty() && authorization != name {
        return Step::Failed(Reply::AUTHENTICATION_FAILED);
    }
    credentials(Mechanism::Plain, name.to_owned(), password)
}

/// Identities go into logs, trace fields and rules: nothing that could break a line.
fn is_name(text: &str) -> bool {
    const NAME_OCTETS_MAX: usize = 255;
    (1..=NAME_OCTETS_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

fn credentials(mechanism: Mechanism, identity: String, password: &str) -> Step {
    if password.is_empty() || password.contains('\0') {
        return Step::Failed(Reply::AUTHENTICATION_SYNTAX);
    }
    Step::Credentials(Credentials {
        mechanism,
        identity,
        password: password.into(),
    })
}
