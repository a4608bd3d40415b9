//! Delivery reports (RFC 3464 in RFC 6522, RFC 6533 for UTF-8): three parts, for people, for programs, and what it is about.

mod returned;
mod status;
#[cfg(test)]
mod tests;

use opes_smtp::reply::Reply;

pub use self::returned::{RETURNED_OCTETS_MAX, Returned};
use crate::mime::{Part, boundary, write_multipart};
use crate::{Author, Composed, DAEMON, date, field};

/// What became of a recipient (RFC 3464 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It will never be delivered.
    Failed,
    /// It is in the mailbox.
    Delivered,
    /// It was handed to a server that sends no reports.
    Relayed,
}

/// One recipient.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// Address without angle brackets, as we used it last.
    pub address: &'a str,
    /// Parameters of RCPT; ORCPT is taken from them.
    pub params: &'a [String],
    /// What became of it.
    pub action: Action,
    /// The reply that decided it.
    pub reply: &'a Reply,
    /// We gave up after trying for long (RFC 3463 X.4.7).
    pub expired: bool,
    /// Host name of the next hop; `None` = nobody else was involved.
    pub next_hop: Option<&'a str>,
}

/// Everything a report tells.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// Who writes.
    pub author: Author<'a>,
    /// Reverse-path of the message it is about; must not be empty.
    pub to: &'a str,
    /// Names this report; unique.
    pub id: &'a str,
    /// Now, seconds since 1970; also the time of the last attempt.
    pub now: u64,
    /// When the message arrived, seconds since 1970.
    pub arrived: u64,
    /// The message came with SMTPUTF8, so its sender can read it.
    pub smtputf8: bool,
    /// Parameters of MAIL; RET and ENVID are taken from them.
    pub params: &'a [String],
    /// At least one.
    pub recipients: &'a [Told<'a>],
    /// The message itself, or its beginning.
    pub returned: Returned<'a>,
}

// === impl Report ===

impl Report<'_> {
    /// The message.
    pub fn compose(&self) -> Composed {
        let parts = [
            Part::encoded("text/plain; charset=utf-8", self.explanation().as_bytes()),
            self.status(),
            self.returned.part(self.params, self.smtputf8),
        ];
        let host = field::host(self.author.hostname);
        let to = field::address(self.to);
        let id = field::id(self.id);
        let boundary = boundary(&id, &parts);
        let mut octets = format!(
            "From: Mail Delivery System <{DAEMON}@{host}>\r\nTo: <{to}>\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: <{id}@{host}>\r\n\
             Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\r\n\
             This is a delivery report in MIME format.\r\n\r\n",
            self.subject(),
            date::date_time(self.now),
        )
        .into_bytes();
        write_multipart(&boundary, &parts, &mut octets);
        Composed {
            octets,
            smtputf8: !to.is_ascii(),
            body_8bit: parts.iter().any(|part| !part.octets.is_ascii()),
        }
    }

    fn subject(&self) -> &'static str {
        if self.about(Action::Failed).next().is_some() {
            "Undelivered mail returned to sender"
        } else {
            "Your mail was delivered"
        }
    }

    fn about(&self, action: Action) -> impl Iterator<Item = &Told<'_>> {
        self.recipients
            .iter()
            .filter(move |told| told.action == action)
    }

    /// For people.
    fn explanation(&self) -> String {
        let mut text = format!(
            "This is the mail system at {}.\r\n",
            field::host(self.author.hostname)
        );
        for (action, heading) in [
            (
                Action::Failed,
                "Your message could not be delivered to the recipients below. No further attempts will be made.",
            ),
            (Action::Delivered, "Your message was delivered to"),
            (
                Action::Relayed,
                "Your message was handed on for the recipients below, to a server that sends no delivery reports",
            ),
        ] {
            if self.about(action).next().is_some() {
                text.push_str(&format!("\r\n{heading}\r\n"));
            }
            for told in self.about(action) {
                told.explain(&mut text);
            }
        }
        text.push_str(&format!(
            "\r\nIt had arrived here on {}.\r\n\r\n{}\r\n",
            date::date_time(self.arrived),
            self.author.sentence()
        ));
        text
    }
}

// === impl Told ===

impl Told<'_> {
    fn explain(&self, text: &mut String) {
        text.push_str(&format!("\r\n<{}>\r\n", field::address(self.address)));
        let reply = field::shown(&self.reply.to_string());
        let who = match self.next_hop {
            Some(host) => field::host(host),
            None => "this system".to_owned(),
        };
        if self.expired {
            text.push_str("    was tried for too long. In the last attempt\r\n");
        }
        text.push_str(&format!("    {who} said: {reply}\r\n"));
    }
}
