//! The part for programs: `message/delivery-status` (RFC 3464 §2), or `message/global-delivery-status` (RFC 6533 §4) where it has UTF-8.

use opes_smtp::reply::{Enhanced, Reply};

use super::{Action, Report, Told};
use crate::mime::Part;
use crate::{date, field, parameters};

/// RFC 3463 §3.5: delivery time expired.
const EXPIRED: Enhanced = Enhanced(4, 4, 7);

/// Lines `Name: value`, in the character set that the part may have.
struct Fields {
    text: String,
    utf8: bool,
}

// === impl Report ===

impl Report<'_> {
    pub(super) fn status(&self) -> Part {
        if self.smtputf8 {
            let text = self.fields(true);
            if !text.is_ascii() {
                return Part::encoded("message/global-delivery-status", text.as_bytes());
            }
        }
        Part::encoded("message/delivery-status", self.fields(false).as_bytes())
    }

    pub(super) fn fields(&self, utf8: bool) -> String {
        let text = String::new();
        let mut fields = Fields { text, utf8 };
        if let Some(id) = parameters::envelope_id(self.params) {
            fields.add("Original-Envelope-Id", &id);
        }
        let host = field::host(self.author.hostname);
        fields.add("Reporting-MTA", &format!("dns; {host}"));
        fields.add("Arrival-Date", &date::date_time(self.arrived));
        let system = field::ascii(self.author.system);
        if !system.is_empty() {
            // RFC 4902 §4: the OPES system is named in what it returns to the sender; RFC 3464 §2.4 leaves `X-` names to us.
            let id = field::ascii(self.author.trace);
            fields.add("X-OPES-System", &format!("{system}; id={id}"));
        }
        for told in self.recipients {
            fields.text.push_str("\r\n");
            fields.recipient(told, &date::date_time(self.now));
        }
        fields.text
    }
}

// === impl Fields ===

impl Fields {
    fn add(&mut self, name: &str, value: &str) {
        let value = if self.utf8 {
            field::shown(value)
        } else {
            field::ascii(value)
        };
        self.text.push_str(&format!("{name}: {value}\r\n"));
    }

    fn recipient(&mut self, told: &Told<'_>, now: &str) {
        if let Some((kind, address)) = parameters::original_recipient(told.params) {
            self.address("Original-Recipient", &kind, &address);
        }
        self.address("Final-Recipient", "rfc822", told.address);
        let action = match told.action {
            Action::Failed => "failed",
            Action::Delivered => "delivered",
            Action::Relayed => "relayed",
        };
        self.add("Action", action);
        self.add("Status", &status(told).to_string());
        if let Some(host) = told.next_hop {
            self.add("Remote-MTA", &format!("dns; {}", field::host(host)));
        }
        self.add("Diagnostic-Code", &format!("smtp; {}", line(told.reply)));
        self.add("Last-Attempt-Date", now);
    }

    fn address(&mut self, name: &str, kind: &str, address: &str) {
        match (address.is_ascii(), self.utf8) {
            (true, _) => self.add(name, &format!("{kind}; {address}")),
            (false, true) => self.add(name, &format!("utf-8; {address}")),
            (false, false) => {
                self.add(name, &format!("utf-8; {}", parameters::addr_xtext(address)));
            }
        }
    }
}

/// The code of the reply, if it fits what became of the recipient.
fn status(told: &Told<'_>) -> Enhanced {
    if told.expired {
        return EXPIRED;
    }
    let class = match told.action {
        Action::Failed => 5,
        Action::Delivered | Action::Relayed => 2,
    };
    told.reply
        .enhanced()
        .filter(|code| code.0 == class)
        .unwrap_or(Enhanced(class, 0, 0))
}

/// `550 5.1.1 text`, lines joined by spaces.
fn line(reply: &Reply) -> String {
    let codes = match reply.enhanced() {
        Some(enhanced) => format!("{} {enhanced}", reply.code()),
        None => reply.code().to_string(),
    };
    let text: Vec<_> = reply.lines().collect();
    format!("{codes} {}", text.join(" "))
}
