//! What a service decides about mail data: [`Answer`], a builder over the profile's `Outcome`.
//!
//! All parts combine. The processor enforces what the rule lets the service do; what goes beyond is refused there and
//! counted, so that nothing is checked twice. Offsets and paths always name the message as this service saw it.

use bytes::Bytes;
use opes_proto::smtp::{
    BodyMark, Copy, Edit, EnvelopeChange, HeaderAdd, HeaderDelete, HeaderReplace, NextHop,
    Notification, Outcome, PartReplace, Quarantine, RecipientChange, Reply, Splice, SubjectMark,
    Verdict, edit, notification, verdict,
};

use crate::adapted::AdaptedMessage;

/// The answer to a message. Starts as [`Answer::accept`]; every method adds to it.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Answer {
    outcome: Outcome,
}

impl Answer {
    /// The message goes on as it is.
    pub fn accept() -> Self {
        Self::default()
    }

    /// Refuses for good, e.g. `(550, "5.7.1", "attachment not allowed here")`.
    pub fn reject(code: u32, enhanced: &str, text: impl Into<String>) -> Self {
        Self::accept().verdict(verdict::Action::Reject, Some(reply(code, enhanced, text)))
    }

    /// Refuses for now, e.g. `(451, "4.7.1", "try again in an hour")`.
    pub fn tempfail(code: u32, enhanced: &str, text: impl Into<String>) -> Self {
        Self::accept().verdict(verdict::Action::Tempfail, Some(reply(code, enhanced, text)))
    }

    /// Answers 250 and delivers to nobody; only where the rule allows it.
    pub fn discard() -> Self {
        Self::accept().verdict(verdict::Action::Discard, None)
    }

    fn verdict(mut self, action: verdict::Action, reply: Option<Reply>) -> Self {
        self.outcome.verdict = Some(Verdict {
            action: action.into(),
            reply,
        });
        self
    }

    /// Adds a header field at the top. `value`: no final CRLF, folded by the caller if long.
    pub fn add_header(self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.header_add(name, value, false)
    }

    /// Adds a header field below the last one.
    pub fn append_header(self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.header_add(name, value, true)
    }

    fn header_add(self, name: impl Into<String>, value: impl Into<Bytes>, append: bool) -> Self {
        let (name, value) = (name.into(), value.into());
        self.edit(edit::Kind::HeaderAdd(HeaderAdd {
            name,
            value,
            append,
            above: None,
        }))
    }

    /// Adds a header field above the one with number `above`, counted over all names, 0 = topmost; below the last one if
    /// there are not so many.
    pub fn insert_header(
        self,
        above: u32,
        name: impl Into<String>,
        value: impl Into<Bytes>,
    ) -> Self {
        let (name, value) = (name.into(), value.into());
        self.edit(edit::Kind::HeaderAdd(HeaderAdd {
            name,
            value,
            append: false,
            above: Some(above),
        }))
    }

    /// Replaces the value of a field; `index` counts the fields of that name from the top, 0 first.
    pub fn replace_header(
        self,
        name: impl Into<String>,
        index: u32,
        value: impl Into<Bytes>,
    ) -> Self {
        let (name, value) = (name.into(), value.into());
        self.edit(edit::Kind::HeaderReplace(HeaderReplace {
            name,
            index,
            value,
        }))
    }

    /// Deletes one field of that name, 0 = topmost.
    pub fn delete_header(self, name: impl Into<String>, index: u32) -> Self {
        self.edit(edit::Kind::HeaderDelete(HeaderDelete {
            name: name.into(),
            index,
            all: false,
        }))
    }

    /// Deletes every field of that name.
    pub fn delete_headers(self, name: impl Into<String>) -> Self {
        self.edit(edit::Kind::HeaderDelete(HeaderDelete {
            name: name.into(),
            index: 0,
            all: true,
        }))
    }

    /// Puts a text in front of the subject, once.
    pub fn mark_subject(self, text: impl Into<String>) -> Self {
        self.edit(edit::Kind::SubjectMark(SubjectMark { text: text.into() }))
    }

    /// Replaces the MIME entity at `path` (`1.2`; empty = the whole message) by a text (RFC 4496 §4.1).
    pub fn replace_part(self, path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        self.edit(edit::Kind::PartReplace(PartReplace {
            path,
            text,
            name: String::new(),
        }))
    }

    /// Replaces `size` octets from `offset` on.
    pub fn splice(self, offset: u64, size: u64, replacement: impl Into<Bytes>) -> Self {
        let replacement = replacement.into();
        self.edit(edit::Kind::Splice(Splice {
            offset,
            size,
            replacement,
        }))
    }

    /// Puts a text in front of the first displayed text part.
    pub fn mark_body(self, text: impl Into<String>) -> Self {
        self.edit(edit::Kind::BodyMark(BodyMark { text: text.into() }))
    }

    /// Adds one edit as the profile has it.
    pub fn edit(mut self, kind: edit::Kind) -> Self {
        self.outcome.edits.push(Edit { kind: Some(kind) });
        self
    }

    /// Advice: keep the message out of the mailbox. `reason` is for the administrator.
    pub fn quarantine(mut self, reason: impl Into<String>) -> Self {
        self.outcome.quarantine = Some(Quarantine {
            reason: reason.into(),
            queue: String::new(),
        });
        self
    }

    /// Advice: a queue of its own, e.g. `spam`.
    pub fn quarantine_in(mut self, queue: impl Into<String>, reason: impl Into<String>) -> Self {
        self.outcome.quarantine = Some(Quarantine {
            reason: reason.into(),
            queue: queue.into(),
        });
        self
    }

    /// Asks the processor to send a notification.
    pub fn notify(
        mut self,
        to: notification::To,
        subject: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        let (subject, text) = (subject.into(), text.into());
        self.outcome.notifications.push(Notification {
            to: to.into(),
            subject,
            text,
        });
        self
    }

    /// Reports an incident: a JSON object as text.
    pub fn incident(mut self, json: impl Into<String>) -> Self {
        self.outcome.incident_json = json.into();
        self
    }

    /// Later rules can test this: `annotation("key")`.
    pub fn annotate(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.outcome.annotations.insert(key.into(), value.into());
        self
    }

    /// One line for people: why. For logs and `explain`, never shown to clients.
    pub fn reason(mut self, text: impl Into<String>) -> Self {
        self.outcome.reason = text.into();
        self
    }

    /// Changes the reverse-path; empty = the null reverse-path.
    pub fn mail_from(mut self, address: impl Into<String>) -> Self {
        self.envelope().mail_from = Some(address.into());
        self
    }

    /// Changes, adds or removes a recipient.
    pub fn recipient(mut self, change: RecipientChange) -> Self {
        self.envelope().recipients.push(change);
        self
    }

    /// Routes a recipient to a next hop of its own.
    pub fn route(self, recipient: impl Into<String>, next_hop: NextHop) -> Self {
        self.recipient(RecipientChange {
            original: recipient.into(),
            next_hop: Some(next_hop),
            ..RecipientChange::default()
        })
    }

    /// These recipients, as the context names them, get `answer` in place of this one, as a whole: verdict, edits, message,
    /// envelope, advice. This one stays for all others. Only if [`Message::takes_copies`](crate::Message::takes_copies).
    pub fn for_recipients<R: Into<String>>(
        mut self,
        recipients: impl IntoIterator<Item = R>,
        answer: Self,
    ) -> Self {
        self.outcome.copies.push(Copy {
            recipients: recipients.into_iter().map(Into::into).collect(),
            outcome: Some(answer.outcome),
        });
        self
    }

    /// This answer is about that message, one of several in the adapted flow; its edits come on top.
    pub fn with_message(mut self, message: AdaptedMessage) -> Self {
        self.outcome.adapted = Some(message.range());
        self
    }

    /// The processor may reuse this answer for so long.
    pub fn cache_seconds(mut self, seconds: u32) -> Self {
        self.outcome.cache_seconds = seconds;
        self
    }

    fn envelope(&mut self) -> &mut EnvelopeChange {
        self.outcome.envelope.get_or_insert_default()
    }

    /// The profile's message.
    pub fn into_outcome(self) -> Outcome {
        self.outcome
    }

    /// As decided so far; for tests of services.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

/// From the profile's message, for services that build it themselves.
impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome }
    }
}

/// An SMTP reply of one or more lines (`\n` between them).
pub(crate) fn reply(code: u32, enhanced: &str, text: impl Into<String>) -> Reply {
    let lines = text.into().lines().map(str::to_owned).collect();
    Reply {
        code,
        enhanced: enhanced.to_owned(),
        lines,
    }
}
