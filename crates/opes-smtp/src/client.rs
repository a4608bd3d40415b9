//! The sending side of SMTP (RFC 5321) and LMTP (RFC 2033) as a core without I/O.
//!
//! Owns one connection's dialog: greeting, EHLO with HELO as fallback or LHLO, STARTTLS, then any number of messages, QUIT.
//! The caller owns the socket, TLS, the clock and the content:
//!
//! ```text
//! loop { match client.poll(&mut input) {
//!     NeedInput      => write out client.output(), read into input within client.reply_timeout()
//!     StartTls       => write out, handshake, client.tls_established()
//!     Ready          => client.begin(&mail) or client.quit()
//!     SendContent    => write out, then the content through a DotStuffer, then client.content_sent()
//!     Done(outcome)  => one reply per recipient
//!     Closed(reason) => close the socket
//! } }
//! ```
//!
//! Fails per recipient: every recipient of a message that was begun gets exactly one reply, made by the peer or, when the
//! connection ends early, by us. A broken connection is a transient failure (RFC 5321 §4.5.4.1). Replies are bounded by
//! [`ReplyParser`]. Must not know: who the peer is, the spool, retries.

mod dot;
mod extensions;
mod local;
mod transaction;

use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;

pub use self::dot::{DotStuffer, Stuffed};
pub use self::extensions::Extensions;
pub use self::transaction::{Mail, MailRecipient, PIPELINED_COMMANDS_MAX};
use self::transaction::{Next, Transaction};
use crate::reply::{Reply, ReplyParser};

/// Waiting for the greeting (RFC 5321 §4.5.3.2.1).
pub const GREETING_TIMEOUT: Duration = Duration::from_mins(5);
/// Waiting for the reply to MAIL, and to EHLO, STARTTLS and RSET, for which the RFC names none (§4.5.3.2.2).
pub const MAIL_TIMEOUT: Duration = Duration::from_mins(5);
/// Waiting for the reply to RCPT (RFC 5321 §4.5.3.2.3).
pub const RCPT_TIMEOUT: Duration = Duration::from_mins(5);
/// Waiting for 354 (RFC 5321 §4.5.3.2.4).
pub const DATA_INITIATION_TIMEOUT: Duration = Duration::from_mins(2);
/// Writing one block of content (RFC 5321 §4.5.3.2.5).
pub const DATA_BLOCK_TIMEOUT: Duration = Duration::from_mins(3);
/// Waiting for the reply to the content; shorter makes duplicates (RFC 5321 §4.5.3.2.6, RFC 1047).
pub const DATA_TERMINATION_TIMEOUT: Duration = Duration::from_mins(10);
/// Waiting for the reply to QUIT. Nothing depends on it any more.
pub const QUIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the dialog is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Off,
    /// If the peer offers STARTTLS and means it (RFC 7435).
    #[default]
    Opportunistic,
    /// Or nothing is sent.
    Required,
}

/// How to speak to one peer.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Our name in EHLO, HELO or LHLO.
    pub hostname: String,
    /// Speak LMTP.
    pub lmtp: bool,
    /// STARTTLS policy.
    pub tls: TlsMode,
}

/// What the caller does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write out what is in [`Client::output`], then read more.
    NeedInput,
    /// Write out, make the TLS handshake, call [`Client::tls_established`]. If the handshake fails, drop the connection.
    StartTls,
    /// Nothing under way: [`Client::begin`] or [`Client::quit`].
    Ready,
    /// Write out, send the content and its end, call [`Client::content_sent`].
    SendContent,
    /// The message that was begun is decided.
    Done(Outcome),
    /// The connection is over. The reply is the reason, unless we asked for it or a message's outcome carried it.
    Closed(Option<Reply>),
}

/// What became of one message.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// One per recipient, in the order of [`Mail::recipients`].
    pub replies: Vec<Reply>,
    /// The connection ended before the peer answered our MAIL: nothing is known about the message, and on a connection
    /// that had been idle, a new connection is worth a try at once.
    pub untried: bool,
    /// The peer offers DSN: it was told what the sender wants to hear, and will tell it (RFC 3461 §5.2.1).
    pub reports: bool,
}

/// [`Client::begin`] was called while something else was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a message can be begun only when the client is ready")]
pub struct NotReady;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    Ready,
    Envelope,
    Content,
    ContentReply,
    Quit,
    Closed,
}

/// One connection to one peer.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    state: State,
    encrypted: bool,
    extensions: Extensions,
    replies: ReplyParser,
    output: BytesMut,
    transaction: Option<Transaction>,
    reset_due: bool,
    reason: Option<Reply>,
}

impl Client {
    /// A connection that was just made.
    pub fn new(config: ClientConfig) -> Self {
        Self {
            config,
            state: State::Greeting,
            encrypted: false,
            extensions: Extensions::default(),
            replies: ReplyParser::default(),
            output: BytesMut::new(),
            transaction: None,
            reset_due: false,
            reason: None,
        }
    }

    /// Takes what it can from `input` and says what is next.
    pub fn poll(&mut self, input: &mut BytesMut) -> Action {
        loop {
            if let Some(action) = self.due(input) {
                return action;
            }
            match self.replies.parse(input) {
                Ok(Some(reply)) => self.on_reply(reply, input),
                Ok(None) => return Action::NeedInput,
                Err(error) => {
                    self.fail(Reply::NEXT_HOP_PROTOCOL_ERROR.with_text(error.to_string()));
                }
            }
        }
    }

    /// What is to be written to the peer.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// What the peer offered last.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// How long the peer may take for what we wait for now.
    pub fn reply_timeout(&self) -> Duration {
        match self.state {
            State::Greeting => GREETING_TIMEOUT,
            State::ContentReply => DATA_TERMINATION_TIMEOUT,
            State::Content => DATA_BLOCK_TIMEOUT,
            State::Envelope if self.waits_for_data() => DATA_INITIATION_TIMEOUT,
            State::Envelope => RCPT_TIMEOUT,
            State::Ehlo | State::Helo | State::StartTls | State::Handshake | State::Ready => {
                MAIL_TIMEOUT
            }
            State::Quit | State::Closed => QUIT_TIMEOUT,
        }
    }

    /// Begins a message. Its commands are in [`Client::output`] afterwards.
    pub fn begin(&mut self, mail: &Mail<'_>) -> Result<(), NotReady> {
        if self.state != State::Ready {
            return Err(NotReady);
        }
        let mut transaction = Transaction::plan(mail, &self.extensions, self.reset_due);
        transaction.release(&mut self.output);
        self.transaction = Some(transaction);
        self.state = State::Envelope;
        Ok(())
    }

    /// The content with its final dot is on its way.
    pub fn content_sent(&mut self) {
        if self.state == State::Content {
            self.state = State::ContentReply;
        }
    }

    /// The handshake is done; everything learned before it is forgotten (RFC 3207 §4.2).
    pub fn tls_established(&mut self) {
        if self.state == State::Handshake {
            self.encrypted = true;
            self.extensions = Extensions::default();
            self.send_hello();
        }
    }

    /// Says goodbye. Only when ready; otherwise closing the socket is all there is.
    pub fn quit(&mut self) {
        if self.state == State::Ready {
            self.send("QUIT");
            self.state = State::Quit;
        } else {
            self.state = State::Closed;
        }
    }

    /// The socket is at its end or broken, or the peer took too long: `why` is for the recipients still undecided. The
    /// next poll gives what became of the message, then [`Action::Closed`].
    pub fn connection_lost(&mut self, why: &str) {
        if self.state != State::Closed {
            self.fail(
                Reply::NEXT_HOP_CONNECTION_LOST
                    .with_text(format!("Connection to the next hop lost: {why}")),
            );
        }
    }

    /// Actions that need no further reply.
    fn due(&mut self, input: &BytesMut) -> Option<Action> {
        match self.state {
            State::Envelope if self.transaction.as_ref().is_some_and(Transaction::idle) => {
                self.finish()
            }
            State::Ready if input.is_empty() => Some(Action::Ready),
            State::Content if input.is_empty() => Some(Action::SendContent),
            State::Handshake => Some(Action::StartTls),
            State::Closed => Some(self.closed()),
            _ => None,
        }
    }

    fn finish(&mut self) -> Option<Action> {
        self.state = State::Ready;
        self.outcome(&Reply::NEXT_HOP_CONNECTION_LOST, false)
    }

    /// Closes the books on the message under way.
    fn outcome(&mut self, rest: &Reply, lost: bool) -> Option<Action> {
        let transaction = self.transaction.take()?;
        self.reset_due = transaction.open();
        let untried = lost && !transaction.mail_answered();
        Some(Action::Done(Outcome {
            replies: transaction.into_results(rest),
            untried,
            reports: self.extensions.dsn,
        }))
    }

    fn closed(&mut self) -> Action {
        let reason = self.reason.take();
        let rest = reason.clone().unwrap_or(Reply::NEXT_HOP_CONNECTION_LOST);
        match self.outcome(&rest, true) {
            Some(done) => done,
            None => Action::Closed(reason),
        }
    }

    fn fail(&mut self, reason: Reply) {
        self.reason = Some(reason);
        self.state = State::Closed;
    }

    fn on_reply(&mut self, reply: Reply, input: &BytesMut) {
        match self.state {
            State::Quit => self.state = State::Closed,
            // RFC 5321 §3.8: 421 may be the answer to any command.
            _ if reply.closes() => self.fail(reply),
            State::Greeting => self.on_greeting(&reply),
            State::Ehlo => self.on_ehlo(&reply),
            State::Helo => self.on_helo(&reply),
            State::StartTls => self.on_starttls(&reply, input),
            State::Envelope => self.on_envelope(reply),
            State::ContentReply => self.on_content_reply(reply),
            // Unasked, or in the middle of our content: it cannot be matched to a command any more.
            State::Content if reply.is_refusal() => self.fail(reply),
            State::Ready | State::Content | State::Handshake | State::Closed => {
                self.fail(local::out_of_place(&reply));
            }
        }
    }

    fn on_greeting(&mut self, reply: &Reply) {
        if reply.code() == Reply::GREETING.code() {
            self.send_hello();
        } else {
            self.fail(local::session_refused("the greeting", reply));
        }
    }

    fn on_ehlo(&mut self, reply: &Reply) {
        if reply.is_positive() {
            self.extensions = Extensions::parse(reply.lines());
            self.secure_or_ready();
        } else if reply.is_permanent() && self.helo_may_do() {
            let line = format!("HELO {}", self.config.hostname);
            self.send(&line);
            self.state = State::Helo;
        } else {
            self.fail(local::session_refused(self.hello_verb(), reply));
        }
    }

    /// HELO brings no extensions, so neither LMTP nor required TLS can be had that way (RFC 5321 §3.2, RFC 2033 §4.1).
    fn helo_may_do(&self) -> bool {
        !self.config.lmtp && (self.encrypted || self.config.tls != TlsMode::Required)
    }

    fn secure_or_ready(&mut self) {
        match self.config.tls {
            TlsMode::Off => self.state = State::Ready,
            _ if self.encrypted => self.state = State::Ready,
            TlsMode::Opportunistic | TlsMode::Required if self.extensions.starttls => {
                self.send("STARTTLS");
                self.state = State::StartTls;
            }
            TlsMode::Opportunistic => self.state = State::Ready,
            TlsMode::Required => self.fail(local::tls_not_to_be_had("it does not offer STARTTLS")),
        }
    }

    fn on_helo(&mut self, reply: &Reply) {
        if reply.is_positive() {
            self.extensions = Extensions::default();
            self.state = State::Ready;
        } else {
            self.fail(local::session_refused("HELO", reply));
        }
    }

    fn on_starttls(&mut self, reply: &Reply, input: &BytesMut) {
        if reply.code() == Reply::READY_FOR_TLS.code() {
            if input.is_empty() {
                self.state = State::Handshake;
            } else {
                self.fail(local::clear_text_behind_starttls());
            }
        } else if self.config.tls == TlsMode::Required {
            self.fail(local::tls_not_to_be_had(&format!(
                "STARTTLS was answered with {reply}"
            )));
        } else {
            self.state = State::Ready;
        }
    }

    fn on_envelope(&mut self, reply: Reply) {
        let Some(transaction) = self.transaction.as_mut() else {
            return self.fail(local::out_of_place(&reply));
        };
        match transaction.on_reply(reply) {
            Next::Await => transaction.release(&mut self.output),
            Next::Finished => {}
            Next::Content => self.state = State::Content,
            // RFC 2033 §4.2 forbids 354 without a recipient, and leaves no reply that could be waited for.
            Next::EmptyContent if self.config.lmtp => self.fail(Reply::NEXT_HOP_PROTOCOL_ERROR),
            Next::EmptyContent => {
                self.output.extend_from_slice(DotStuffer::new().finish());
                self.state = State::ContentReply;
            }
            Next::Confused(reply) => self.fail(local::out_of_place(&reply)),
        }
    }

    fn on_content_reply(&mut self, reply: Reply) {
        let lmtp = self.config.lmtp;
        let Some(transaction) = self.transaction.as_mut() else {
            return self.fail(local::out_of_place(&reply));
        };
        match transaction.on_content_reply(reply, lmtp) {
            Next::Finished => self.state = State::Envelope,
            Next::Confused(reply) => self.fail(local::out_of_place(&reply)),
            Next::Await | Next::Content | Next::EmptyContent => {}
        }
    }

    fn waits_for_data(&self) -> bool {
        self.transaction
            .as_ref()
            .is_some_and(Transaction::waits_for_data)
    }

    fn hello_verb(&self) -> &'static str {
        if self.config.lmtp { "LHLO" } else { "EHLO" }
    }

    fn send_hello(&mut self) {
        let line = format!("{} {}", self.hello_verb(), self.config.hostname);
        self.send(&line);
        self.state = State::Ehlo;
    }

    fn send(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
