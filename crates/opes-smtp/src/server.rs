//! The receiving side: SMTP, submission and LMTP as one state machine without I/O.
//!
//! The shell reads octets into a buffer and calls [`Session::poll`] until it says [`Action::NeedInput`]; replies gather in
//! [`Session::output`] in the order of the commands, so that pipelining (RFC 2920) needs no further care. Each verb goes
//! sequence → syntax → local limits → [`Action::Check`] → [`Session::respond`] → proceed; the callout stands at that one place.
//! Errors of the client become replies; errors of the shell are a [`RespondError`]. Nothing a client sends makes it panic.

mod action;
mod answer;
mod auth;
mod bdat;
mod config;
mod content;
mod data;
mod greeting;
mod mail;
mod other;
mod prdr;
mod rcpt;
mod sequence;
mod starttls;
#[cfg(test)]
mod tests;
mod transaction;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use self::action::Asked;
pub use self::action::{Action, Check, ContentReply, RespondError, Response};
use self::bdat::Chunk;
pub use self::config::{AuthMode, Config, ConnectionInfo, Protocol, TlsInfo};
use self::data::Data;
pub use self::transaction::{Body, Recipient, Transaction};
use crate::auth::{Exchange, Mechanism};
use crate::command::{Command, HelloVerb, Verb, parse_argument, split_verb};
use crate::limits::{AUTH_LINE_OCTETS_MAX, COMMAND_LINE_OCTETS_MAX};
use crate::reply::Reply;

/// One connection of a client.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    client: SocketAddr,
    output: BytesMut,
    phase: Phase,
    asked: Asked,
    hello: Option<Hello>,
    tls: Option<TlsInfo>,
    authenticated: Option<Authenticated>,
    transaction: Option<Transaction>,
    /// A transaction has ended without a message and the shell has not been told yet.
    aborted: bool,
    /// The rest of a line beyond the limit is being skipped.
    skipping_line: bool,
    /// The greeting was a refusal: only QUIT is left (RFC 5321 §3.1).
    refused: bool,
    errors: u32,
    idle_commands: u32,
}

/// What the client called itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The verb that the client chose.
    pub verb: HelloVerb,
    /// Verbatim, or as a service rewrote it.
    pub argument: String,
}

/// Who the client has proven to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    /// How.
    pub mechanism: Mechanism,
    /// Authentication identity.
    pub identity: String,
}

/// What the next octets of the client are.
#[derive(Debug)]
enum Phase {
    /// None are expected before the greeting.
    Greeting,
    Commands,
    Data(Data),
    Chunk(Chunk),
    Sasl(Exchange),
    /// STARTTLS is accepted and the reply to it not written yet.
    StartTls,
    /// The handshake runs; octets are none of ours.
    Handshake,
    Closed,
}

/// One line of the client.
enum Line {
    NeedInput,
    /// Without CRLF.
    Complete(Bytes),
    TooLong,
    /// With a bare CR or LF.
    BareLineEnd,
}

// === impl Session ===

impl Session {
    /// A connection that has just been accepted. The first poll asks [`Check::Connect`].
    pub fn new(config: Arc<Config>, connection: ConnectionInfo) -> Self {
        Self {
            config,
            client: connection.client,
            output: BytesMut::new(),
            phase: Phase::Greeting,
            asked: Asked::Nothing,
            hello: None,
            tls: connection.tls,
            authenticated: None,
            transaction: None,
            aborted: false,
            skipping_line: false,
            refused: false,
            errors: 0,
            idle_commands: 0,
        }
    }

    /// Takes what it can from `input` and says what to do next. While an answer is owed this is [`Action::NeedInput`].
    pub fn poll(&mut self, input: &mut BytesMut) -> Action {
        loop {
            if std::mem::take(&mut self.aborted) {
                return Action::TransactionAborted;
            }
            if !matches!(self.asked, Asked::Nothing) {
                return Action::NeedInput;
            }
            let action = match self.phase {
                Phase::Greeting => Some(self.check_connect(input)),
                Phase::Commands => self.poll_command(input),
                Phase::Data(_) => self.poll_data(input),
                Phase::Chunk(_) => self.poll_chunk(input),
                Phase::Sasl(_) => self.poll_sasl(input),
                Phase::StartTls => self.poll_start_tls(input),
                Phase::Handshake => Some(Action::NeedInput),
                Phase::Closed => Some(Action::Close),
            };
            if let Some(action) = action {
                return action;
            }
        }
    }

    /// Replies to send, in order. The shell takes them out at [`Action::NeedInput`], [`Action::StartTls`], [`Action::Close`] and before
    /// long waits.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Answers the last asking action. After an error the question is still open.
    pub fn respond(&mut self, response: Response) -> Result<(), RespondError> {
        let asked = std::mem::take(&mut self.asked);
        self.answer(asked, response).map_err(|(asked, error)| {
            self.asked = asked;
            error
        })
    }

    /// Sends a reply of the shell's own accord (421 on shutdown or timeout) and closes. An open transaction is forgotten.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the shell hands its reply over"
    )]
    pub fn abort(&mut self, reply: Reply) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.asked = Asked::Nothing;
        self.drop_transaction();
        self.close_with(&reply);
    }

    /// The shell cannot take the content that is arriving (disk full, limit of its own): the rest is swallowed and answered with `reply`, a
    /// 4yz or 5yz. No [`Action::ContentEnd`] and no [`Action::TransactionAborted`] follow. Without content under way it does nothing.
    pub fn fail_content(&mut self, reply: Reply) {
        match &mut self.phase {
            Phase::Data(data) => data.refuse(reply),
            Phase::Chunk(chunk) => chunk.refuse(reply),
            _ => {
                if let Some(transaction) = self.transaction.as_mut().filter(|t| t.chunked) {
                    transaction.refusal = Some(reply);
                }
                return;
            }
        }
        self.transaction = None;
    }

    /// The open transaction: from accepted MAIL to the reply to the content.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// The last accepted HELO, EHLO or LHLO.
    pub fn helo(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Mechanism and identity, after AUTH.
    pub fn authenticated(&self) -> Option<&Authenticated> {
        self.authenticated.as_ref()
    }

    /// The identity, after AUTH.
    pub fn auth_identity(&self) -> Option<&str> {
        self.authenticated
            .as_ref()
            .map(|authenticated| authenticated.identity.as_str())
    }

    /// Implicit TLS, or STARTTLS done.
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// Address of the client.
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// Settings of the listener.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// Commands.
impl Session {
    fn poll_command(&mut self, input: &mut BytesMut) -> Option<Action> {
        match self.take_line(input, COMMAND_LINE_OCTETS_MAX) {
            Line::NeedInput => return Some(Action::NeedInput),
            Line::TooLong => self.protocol_error(&Reply::LINE_TOO_LONG),
            Line::BareLineEnd => self.protocol_error(&Reply::BARE_LINE_END),
            Line::Complete(line) => return self.on_line(line, input),
        }
        None
    }

    /// Cuts the next line out of the input. Memory stays bounded: what exceeds `octets_max` is skipped up to its LF.
    fn take_line(&mut self, input: &mut BytesMut, octets_max: usize) -> Line {
        let Some(end) = memchr::memchr(b'\n', input) else {
            if self.skipping_line || input.len() > octets_max {
                self.skipping_line = true;
                input.clear();
            }
            return Line::NeedInput;
        };
        let mut line = input.split_to(end + 1);
        if std::mem::take(&mut self.skipping_line) || line.len() > octets_max {
            return Line::TooLong;
        }
        match line.strip_suffix(b"\r\n") {
            Some(text) if memchr::memchr(b'\r', text).is_none() => {
                line.truncate(end - 1);
                Line::Complete(line.freeze())
            }
            _ => Line::BareLineEnd,
        }
    }

    /// Sequence, then syntax, then what the verb does.
    fn on_line(&mut self, line: Bytes, input: &BytesMut) -> Option<Action> {
        let (verb, argument) = match split_verb(&line) {
            Ok(split) => split,
            Err(error) => {
                self.protocol_error(&error.reply);
                return None;
            }
        };
        let sequence = self.check_sequence(verb);
        if verb == Verb::Bdat {
            return self.on_bdat(&line, argument, sequence);
        }
        let command = sequence.and_then(|()| parse_argument(verb, argument).map_err(|e| e.reply));
        match command {
            Ok(command) => self.on_command(line, command, input),
            Err(reply) => {
                self.protocol_error(&reply);
                None
            }
        }
    }

    fn on_command(&mut self, line: Bytes, command: Command, input: &BytesMut) -> Option<Action> {
        match command {
            Command::Hello { verb, argument } => Some(self.check_hello(line, verb, argument)),
            Command::Mail { path, parameters } => self.check_mail(line, path, parameters),
            Command::Rcpt { path, parameters } => self.check_rcpt(line, path, parameters),
            Command::Data => Some(self.check_data(line)),
            Command::StartTls => self.check_start_tls(line, input),
            Command::Auth { mechanism, initial } => self.start_auth(&mechanism, initial.as_ref()),
            Command::Rset => self.rset(),
            Command::Noop => self.idle_command(&Reply::OK),
            Command::Vrfy => self.idle_command(&Reply::CANNOT_VERIFY),
            Command::Help => self.idle_command(&Reply::HELP),
            Command::Quit => self.quit(),
            // Refused by the sequence table; BDAT has a path of its own.
            Command::Expn | Command::Unknown | Command::Bdat { .. } => None,
        }
    }
}

/// Replies.
impl Session {
    fn push(&mut self, reply: &Reply) {
        let smtputf8 = self
            .transaction
            .as_ref()
            .is_some_and(|transaction| transaction.smtputf8);
        if smtputf8 {
            reply.write_to(&mut self.output);
        } else {
            reply.write_ascii_to(&mut self.output);
        }
    }

    /// A reply that names the host, as RFC 5321 §4.2.3 shows for 220, 221, 250 and 421.
    fn push_from_host(&mut self, reply: &Reply) {
        let text = reply.lines().next().unwrap_or_default();
        let reply = reply.with_text(format!("{} {text}", self.config.hostname));
        self.push(&reply);
    }

    /// Refuses a command for a fault of the client, and closes when there have been too many.
    fn protocol_error(&mut self, reply: &Reply) {
        self.push(reply);
        self.errors = self.errors.saturating_add(1);
        self.close_if_too_many_errors();
    }

    fn close_if_too_many_errors(&mut self) {
        if self.errors >= self.config.errors_max {
            self.close_with(&Reply::TOO_MANY_ERRORS);
        }
    }

    fn close_with(&mut self, reply: &Reply) {
        if reply.closes() {
            self.push_from_host(reply);
        } else {
            self.push(reply);
        }
        self.phase = Phase::Closed;
    }

    /// Ends the transaction without a message; the shell is told at the next poll.
    fn abort_transaction(&mut self) {
        self.aborted |= self.transaction.take().is_some();
    }

    /// Ends the transaction without telling the shell, which knows.
    fn drop_transaction(&mut self) {
        self.transaction = None;
        self.aborted = false;
    }

    fn is_lmtp(&self) -> bool {
        self.config.protocol == Protocol::Lmtp
    }
}
