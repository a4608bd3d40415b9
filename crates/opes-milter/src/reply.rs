//! Replies: what a milter tells an MTA. Read strictly: a text ends with NUL, and nothing may follow what belongs there.

use bytes::{Buf as _, Bytes};

use crate::flags::{Actions, Steps};
use crate::frame::Frame;
use crate::macros::Stage;

/// Macro names of one stage that a milter can ask for, in octets with the spaces between them.
const MACRO_LIST_OCTETS_MAX: usize = 4096;
/// Lists of macros in one negotiation.
const MACRO_LISTS_MAX: usize = 16;
/// ESMTP parameters of an address.
const PARAMETERS_OCTETS_MAX: usize = 4096;
/// Lines of an SMTP reply.
const REPLY_LINES_MAX: usize = 32;
/// Characters of its text in one line; RFC 5321 §4.5.3.1.5 has lines of 512 octets.
const REPLY_TEXT_MAX: usize = 400;

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// SMFIC_OPTNEG.
    Options(Options),
    /// SMFIR_CONTINUE.
    Continue,
    /// SMFIR_ACCEPT.
    Accept,
    /// SMFIR_DISCARD.
    Discard,
    /// SMFIR_REJECT, SMFIR_TEMPFAIL, SMFIR_REPLYCODE, SMFIR_SHUTDOWN.
    Refuse(Refusal),
    /// SMFIR_CONN_FAIL.
    ConnectionFailed,
    /// SMFIR_SKIP.
    Skip,
    /// SMFIR_PROGRESS.
    Progress,
    /// Something to do to the message.
    Modify(Modification),
}

/// What was agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Of the protocol.
    pub version: u32,
    /// What the milter wants to be able to do.
    pub actions: Actions,
    /// What it wants left out or used.
    pub steps: Steps,
    /// Names of macros, without braces, that it wants at a stage.
    pub macros: Vec<(Stage, Vec<String>)>,
}

/// An SMTP reply that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 4yz or 5yz.
    pub code: u16,
    /// `5.7.1`, of the same class; empty: none.
    pub enhanced: String,
    /// Text of each line, printable US-ASCII, at least one line.
    pub lines: Vec<String>,
}

/// A change of the message or its envelope. Values of header fields are as the milter sent them, with LF between lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Modification {
    /// SMFIR_ADDHEADER: below all others.
    AddHeader {
        /// Before the colon.
        name: Bytes,
        /// After it.
        value: Bytes,
    },
    /// SMFIR_INSHEADER.
    InsertHeader {
        /// So many fields stand above it, the MTA's own Received field counted.
        index: u32,
        /// Before the colon.
        name: Bytes,
        /// After it.
        value: Bytes,
    },
    /// SMFIR_CHGHEADER.
    ChangeHeader {
        /// Which field of that name, from 1 on; 0 is the first too.
        index: u32,
        /// In any case.
        name: Bytes,
        /// Empty: the field is removed.
        value: Bytes,
    },
    /// SMFIR_REPLBODY: the next octets of another body.
    ReplaceBody(Bytes),
    /// SMFIR_ADDRCPT, SMFIR_ADDRCPT_PAR.
    AddRecipient {
        /// As the milter wrote it, mostly in angle brackets.
        address: String,
        /// ESMTP parameters, separated by spaces; empty: none.
        parameters: String,
    },
    /// SMFIR_DELRCPT.
    RemoveRecipient {
        /// As with `AddRecipient`.
        address: String,
    },
    /// SMFIR_CHGFROM.
    ChangeSender {
        /// As with `AddRecipient`.
        address: String,
        /// As with `AddRecipient`.
        parameters: String,
    },
    /// SMFIR_QUARANTINE.
    Quarantine {
        /// For the administrator.
        reason: String,
    },
}

/// A frame that is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A code that the protocol does not have.
    #[error("the milter's reply has the unknown code {0:#04x}")]
    Unknown(u8),
    /// The data do not fit the code.
    #[error("the milter's reply {reply} is malformed: {reason}")]
    Malformed {
        /// SMFIR_*.
        reply: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Reads the data of one reply.
struct Reader {
    reply: &'static str,
    data: Bytes,
}

// === impl Reply ===

impl Reply {
    /// Reads a frame.
    pub fn parse(frame: Frame) -> Result<Self, ReplyError> {
        let name = name(frame.code).ok_or(ReplyError::Unknown(frame.code))?;
        let mut data = Reader {
            reply: name,
            data: frame.data,
        };
        let reply = match frame.code {
            b'O' => Self::Options(data.options()?),
            b'c' => Self::Continue,
            b'a' => Self::Accept,
            b'd' => Self::Discard,
            b'r' => Self::Refuse(Refusal::simple(550, "5.7.1", "Refused by policy")),
            b't' => Self::Refuse(Refusal::simple(451, "4.7.1", "Try again later")),
            b'4' => Self::Refuse(Refusal::simple(421, "4.7.0", "Closing the connection")),
            b'y' => Self::Refuse(data.refusal()?),
            b'f' => Self::ConnectionFailed,
            b's' => Self::Skip,
            b'p' => Self::Progress,
            _ => Self::Modify(data.modification(frame.code)?),
        };
        data.end().map(|()| reply)
    }

    /// SMFIR_*, for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Options(_) => "SMFIC_OPTNEG",
            Self::Continue => "SMFIR_CONTINUE",
            Self::Accept => "SMFIR_ACCEPT",
            Self::Discard => "SMFIR_DISCARD",
            Self::Refuse(_) => "a refusal",
            Self::ConnectionFailed => "SMFIR_CONN_FAIL",
            Self::Skip => "SMFIR_SKIP",
            Self::Progress => "SMFIR_PROGRESS",
            Self::Modify(modification) => modification.name(),
        }
    }
}

fn name(code: u8) -> Option<&'static str> {
    Some(match code {
        b'O' => "SMFIC_OPTNEG",
        b'c' => "SMFIR_CONTINUE",
        b'a' => "SMFIR_ACCEPT",
        b'd' => "SMFIR_DISCARD",
        b'r' => "SMFIR_REJECT",
        b't' => "SMFIR_TEMPFAIL",
        b'4' => "SMFIR_SHUTDOWN",
        b'y' => "SMFIR_REPLYCODE",
        b'f' => "SMFIR_CONN_FAIL",
        b's' => "SMFIR_SKIP",
        b'p' => "SMFIR_PROGRESS",
        b'h' => "SMFIR_ADDHEADER",
        b'i' => "SMFIR_INSHEADER",
        b'm' => "SMFIR_CHGHEADER",
        b'b' => "SMFIR_REPLBODY",
        b'+' => "SMFIR_ADDRCPT",
        b'2' => "SMFIR_ADDRCPT_PAR",
        b'-' => "SMFIR_DELRCPT",
        b'e' => "SMFIR_CHGFROM",
        b'q' => "SMFIR_QUARANTINE",
        _ => return None,
    })
}

// === impl Modification ===

impl Modification {
    /// Do these flags allow it?
    pub(crate) fn is_allowed_by(&self, actions: Actions) -> bool {
        let one_of: &[Actions] = match self {
            Self::AddHeader { .. } | Self::InsertHeader { .. } => &[Actions::ADDHDRS],
            Self::ChangeHeader { .. } => &[Actions::CHGHDRS],
            Self::ReplaceBody(_) => &[Actions::CHGBODY],
            // Without parameters the two replies say the same.
            Self::AddRecipient { parameters, .. } if parameters.is_empty() => {
                &[Actions::ADDRCPT, Actions::ADDRCPT_PAR]
            }
            Self::AddRecipient { .. } => &[Actions::ADDRCPT_PAR],
            Self::RemoveRecipient { .. } => &[Actions::DELRCPT],
            Self::ChangeSender { .. } => &[Actions::CHGFROM],
            Self::Quarantine { .. } => &[Actions::QUARANTINE],
        };
        one_of.iter().any(|action| actions.contains(*action))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::AddHeader { .. } => "SMFIR_ADDHEADER",
            Self::InsertHeader { .. } => "SMFIR_INSHEADER",
            Self::ChangeHeader { .. } => "SMFIR_CHGHEADER",
            Self::ReplaceBody(_) => "SMFIR_REPLBODY",
            Self::AddRecipient { .. } => "SMFIR_ADDRCPT",
            Self::RemoveRecipient { .. } => "SMFIR_DELRCPT",
            Self::ChangeSender { .. } => "SMFIR_CHGFROM",
            Self::Quarantine { .. } => "SMFIR_QUARANTINE",
        }
    }
}

// === impl Refusal ===

impl Refusal {
    fn simple(code: u16, enhanced: &str, text: &str) -> Self {
        Self {
            code,
            enhanced: enhanced.to_owned(),
            lines: vec![text.to_owned()],
        }
    }

    /// Will it be refused the next time too?
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// From `550 5.7.1 text`, or several such lines. As in Sendmail, `%%` stands for `%`.
    fn parse(text: &str) -> Option<Self> {
        let mut refusal = Self::simple(0, "", "");
        refusal.lines.clear();
        for line in text.lines() {
            let (code, rest) = line.split_at_checked(3)?;
            let code = code.parse().ok().filter(|code| (400..600).contains(code))?;
            if refusal.lines.len() == REPLY_LINES_MAX
                || !matches!(refusal.code, 0) && refusal.code != code
            {
                return None;
            }
            refusal.code = code;
            let rest = match rest.split_at_checked(1) {
                Some((" " | "-", rest)) => rest,
                Some(_) => return None,
                None => "",
            };
            let text = refusal.without_enhanced(rest);
            refusal.lines.push(printable(text));
        }
        (!refusal.lines.is_empty()).then_some(refusal)
    }

    fn without_enhanced<'t>(&mut self, text: &'t str) -> &'t str {
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        if !is_enhanced(first, self.code / 100) {
            return text;
        }
        if self.lines.is_empty() {
            first.clone_into(&mut self.enhanced);
        }
        rest
    }
}

/// RFC 3463 §2, of this class.
fn is_enhanced(code: &str, class: u16) -> bool {
    let mut parts = code.split('.').map(str::parse::<u16>);
    let (first, subject, detail) = (parts.next(), parts.next(), parts.next());
    let small = |part: Option<Result<u16, _>>| matches!(part, Some(Ok(0..=999)));
    first == Some(Ok(class)) && small(subject) && small(detail) && parts.next().is_none()
}

fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        ' '..='~' => c,
        '\t' => ' ',
        _ => '?',
    };
    let text = text.replace("%%", "%");
    let line: String = text
        .trim()
        .chars()
        .take(REPLY_TEXT_MAX)
        .map(shown)
        .collect();
    line.trim_end().to_owned()
}

// === impl Reader ===

impl Reader {
    fn wrong(&self, reason: &'static str) -> ReplyError {
        ReplyError::Malformed {
            reply: self.reply,
            reason,
        }
    }

    fn end(&self) -> Result<(), ReplyError> {
        if self.data.is_empty() {
            Ok(())
        } else {
            Err(self.wrong("octets follow its data"))
        }
    }

    fn number(&mut self) -> Result<u32, ReplyError> {
        self.data
            .try_get_u32()
            .map_err(|_| self.wrong("a number is missing"))
    }

    fn octets(&mut self) -> Result<Bytes, ReplyError> {
        let end = self.data.iter().position(|octet| *octet == 0);
        let end = end.ok_or_else(|| self.wrong("a text does not end"))?;
        let text = self.data.split_to(end);
        self.data.advance(1);
        Ok(text)
    }

    fn text(&mut self) -> Result<String, ReplyError> {
        Ok(String::from_utf8_lossy(&self.octets()?).into_owned())
    }

    /// An address is no place for replacement characters.
    fn address(&mut self) -> Result<String, ReplyError> {
        let octets = self.octets()?;
        let text =
            std::str::from_utf8(&octets).map_err(|_| self.wrong("an address is no UTF-8"))?;
        Ok(text.to_owned())
    }

    /// libmilter leaves it out if there is none.
    fn parameters(&mut self) -> Result<String, ReplyError> {
        if self.data.is_empty() {
            return Ok(String::new());
        }
        let parameters = self.address()?;
        if parameters.len() > PARAMETERS_OCTETS_MAX {
            return Err(self.wrong("too many parameters"));
        }
        Ok(parameters)
    }

    fn refusal(&mut self) -> Result<Refusal, ReplyError> {
        let text = self.text()?;
        Refusal::parse(&text).ok_or_else(|| self.wrong("it is no SMTP reply of 400 to 599"))
    }

    fn options(&mut self) -> Result<Options, ReplyError> {
        let mut options = Options {
            version: self.number()?,
            actions: Actions(self.number()?),
            steps: Steps(self.number()?),
            macros: Vec::new(),
        };
        while !self.data.is_empty() {
            let stage = Stage::from_number(self.number()?);
            let stage = stage.ok_or_else(|| self.wrong("macros for an unknown stage"))?;
            let list = self.text()?;
            if list.len() > MACRO_LIST_OCTETS_MAX || options.macros.len() == MACRO_LISTS_MAX {
                return Err(self.wrong("it asks for too many macros"));
            }
            let bare = |name: &str| name.trim_matches(['{', '}']).to_owned();
            let names = list.split([' ', ',', '\t']).filter(|name| !name.is_empty());
            options.macros.push((stage, names.map(bare).collect()));
        }
        Ok(options)
    }

    fn modification(&mut self, code: u8) -> Result<Modification, ReplyError> {
        Ok(match code {
            b'h' => Modification::AddHeader {
                name: self.octets()?,
                value: self.octets()?,
            },
            b'i' => Modification::InsertHeader {
                index: self.number()?,
                name: self.octets()?,
                value: self.octets()?,
            },
            b'm' => Modification::ChangeHeader {
                index: self.number()?,
                name: self.octets()?,
                value: self.octets()?,
            },
            b'b' => Modification::ReplaceBody(std::mem::take(&mut self.data)),
            b'+' | b'2' => Modification::AddRecipient {
                address: self.address()?,
                parameters: self.parameters()?,
            },
            b'-' => Modification::RemoveRecipient {
                address: self.address()?,
            },
            b'e' => Modification::ChangeSender {
                address: self.address()?,
                parameters: self.parameters()?,
            },
            b'q' => Modification::Quarantine {
                reason: self.text()?,
            },
            other => return Err(ReplyError::Unknown(other)),
        })
    }
}

#[cfg(test)]
mod tests;
