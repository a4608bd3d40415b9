//! CEL conditions, guarded.
//!
//! The Common Expression Language is parsed by the `cel` crate and evaluated here. A condition goes
//! through three gates before a message can meet it: the [`guard`] bounds length and nesting before
//! the parser's recursion could exhaust the stack; the checker knows every identifier and function,
//! gives each node a type, compiles regexes and networks, and refuses what it does not know; the
//! result is a typed tree that is evaluated without allocation, in bounded time (one loop at most,
//! over lists that the protocol bounds).
//!
//! What is left to go wrong at run time is data that is not there (or a text that is not the number
//! it is compared with): [`Unevaluable`]. `&&` and `||` absorb it as CEL prescribes.

mod check;
mod eval;
mod guard;
mod shared;
mod tree;

use crate::facts::Facts;
use crate::point::Point;
use check::Checked;
use std::fmt;
use std::sync::Arc;
use tree::Node;

pub use guard::SOURCE_OCTETS_MAX;

/// A condition that compiled.
#[derive(Debug)]
pub struct Condition {
    source: String,
    root: Node,
    needs: Vec<Variable>,
}

/// Something that an expression can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variable {
    /// `client.ip`
    ClientIp,
    /// `client.port`
    ClientPort,
    /// `listener`
    Listener,
    /// `point`
    Point,
    /// `helo`
    Helo,
    /// `tls.version`
    TlsVersion,
    /// `auth.identity`
    AuthIdentity,
    /// `mail.from`
    MailFrom,
    /// `mail.parameters`
    MailParameters,
    /// `rcpt`
    Rcpt,
    /// `rcpt.parameters`
    RcptParameters,
    /// `recipients`
    Recipients,
    /// `size`
    Size,
    /// `header("…")`
    Header,
    /// `annotation("…")`
    Annotation,
}

/// Why a condition was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConditionError {
    /// What is wrong, with the place in the expression.
    pub message: String,
    /// What to write instead; may be empty.
    pub remedy: String,
}

/// Why a condition has no answer for this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unevaluable {
    /// The value is not known at this moment.
    Missing(Variable),
    /// An annotation or text is not the number or truth value it is compared with.
    NotA(&'static str),
    /// Division by zero, or a number out of range.
    Arithmetic,
}

// === impl Condition ===

impl Condition {
    /// Compiles an expression; every reason to refuse it that can be found at once.
    pub fn compile(source: &str) -> Result<Self, Vec<ConditionError>> {
        guard::check_source(source).map_err(|error| vec![error])?;
        let expression = guard::parse(source).map_err(|error| vec![error])?;
        guard::check_tree(&expression).map_err(|error| vec![error])?;
        let Checked { root, needs } = check::condition(&expression)?;
        Ok(Self {
            source: source.to_owned(),
            root,
            needs,
        })
    }

    /// As [`Condition::compile`]; the same one again while somebody uses it.
    pub(crate) fn shared(source: &str) -> Result<Arc<Self>, Vec<ConditionError>> {
        shared::condition(source)
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it asks for, each variable once.
    pub fn needs(&self) -> &[Variable] {
        &self.needs
    }

    /// Its answer can differ from recipient to recipient.
    pub fn per_recipient(&self) -> bool {
        self.needs
            .iter()
            .any(|need| matches!(need, Variable::Rcpt | Variable::RcptParameters))
    }

    /// Evaluates it for one recipient (index into `facts.recipients`), or for none.
    pub fn evaluate(
        &self,
        facts: &Facts<'_>,
        recipient: Option<usize>,
    ) -> Result<bool, Unevaluable> {
        eval::condition(&self.root, facts, recipient)
    }
}

// === impl Variable ===

impl Variable {
    /// As it is written in an expression.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientIp => "client.ip",
            Self::ClientPort => "client.port",
            Self::Listener => "listener",
            Self::Point => "point",
            Self::Helo => "helo",
            Self::TlsVersion => "tls.version",
            Self::AuthIdentity => "auth.identity",
            Self::MailFrom => "mail.from",
            Self::MailParameters => "mail.parameters",
            Self::Rcpt => "rcpt",
            Self::RcptParameters => "rcpt.parameters",
            Self::Recipients => "recipients",
            Self::Size => "size",
            Self::Header => "header",
            Self::Annotation => "annotation",
        }
    }

    /// The first point at which it can be known.
    pub const fn known_from(self) -> Point {
        match self {
            Self::Helo => Point::Helo,
            Self::MailFrom | Self::MailParameters | Self::Size => Point::MailFrom,
            Self::Rcpt | Self::RcptParameters | Self::Recipients => Point::RcptTo,
            Self::Header => Point::Content,
            Self::ClientIp
            | Self::ClientPort
            | Self::Listener
            | Self::Point
            | Self::TlsVersion
            | Self::AuthIdentity
            | Self::Annotation => Point::Connect,
        }
    }

    /// The last point at which it can be known. What the queue keeps of a message is known at the points behind it too.
    pub const fn known_until(self) -> Point {
        match self {
            Self::Header => Point::Routing,
            Self::ClientPort
            | Self::Listener
            | Self::TlsVersion
            | Self::Size
            | Self::Annotation => Point::Answered,
            Self::ClientIp
            | Self::Point
            | Self::Helo
            | Self::AuthIdentity
            | Self::MailFrom
            | Self::MailParameters
            | Self::Rcpt
            | Self::RcptParameters
            | Self::Recipients => Point::Bounced,
        }
    }
}

impl fmt::Display for Unevaluable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(variable) => write!(f, "{} is not known", variable.name()),
            Self::NotA(kind) => write!(f, "a text is not {kind}"),
            Self::Arithmetic => f.write_str("a division by zero or a number out of range"),
        }
    }
}

// === impl ConditionError ===

impl ConditionError {
    pub(crate) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

#[cfg(test)]
mod tests;
