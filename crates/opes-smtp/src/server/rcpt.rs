//! RCPT (RFC 5321 §4.1.1.3) with NOTIFY and ORCPT.

use bytes::Bytes;

use super::mail::is_ascii;
use super::{Action, Asked, Check, Recipient, Session};
use crate::grammar::{ForwardPath, Parameters};
use crate::reply::Reply;

impl Session {
    pub(super) fn check_rcpt(
        &mut self,
        line: Bytes,
        path: ForwardPath,
        params: Parameters,
    ) -> Option<Action> {
        let recipient = Recipient {
            address: path,
            params,
        };
        if let Err(reply) = self.admit_rcpt(&recipient) {
            self.mark_rcpt_refused();
            if reply == Reply::TOO_MANY_RECIPIENTS {
                // Clients with long lists do nothing wrong (RFC 5321 §4.5.3.1.10).
                self.push(&reply);
            } else {
                self.protocol_error(&reply);
            }
            return None;
        }
        self.asked = Asked::Rcpt(recipient.clone());
        Some(Action::Check(Check::Rcpt {
            line,
            path: recipient.address,
            params: recipient.params,
        }))
    }

    pub(super) fn proceed_rcpt(&mut self, recipient: Recipient) {
        if let Some(transaction) = &mut self.transaction {
            transaction.recipients.push(recipient);
        }
        self.push(&Reply::RECIPIENT_OK);
    }

    pub(super) fn refuse_rcpt(&mut self, reply: &Reply) {
        self.mark_rcpt_refused();
        self.push(reply);
    }

    pub(super) fn mark_rcpt_refused(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.rcpt_refused = true;
        }
    }

    /// Local limits and offered extensions.
    pub(super) fn admit_rcpt(&self, recipient: &Recipient) -> Result<(), Reply> {
        let (taken, smtputf8) = self
            .transaction
            .as_ref()
            .map_or((0, false), |t| (t.recipients.len(), t.smtputf8));
        for (keyword, value) in recipient.params.iter() {
            let known = ["NOTIFY", "ORCPT"]
                .iter()
                .any(|known| keyword.eq_ignore_ascii_case(known));
            if !known || !self.config.dsn {
                return Err(Reply::UNKNOWN_PARAMETER);
            }
            value.ok_or(Reply::PARAMETER_SYNTAX)?;
        }
        let ascii = recipient.address.as_str().is_ascii() && is_ascii(&recipient.params);
        if !(ascii || smtputf8) {
            return Err(Reply::NON_ASCII_ADDRESS);
        }
        if taken >= self.config.recipients_max {
            Err(Reply::TOO_MANY_RECIPIENTS)
        } else {
            Ok(())
        }
    }
}
