//! Command lines: from octets to a [`Command`] with verbatim values, or to the reply that the line deserves.
//!
//! Only syntax is judged here; sequence, offered extensions and limits are the session's (`server`).

#[cfg(test)]
mod tests;

use std::fmt;

use secrecy::SecretString;
use thiserror::Error;

use crate::grammar::{ForwardPath, Parameters, PathError, ReversePath};
use crate::limits::{COMMAND_LINE_OCTETS_MAX, DOMAIN_OCTETS_MAX, SIZE_DIGITS_MAX};
use crate::reply::Reply;

/// One command line.
#[derive(Debug, Clone)]
pub enum Command {
    /// HELO, EHLO or LHLO (RFC 5321 §4.1.1.1, RFC 2033 §4.1).
    Hello {
        /// Which of the three.
        verb: HelloVerb,
        /// A host name or address literal, as claimed.
        argument: String,
    },
    /// RFC 5321 §4.1.1.2.
    Mail {
        /// The sender.
        path: ReversePath,
        /// SIZE, BODY …
        parameters: Parameters,
    },
    /// RFC 5321 §4.1.1.3.
    Rcpt {
        /// The recipient.
        path: ForwardPath,
        /// ORCPT …
        parameters: Parameters,
    },
    /// RFC 5321 §4.1.1.4.
    Data,
    /// RFC 3030 §2.
    Bdat {
        /// Of the chunk that follows the line.
        octets: u64,
        /// No chunk follows this one.
        last: bool,
    },
    /// RFC 5321 §4.1.1.5.
    Rset,
    /// RFC 5321 §4.1.1.9; the argument has no meaning.
    Noop,
    /// RFC 5321 §4.1.1.6.
    Vrfy,
    /// RFC 5321 §4.1.1.7.
    Expn,
    /// RFC 5321 §4.1.1.8.
    Help,
    /// RFC 5321 §4.1.1.10.
    Quit,
    /// RFC 3207.
    StartTls,
    /// RFC 4954.
    Auth {
        /// As written.
        mechanism: String,
        /// Initial response, base64, or `=` for an empty one.
        initial: Option<SecretString>,
    },
    /// A verb that is none of these.
    Unknown,
}

/// The three ways to open a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HelloVerb {
    /// SMTP without extensions.
    Helo,
    /// SMTP with extensions.
    Ehlo,
    /// LMTP.
    Lhlo,
}

/// The line is no command; this is what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("malformed command: {reply}")]
pub struct CommandError {
    /// A constant of [`Reply`].
    pub reply: Reply,
    /// The line was a BDAT: nobody can tell how many octets of content follow, so that the connection cannot be used any more.
    pub framing_lost: bool,
}

// === impl HelloVerb ===

impl HelloVerb {
    /// In capitals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Helo => "HELO",
            Self::Ehlo => "EHLO",
            Self::Lhlo => "LHLO",
        }
    }
}

impl fmt::Display for HelloVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl CommandError ===

impl From<Reply> for CommandError {
    fn from(reply: Reply) -> Self {
        Self {
            reply,
            framing_lost: false,
        }
    }
}

// === Parsing ===

/// Reads one line, without its CRLF. Trailing white space is tolerated (RFC 5321 §4.1.1).
pub fn parse_line(line: &[u8]) -> Result<Command, CommandError> {
    let (verb, argument) = split_verb(line)?;
    parse_argument(verb, argument)
}

/// Reads what follows the verb.
pub(crate) fn parse_argument(verb: Verb, argument: &str) -> Result<Command, CommandError> {
    Ok(match verb {
        Verb::Hello(verb) => Command::Hello {
            verb,
            argument: host_name(argument)?,
        },
        Verb::Mail => mail(argument)?,
        Verb::Rcpt => rcpt(argument)?,
        Verb::Data => without_argument(argument, Command::Data)?,
        Verb::Bdat => bdat(argument).ok_or(CommandError {
            reply: Reply::BDAT_SYNTAX,
            framing_lost: true,
        })?,
        Verb::Rset => without_argument(argument, Command::Rset)?,
        Verb::Noop => Command::Noop,
        Verb::Vrfy => with_argument(argument, Command::Vrfy)?,
        Verb::Expn => with_argument(argument, Command::Expn)?,
        Verb::Help => Command::Help,
        Verb::Quit => without_argument(argument, Command::Quit)?,
        Verb::StartTls => without_argument(argument, Command::StartTls)?,
        Verb::Auth => auth(argument)?,
        Verb::Unknown => Command::Unknown,
    })
}

/// The first word of a line: enough to judge the sequence of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Hello(HelloVerb),
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
    StartTls,
    Auth,
    Unknown,
}

impl Verb {
    pub(crate) const TABLE: [(&'static str, Self); 15] = [
        ("MAIL", Self::Mail),
        ("RCPT", Self::Rcpt),
        ("DATA", Self::Data),
        ("BDAT", Self::Bdat),
        ("EHLO", Self::Hello(HelloVerb::Ehlo)),
        ("HELO", Self::Hello(HelloVerb::Helo)),
        ("LHLO", Self::Hello(HelloVerb::Lhlo)),
        ("RSET", Self::Rset),
        ("NOOP", Self::Noop),
        ("QUIT", Self::Quit),
        ("STARTTLS", Self::StartTls),
        ("AUTH", Self::Auth),
        ("VRFY", Self::Vrfy),
        ("EXPN", Self::Expn),
        ("HELP", Self::Help),
    ];

    fn of(verb: &str) -> Self {
        let found = Self::TABLE
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(verb));
        found.map_or(Self::Unknown, |(_, verb)| *verb)
    }
}

/// Verb and argument of a line, without its CRLF.
pub(crate) fn split_verb(line: &[u8]) -> Result<(Verb, &str), CommandError> {
    if line.len() > COMMAND_LINE_OCTETS_MAX {
        return Err(Reply::LINE_TOO_LONG.into());
    }
    let line = std::str::from_utf8(line).map_err(|_| Reply::INVALID_CHARACTER)?;
    let line = line.trim_end_matches([' ', '\t']);
    if line.chars().any(char::is_control) {
        return Err(Reply::INVALID_CHARACTER.into());
    }
    let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
    Ok((Verb::of(verb), argument.trim_start_matches(' ')))
}

fn without_argument(argument: &str, command: Command) -> Result<Command, CommandError> {
    if argument.is_empty() {
        Ok(command)
    } else {
        Err(Reply::NO_ARGUMENT.into())
    }
}

fn with_argument(argument: &str, command: Command) -> Result<Command, CommandError> {
    if argument.is_empty() {
        Err(Reply::ARGUMENT_MISSING.into())
    } else {
        Ok(command)
    }
}

/// Any single word: clients that claim nonsense are many, and RFC 5321 §4.1.4 forbids to refuse mail for that.
fn host_name(argument: &str) -> Result<String, CommandError> {
    let word =
        !argument.is_empty() && !argument.contains(' ') && argument.len() <= DOMAIN_OCTETS_MAX;
    if word {
        Ok(argument.to_owned())
    } else {
        Err(Reply::HELO_SYNTAX.into())
    }
}

fn mail(argument: &str) -> Result<Command, CommandError> {
    let path = path_argument(argument, "FROM:").ok_or(Reply::MAIL_SYNTAX)?;
    let (path, rest) = ReversePath::parse_prefix(path).map_err(|error| match error {
        PathError::Framing => Reply::MAIL_SYNTAX,
        PathError::Mailbox => Reply::SENDER_SYNTAX,
        PathError::TooLong => Reply::SENDER_TOO_LONG,
    })?;
    Ok(Command::Mail {
        path,
        parameters: parameters(rest, Reply::MAIL_SYNTAX)?,
    })
}

fn rcpt(argument: &str) -> Result<Command, CommandError> {
    let path = path_argument(argument, "TO:").ok_or(Reply::RCPT_SYNTAX)?;
    let (path, rest) = ForwardPath::parse_prefix(path).map_err(|error| match error {
        PathError::Framing => Reply::RCPT_SYNTAX,
        PathError::Mailbox => Reply::RECIPIENT_SYNTAX,
        PathError::TooLong => Reply::RECIPIENT_TOO_LONG,
    })?;
    Ok(Command::Rcpt {
        path,
        parameters: parameters(rest, Reply::RCPT_SYNTAX)?,
    })
}

/// What follows `FROM:` or `TO:`.
fn path_argument<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let (found, path) = argument.split_at_checked(keyword.len())?;
    found
        .eq_ignore_ascii_case(keyword)
        .then(|| path.trim_start_matches(' '))
}

fn parameters(rest: &str, framing: Reply) -> Result<Parameters, CommandError> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(framing.into());
    }
    Ok(Parameters::parse(rest).ok_or(Reply::PARAMETER_SYNTAX)?)
}

/// `octets [LAST]`.
fn bdat(argument: &str) -> Option<Command> {
    let mut words = argument.split(' ').filter(|word| !word.is_empty());
    let octets = size(words.next()?)?;
    let last = match words.next() {
        None => false,
        Some(word) => word.eq_ignore_ascii_case("LAST").then_some(true)?,
    };
    words
        .next()
        .is_none()
        .then_some(Command::Bdat { octets, last })
}

/// `1*20DIGIT` (RFC 1870 §3).
pub(crate) fn size(text: &str) -> Option<u64> {
    let digits =
        (1..=SIZE_DIGITS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn auth(argument: &str) -> Result<Command, CommandError> {
    let (mechanism, initial) = match argument.split_once(' ') {
        Some((mechanism, initial)) => (mechanism, Some(initial.trim_start_matches(' '))),
        None => (argument, None),
    };
    if mechanism.is_empty() {
        return Err(Reply::ARGUMENT_MISSING.into());
    }
    Ok(Command::Auth {
        mechanism: mechanism.to_owned(),
        initial: initial.map(SecretString::from),
    })
}
