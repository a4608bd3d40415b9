//! What a session asks of its shell, and what the shell may answer.

use bytes::Bytes;
use thiserror::Error;

use super::Authenticated;
use super::transaction::Recipient;
use crate::auth::Credentials;
use crate::command::{CommandError, HelloVerb};
use crate::grammar::{ForwardPath, Parameters, ReversePath};
use crate::reply::Reply;

/// What to do next. An asking action is answered by [`super::Session::respond`] before the next poll.
#[derive(Debug)]
pub enum Action {
    /// Flush the output, then read more octets.
    NeedInput,
    /// Asks: one processing point of the dialog.
    Check(Check),
    /// Asks: are these credentials right?
    Authenticate(Credentials),
    /// Content of the message in its order, dots and chunk framing removed.
    Content(Bytes),
    /// Asks: the content is complete; the reply to it is owed.
    ContentEnd,
    /// The transaction ended without a message; forget what belongs to it.
    TransactionAborted,
    /// Flush the output, do the handshake, then call [`super::Session::tls_established`].
    StartTls,
    /// Flush the output and close.
    Close,
}

/// The processing points: between what a session can judge itself and what it then does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// A client has connected; answer before the greeting.
    Connect,
    /// HELO, EHLO or LHLO.
    Helo {
        /// As received, without CRLF.
        line: Bytes,
        /// Which of the three.
        verb: HelloVerb,
        /// What the client calls itself.
        argument: String,
    },
    /// STARTTLS.
    StartTls {
        /// As received, without CRLF.
        line: Bytes,
    },
    /// MAIL.
    Mail {
        /// As received, without CRLF.
        line: Bytes,
        /// The sender.
        path: ReversePath,
        /// ESMTP parameters.
        params: Parameters,
    },
    /// RCPT.
    Rcpt {
        /// As received, without CRLF.
        line: Bytes,
        /// The recipient in question.
        path: ForwardPath,
        /// ESMTP parameters.
        params: Parameters,
    },
    /// DATA, or the first BDAT.
    Data {
        /// As received, without CRLF.
        line: Bytes,
    },
}

/// Answer to an asking action.
#[derive(Debug)]
pub enum Response {
    /// Go on, with our own reply.
    Proceed,
    /// Go on with another command line (RFC 4496 §4.7) of the same verb, without CRLF. It passes through the same grammar and limits;
    /// if it fails, [`RespondError::Replacement`] says why and the question stays open.
    ProceedWith(Bytes),
    /// Do not go on: a 4yz or 5yz reply (command satisfaction). 421 closes.
    Refuse(Reply),
    /// Send the reply and close.
    Disconnect(Reply),
    /// The reply to the content.
    Content(ContentReply),
    /// The credentials are right.
    AuthOk,
    /// The credentials are wrong.
    AuthFailed,
    /// Nobody can tell at the moment.
    AuthTempFail,
}

/// Replies after the content.
#[derive(Debug)]
pub enum ContentReply {
    /// For all recipients; with LMTP it is repeated for each.
    One(Reply),
    /// LMTP, and transactions with PRDR: one for each accepted recipient, in their order (RFC 2033 §4.2, draft-hall-prdr-00 §4.5).
    PerRecipient(Vec<Reply>),
}

/// The answer does not fit; the question stays open and another answer is due.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RespondError {
    /// Nothing was asked.
    #[error("no answer is owed to the session")]
    NotAsked,
    /// An answer of this kind does not fit what was asked.
    #[error("answer does not fit the open question {question}")]
    WrongKind {
        /// The processing point.
        question: &'static str,
    },
    /// A refusal must be 4yz or 5yz, a reply to content 2yz, 4yz or 5yz.
    #[error("reply {0} cannot be given here; use a code of the right class")]
    ReplyClass(Reply),
    /// With LMTP and PRDR there is one reply for each recipient, with SMTP there is one.
    #[error("{given} replies for {owed} recipients")]
    ReplyCount {
        /// By the shell.
        given: usize,
        /// To the client.
        owed: usize,
    },
    /// The replacement of a command line is not acceptable.
    #[error("replacement command line cannot be used: {0}")]
    Replacement(CommandError),
    /// The replacement of a command line has another verb (or another chunk size).
    #[error("replacement command line is not a {question} command")]
    VerbChanged {
        /// The processing point.
        question: &'static str,
    },
}

/// What the open question was about, with what is needed to go on.
#[derive(Debug, Default)]
pub(super) enum Asked {
    /// Nothing is open.
    #[default]
    Nothing,
    Connect,
    Helo {
        verb: HelloVerb,
        argument: String,
    },
    StartTls,
    Mail {
        path: ReversePath,
        params: Parameters,
    },
    Rcpt(Recipient),
    Data,
    Bdat {
        octets: u64,
        last: bool,
    },
    Auth(Authenticated),
    ContentEnd,
}

impl Asked {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Connect => "connect",
            Self::Helo { verb, .. } => verb.as_str(),
            Self::StartTls => "STARTTLS",
            Self::Mail { .. } => "MAIL",
            Self::Rcpt(_) => "RCPT",
            Self::Data => "DATA",
            Self::Bdat { .. } => "BDAT",
            Self::Auth(_) => "AUTH",
            Self::ContentEnd => "content",
        }
    }
}
