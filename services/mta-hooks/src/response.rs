//! The scanner's response: read as a whole, and turned into an answer as a whole, or an error.
//!
//! Indices of header fields count those of the name from 1 on in the message that the scanner was shown, as milters do; 0 is the first
//! too. What a scanner takes out and is not there is gone already; what it changes and is not there is added.

use bytes::Bytes;
use opes_callout_server::{Answer, CommandAnswer};
use opes_mime::{Field, Structure};
use opes_proto::smtp::RecipientChange;
use serde::Deserialize;

/// Most modifications in one response.
pub const MODIFICATIONS_MAX: usize = 1000;

/// Characters of a reply's text; RFC 5321 §4.5.3.1.5 has lines of 512 octets.
const TEXT_MAX: usize = 400;

/// If the scanner names no reply.
const TEXT_DEFAULT: &str = "Message refused by policy";

/// Why a response cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// Not JSON, or not of this form.
    #[error("the scanner's response cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Too much to do.
    #[error("the scanner's response has {count} modifications, more than {MODIFICATIONS_MAX}")]
    TooMany {
        /// So many.
        count: usize,
    },
    /// `reject`, and a reply that is none.
    #[error("the scanner refuses with status {status}; a refusal is 400 to 599")]
    Status {
        /// As the scanner has it.
        status: u16,
    },
    /// Means nothing before the message is there.
    #[error("the scanner's `{what}` can be done at stage DATA only")]
    Stage {
        /// Action or modification.
        what: &'static str,
    },
}

/// As the documentation has it; fields that are not named here are passed over.
#[derive(Debug, Deserialize)]
pub(crate) struct Response {
    action: Action,
    #[serde(default, rename = "response")]
    reply: Option<Reply>,
    #[serde(default)]
    modifications: Option<Vec<Modification>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Accept,
    Discard,
    Reject,
    Quarantine,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    enhanced_status: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Modification {
    ChangeFrom {
        value: String,
    },
    #[serde(alias = "addRcpt")]
    AddRecipient {
        value: String,
    },
    #[serde(alias = "deleteRcpt")]
    DeleteRecipient {
        value: String,
    },
    ReplaceContents {
        value: String,
    },
    AddHeader {
        name: String,
        value: String,
    },
    InsertHeader {
        #[serde(default)]
        index: u32,
        name: String,
        value: String,
    },
    ChangeHeader {
        #[serde(default)]
        index: u32,
        name: String,
        value: String,
    },
    DeleteHeader {
        #[serde(default)]
        index: u32,
        name: String,
    },
}

/// What the scanner was shown.
pub(crate) struct Shown<'a> {
    pub(crate) octets: &'a [u8],
    pub(crate) structure: &'a Structure,
    /// Addresses of the recipients.
    pub(crate) recipients: &'a [String],
}

// === impl Response ===

impl Response {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ResponseError> {
        let response: Self = serde_json::from_slice(body)?;
        let count = response.modifications().len();
        if count > MODIFICATIONS_MAX {
            return Err(ResponseError::TooMany { count });
        }
        if let Action::Reject = response.action {
            response.refusal()?;
        }
        Ok(response)
    }

    fn modifications(&self) -> &[Modification] {
        self.modifications.as_deref().unwrap_or_default()
    }

    /// Code, enhanced code and text.
    fn refusal(&self) -> Result<(u16, String, String), ResponseError> {
        let reply = self.reply.as_ref();
        let status = reply.and_then(|reply| reply.status).unwrap_or(550);
        if !(400..600).contains(&status) {
            return Err(ResponseError::Status { status });
        }
        let class = status / 100;
        let enhanced = reply.and_then(|reply| reply.enhanced_status.clone());
        let enhanced = enhanced.filter(|code| is_enhanced(code, class));
        let text = reply.and_then(|reply| reply.message.as_deref());
        let text = printable(text.unwrap_or_default());
        let text = if text.is_empty() {
            TEXT_DEFAULT.to_owned()
        } else {
            text
        };
        Ok((
            status,
            enhanced.unwrap_or_else(|| format!("{class}.7.1")),
            text,
        ))
    }

    /// To a command.
    pub(crate) fn command_answer(&self) -> Result<CommandAnswer, ResponseError> {
        let answer = match self.action {
            Action::Accept => CommandAnswer::proceed(),
            Action::Reject => {
                let (status, enhanced, text) = self.refusal()?;
                return Ok(CommandAnswer::reply(u32::from(status), &enhanced, text));
            }
            Action::Discard => return Err(ResponseError::Stage { what: "discard" }),
            Action::Quarantine => return Err(ResponseError::Stage { what: "quarantine" }),
        };
        let mut steps = self.modifications().iter();
        steps.try_fold(answer, |answer, step| step.on_command(answer))
    }

    /// To a message.
    pub(crate) fn answer(&self, shown: &Shown<'_>) -> Result<Answer, ResponseError> {
        let answer = match self.action {
            Action::Accept => Answer::accept(),
            Action::Quarantine => Answer::accept().quarantine("the scanner says so"),
            Action::Discard => return Ok(Answer::discard()),
            Action::Reject => {
                let (status, enhanced, text) = self.refusal()?;
                let code = u32::from(status);
                return Ok(if status < 500 {
                    Answer::tempfail(code, &enhanced, text)
                } else {
                    Answer::reject(code, &enhanced, text)
                });
            }
        };
        let steps = self.modifications().iter();
        Ok(steps.fold(answer, |answer, step| step.on_message(answer, shown)))
    }
}

// === impl Modification ===

impl Modification {
    fn on_command(&self, answer: CommandAnswer) -> Result<CommandAnswer, ResponseError> {
        let what = match self {
            Self::ChangeFrom { value } => return Ok(answer.mail_from(bare(value))),
            Self::AddRecipient { value } => return Ok(answer.recipient(added(value))),
            Self::DeleteRecipient { value } => return Ok(answer.recipient(removed(bare(value)))),
            Self::ReplaceContents { .. } => "replaceContents",
            Self::AddHeader { .. } => "addHeader",
            Self::InsertHeader { .. } => "insertHeader",
            Self::ChangeHeader { .. } => "changeHeader",
            Self::DeleteHeader { .. } => "deleteHeader",
        };
        Err(ResponseError::Stage { what })
    }

    fn on_message(&self, answer: Answer, shown: &Shown<'_>) -> Answer {
        match self {
            Self::ChangeFrom { value } => answer.mail_from(bare(value)),
            Self::AddRecipient { value } => answer.recipient(added(value)),
            Self::DeleteRecipient { value } => match shown.recipient(bare(value)) {
                Some(recipient) => answer.recipient(removed(recipient)),
                None => answer,
            },
            Self::ReplaceContents { value } => shown.replace_body(answer, value),
            // The protocol has two places for a new field.
            Self::InsertHeader {
                index: 0 | 1,
                name,
                value,
            } => answer.add_header(name, lines(value)),
            Self::AddHeader { name, value } | Self::InsertHeader { name, value, .. } => {
                answer.append_header(name, lines(value))
            }
            Self::ChangeHeader { index, name, value } => match shown.nth(name, *index) {
                Some(nth) => answer.replace_header(name, nth, lines(value)),
                None => answer.append_header(name, lines(value)),
            },
            Self::DeleteHeader { index, name } => match shown.nth(name, *index) {
                Some(nth) => answer.delete_header(name, nth),
                None => answer,
            },
        }
    }
}

// === impl Shown ===

impl Shown<'_> {
    /// The recipient as the processor names it.
    fn recipient(&self, address: &str) -> Option<&str> {
        let mut recipients = self.recipients.iter().map(String::as_str);
        recipients.find(|recipient| recipient.eq_ignore_ascii_case(address))
    }

    /// From 0 on, if there is such a field.
    fn nth(&self, name: &str, index: u32) -> Option<u32> {
        let nth = index.saturating_sub(1);
        let named = |field: &&Field| self.name(field).eq_ignore_ascii_case(name.as_bytes());
        let count = self.structure.fields.iter().filter(named).count();
        usize::try_from(nth)
            .is_ok_and(|nth| nth < count)
            .then_some(nth)
    }

    fn name(&self, field: &Field) -> &[u8] {
        let (from, to) = (
            usize::try_from(field.name.start),
            usize::try_from(field.name.end),
        );
        let range = from.ok().zip(to.ok());
        let name = range.and_then(|(from, to)| self.octets.get(from..to));
        name.unwrap_or_default()
    }

    fn replace_body(&self, answer: Answer, body: &str) -> Answer {
        let at = self.structure.header_end;
        let body = lines(body);
        // Without an empty line there is no body yet.
        let body = if self.structure.fields_end == at {
            Bytes::from([b"\r\n", body.as_ref()].concat())
        } else {
            body
        };
        answer.splice(at, self.structure.len.saturating_sub(at), body)
    }
}

fn added(address: &str) -> RecipientChange {
    RecipientChange {
        address: bare(address).to_owned(),
        ..RecipientChange::default()
    }
}

fn removed(address: &str) -> RecipientChange {
    RecipientChange {
        original: address.to_owned(),
        remove: true,
        ..RecipientChange::default()
    }
}

fn bare(address: &str) -> &str {
    let address = address.trim();
    let inner = address
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'));
    inner.unwrap_or(address)
}

/// Lines end with CRLF (RFC 5322 §2.1), however the scanner ended them.
fn lines(text: &str) -> Bytes {
    text.replace("\r\n", "\n").replace('\n', "\r\n").into()
}

/// RFC 3463 §2, of this class.
fn is_enhanced(code: &str, class: u16) -> bool {
    let mut parts = code.split('.').map(str::parse::<u16>);
    let (first, subject, detail) = (parts.next(), parts.next(), parts.next());
    let small = |part: Option<Result<u16, _>>| matches!(part, Some(Ok(0..=999)));
    first == Some(Ok(class)) && small(subject) && small(detail) && parts.next().is_none()
}

/// One line of US-ASCII, as long as a reply's may be.
fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        ' '..='~' => c,
        c if c.is_whitespace() => ' ',
        _ => '?',
    };
    let line: String = text.trim().chars().take(TEXT_MAX).map(shown).collect();
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests;
