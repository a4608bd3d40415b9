//! One session with a milter, from the MTA's side: which command may follow which, whether it is sent and answered, and which replies are
//! legal to it.
//!
//! One command is under way at a time. A [`ProtocolError`] ends the session: what the milter meant cannot be known any more.

use bytes::{BufMut as _, BytesMut};

use crate::command::{Command, SMFIC_OPTNEG};
use crate::flags::{Actions, Steps};
use crate::frame::{Frame, encode};
use crate::macros::{Macros, Stage};
use crate::reply::{Modification, Options, Refusal, Reply, ReplyError};

/// Highest version of the protocol; it is offered.
pub const VERSION: u32 = 6;
/// Lowest version that is spoken.
pub const VERSION_MIN: u32 = 2;
/// From this version on there is SMFIC_DATA.
const VERSION_WITH_DATA: u32 = 4;

/// Changes of one message, those of the body not counted: its octets are.
pub const MODIFICATIONS_MAX: u32 = 1000;
/// SMFIR_PROGRESS to one command.
pub const PROGRESS_MAX: u32 = 10_000;

/// A session.
#[derive(Debug, Clone)]
pub struct Session {
    state: State,
    awaited: Option<Awaited>,
    offered: Actions,
    options: Options,
    /// SMFIR_SKIP: no more of these for this message.
    skipped: Steps,
    modifications: u32,
    progress: u32,
}

/// What was sent last, in the order of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Negotiating,
    Ready,
    Connected,
    Greeted,
    Mail,
    Rcpt,
    Data,
    Header,
    Body,
    End,
    Over,
}

/// What a reply is due to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Options,
    Session,
    Message,
    /// Of which there can be several, and SMFIR_SKIP.
    Repeated(Steps),
    End,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Its reply must be received before the next command.
    Awaits,
    /// It has no reply.
    Silent,
    /// The milter does not want it; nothing was written.
    Unwanted,
}

/// What a frame of the milter means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Commands may be sent.
    Negotiated,
    /// It is still at work: time begins anew.
    Progress,
    /// Something to do to the message, if the verdict that follows is not against it.
    Modification(Modification),
    /// The reply to the command.
    Verdict(Verdict),
}

/// What a milter thinks of a command, and with that of the session, message or recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on; to [`Command::EndOfMessage`]: the message passes.
    Continue,
    /// Passes, and nothing more need be said about it.
    Accept,
    /// Taken, and delivered to nobody.
    Discard,
    /// To [`Command::Rcpt`] the recipient, to [`Command::Connect`] and [`Command::Helo`] the client, else the message.
    Refuse(Refusal),
}

/// A command at the wrong time: a bug of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The reply to the one before is not there.
    #[error("a command before the reply to the one before")]
    Awaiting,
    /// Not after what was sent last.
    #[error("{command} is no command after {after}")]
    Sequence {
        /// What was to be sent.
        command: String,
        /// What was sent last.
        after: String,
    },
    /// Beyond [`crate::BODY_OCTETS_MAX`].
    #[error("a chunk of {0} octets; {max} are the most", max = crate::BODY_OCTETS_MAX)]
    Chunk(usize),
}

/// A milter that does not keep to the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// No reply at all.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// Nothing was asked.
    #[error("the milter sent {reply}, and nothing was asked")]
    Unasked {
        /// SMFIR_*.
        reply: &'static str,
    },
    /// Not an answer to this.
    #[error("the milter sent {reply}, which is no reply to what was sent last ({after})")]
    Unfitting {
        /// SMFIR_*.
        reply: &'static str,
        /// What was sent last.
        after: String,
    },
    /// Too old, or too new for what was offered.
    #[error(
        "the milter speaks version {0} of the protocol; versions {VERSION_MIN} to {VERSION} are known"
    )]
    Version(u32),
    /// It needs what is not offered.
    #[error(
        "the milter asks for actions {actions} and protocol flags {steps}, more than was offered"
    )]
    NotOffered {
        /// Of those, what was not offered.
        actions: Actions,
        /// Of those, what was not offered.
        steps: Steps,
    },
    /// It does what it has not negotiated.
    #[error("the milter sent {reply} without having asked for it in the negotiation")]
    NotNegotiated {
        /// SMFIR_*.
        reply: &'static str,
    },
    /// A limit.
    #[error("the milter sent more than {MODIFICATIONS_MAX} changes of one message")]
    TooManyModifications,
    /// A limit.
    #[error("the milter sent more than {PROGRESS_MAX} reports of progress to one command")]
    TooMuchProgress,
    /// SMFIR_CONN_FAIL.
    #[error("the milter asks for the connection to fail (SMFIR_CONN_FAIL)")]
    ConnectionFailed,
}

// === impl Session ===

impl Session {
    /// Begins a session in which the milter may do `actions`; writes the offer.
    pub fn start(actions: Actions, out: &mut BytesMut) -> Self {
        encode(SMFIC_OPTNEG, out, |out| {
            out.put_u32(VERSION);
            out.put_u32(actions.0);
            out.put_u32(Steps::OFFERED.0);
        });
        Self {
            state: State::Negotiating,
            awaited: Some(Awaited::Options),
            offered: actions,
            options: Options {
                version: VERSION,
                actions: Actions::default(),
                steps: Steps::default(),
                macros: Vec::new(),
            },
            skipped: Steps::default(),
            modifications: 0,
            progress: 0,
        }
    }

    /// May the milter do this, as far as was agreed?
    pub fn may(&self, actions: Actions) -> bool {
        self.options.actions.contains(actions)
    }

    /// Does it want to see the body, or more of it?
    pub fn wants_body(&self) -> bool {
        !self.leaves_out(Steps::NOBODY)
    }

    /// Is white space after the colon of a header field part of its value?
    pub fn keeps_leading_space(&self) -> bool {
        self.options.steps.contains(Steps::HDR_LEADSPC)
    }

    /// Must a reply be received?
    pub fn awaits(&self) -> bool {
        self.awaited.is_some()
    }

    fn leaves_out(&self, step: Steps) -> bool {
        (self.options.steps | self.skipped).contains(step)
    }

    /// Writes `command`, with those of `macros` before it that belong there, unless the milter does not want it.
    pub fn send(
        &mut self,
        command: &Command<'_>,
        macros: &Macros,
        out: &mut BytesMut,
    ) -> Result<Sent, OrderError> {
        // Whoever leaves waits for nothing.
        if self.awaited.is_some() && *command != Command::Quit {
            return Err(OrderError::Awaiting);
        }
        if let Command::Body(octets) = command
            && octets.len() > crate::BODY_OCTETS_MAX
        {
            return Err(OrderError::Chunk(octets.len()));
        }
        self.advance(command)?;
        let form = Form::of(command);
        if self.is_left_out(command, &form) {
            return Ok(Sent::Unwanted);
        }
        if let Some(stage) = form.stage {
            let asked = self.options.macros.iter().rev();
            let asked = asked
                .filter(|(known, _)| *known == stage)
                .map(|(_, names)| names)
                .next();
            match asked {
                Some(names) => macros.encode(names.iter().map(String::as_str), command.code(), out),
                None => macros.encode(stage.default_names().iter().copied(), command.code(), out),
            }
        }
        command.encode(self.keeps_leading_space(), out);
        self.progress = 0;
        self.awaited = form.awaited.filter(|_| {
            !form
                .silent
                .is_some_and(|flag| self.options.steps.contains(flag))
        });
        Ok(if self.awaited.is_some() {
            Sent::Awaits
        } else {
            Sent::Silent
        })
    }

    fn is_left_out(&self, command: &Command<'_>, form: &Form) -> bool {
        let too_old = *command == Command::Data && self.options.version < VERSION_WITH_DATA;
        too_old || form.left_out.is_some_and(|flag| self.leaves_out(flag))
    }

    fn advance(&mut self, command: &Command<'_>) -> Result<(), OrderError> {
        use State::{
            Body, Connected, Data, End, Greeted, Header, Mail, Negotiating, Over, Rcpt, Ready,
        };
        let next = match (command, self.state) {
            (
                Command::Quit,
                Negotiating | Ready | Connected | Greeted | Mail | Rcpt | Data | Header | Body
                | End,
            ) => Over,
            (Command::Connect { .. }, Ready) => Connected,
            (Command::Helo(_), Connected)
            | (Command::Abort, Mail | Rcpt | Data | Header | Body | End) => Greeted,
            (Command::Mail { .. }, Connected | Greeted) => Mail,
            (Command::Rcpt { .. }, Mail | Rcpt) => Rcpt,
            (Command::Data, Rcpt) => Data,
            (Command::Header { .. }, Data | Header) => Header,
            (Command::EndOfHeader, Data | Header) | (Command::Body(_), Body) => Body,
            (Command::EndOfMessage, Body) => End,
            _ => {
                return Err(OrderError::Sequence {
                    command: format!("SMFIC_{}", char::from(command.code())),
                    after: format!("{:?}", self.state),
                });
            }
        };
        if next == Greeted {
            self.skipped = Steps::default();
        }
        self.state = next;
        Ok(())
    }

    /// Takes a frame of the milter.
    pub fn receive(&mut self, frame: Frame) -> Result<Event, ProtocolError> {
        let reply = Reply::parse(frame)?;
        let Some(awaited) = self.awaited else {
            return Err(ProtocolError::Unasked {
                reply: reply.name(),
            });
        };
        let name = reply.name();
        match (reply, awaited) {
            (Reply::Options(options), Awaited::Options) => self.negotiated(options),
            (Reply::ConnectionFailed, _) => Err(ProtocolError::ConnectionFailed),
            (_, Awaited::Options) | (Reply::Options(_), _) => Err(self.unfitting(name)),
            (Reply::Progress, _) => self.progress(),
            (Reply::Modify(modification), Awaited::End) => self.modification(modification),
            (Reply::Continue, _) => Ok(self.verdict(Verdict::Continue)),
            (Reply::Accept, _) => Ok(self.verdict(Verdict::Accept)),
            (Reply::Refuse(refusal), _) => Ok(self.verdict(Verdict::Refuse(refusal))),
            (Reply::Discard, Awaited::Message | Awaited::Repeated(_) | Awaited::End) => {
                Ok(self.verdict(Verdict::Discard))
            }
            (Reply::Skip, Awaited::Repeated(step)) => {
                self.skipped = self.skipped | step;
                Ok(self.verdict(Verdict::Continue))
            }
            (Reply::Modify(_) | Reply::Discard | Reply::Skip, _) => Err(self.unfitting(name)),
        }
    }

    fn negotiated(&mut self, options: Options) -> Result<Event, ProtocolError> {
        if !(VERSION_MIN..=VERSION).contains(&options.version) {
            return Err(ProtocolError::Version(options.version));
        }
        let actions = Actions(options.actions.0 & !self.offered.0);
        let steps = Steps(options.steps.0 & !Steps::OFFERED.0);
        if (actions, steps) != (Actions::default(), Steps::default()) {
            return Err(ProtocolError::NotOffered { actions, steps });
        }
        self.options = options;
        self.state = State::Ready;
        self.awaited = None;
        Ok(Event::Negotiated)
    }

    fn progress(&mut self) -> Result<Event, ProtocolError> {
        self.progress += 1;
        if self.progress > PROGRESS_MAX {
            return Err(ProtocolError::TooMuchProgress);
        }
        Ok(Event::Progress)
    }

    fn modification(&mut self, modification: Modification) -> Result<Event, ProtocolError> {
        if !modification.is_allowed_by(self.options.actions) {
            return Err(ProtocolError::NotNegotiated {
                reply: modification.name(),
            });
        }
        if !matches!(modification, Modification::ReplaceBody(_)) {
            self.modifications += 1;
        }
        if self.modifications > MODIFICATIONS_MAX {
            return Err(ProtocolError::TooManyModifications);
        }
        Ok(Event::Modification(modification))
    }

    fn verdict(&mut self, verdict: Verdict) -> Event {
        self.awaited = None;
        Event::Verdict(verdict)
    }

    fn unfitting(&self, reply: &'static str) -> ProtocolError {
        ProtocolError::Unfitting {
            reply,
            after: format!("{:?}", self.state),
        }
    }
}

/// What the protocol has for a command.
struct Form {
    /// Macros go before it.
    stage: Option<Stage>,
    /// With this flag it is not sent.
    left_out: Option<Steps>,
    /// With this flag it has no reply.
    silent: Option<Steps>,
    awaited: Option<Awaited>,
}

impl Form {
    fn of(command: &Command<'_>) -> Self {
        let form = |stage, left_out, silent, awaited| Self {
            stage,
            left_out: Some(left_out),
            silent: Some(silent),
            awaited: Some(awaited),
        };
        match command {
            Command::Connect { .. } => form(
                Some(Stage::Connect),
                Steps::NOCONNECT,
                Steps::NR_CONN,
                Awaited::Session,
            ),
            Command::Helo(_) => form(
                Some(Stage::Helo),
                Steps::NOHELO,
                Steps::NR_HELO,
                Awaited::Session,
            ),
            Command::Mail { .. } => form(
                Some(Stage::Mail),
                Steps::NOMAIL,
                Steps::NR_MAIL,
                Awaited::Message,
            ),
            Command::Rcpt { .. } => form(
                Some(Stage::Rcpt),
                Steps::NORCPT,
                Steps::NR_RCPT,
                Awaited::Repeated(Steps::NORCPT),
            ),
            Command::Data => form(
                Some(Stage::Data),
                Steps::NODATA,
                Steps::NR_DATA,
                Awaited::Message,
            ),
            Command::Header { .. } => form(
                None,
                Steps::NOHDRS,
                Steps::NR_HDR,
                Awaited::Repeated(Steps::NOHDRS),
            ),
            Command::EndOfHeader => form(
                Some(Stage::EndOfHeader),
                Steps::NOEOH,
                Steps::NR_EOH,
                Awaited::Message,
            ),
            Command::Body(_) => form(
                None,
                Steps::NOBODY,
                Steps::NR_BODY,
                Awaited::Repeated(Steps::NOBODY),
            ),
            Command::EndOfMessage => Self {
                stage: Some(Stage::EndOfMessage),
                left_out: None,
                silent: None,
                awaited: Some(Awaited::End),
            },
            Command::Abort | Command::Quit => Self {
                stage: None,
                left_out: None,
                silent: None,
                awaited: None,
            },
        }
    }
}

#[cfg(test)]
mod tests;
