//! Which command may come when (RFC 5321 §4.1.4): the whole table in one place, judged before the syntax.

use super::{AuthMode, Protocol, Session};
use crate::command::{HelloVerb, Verb};
use crate::reply::Reply;

impl Session {
    /// The refusal of a command that cannot come now, or is not offered here.
    pub(super) fn check_sequence(&self, verb: Verb) -> Result<(), Reply> {
        if self.refused && verb != Verb::Quit {
            return Err(Reply::BAD_SEQUENCE);
        }
        match verb {
            Verb::Hello(verb) => self.may_say_hello(verb),
            Verb::StartTls => self.may_start_tls(),
            Verb::Auth => self.may_authenticate(),
            Verb::Mail => self.may_start_transaction(),
            Verb::Rcpt => self.may_add_recipient(),
            Verb::Data => self.may_send_data(),
            Verb::Bdat => self.may_send_chunk(),
            Verb::Expn => Err(Reply::NOT_IMPLEMENTED),
            Verb::Unknown => Err(Reply::UNKNOWN_COMMAND),
            Verb::Rset | Verb::Noop | Verb::Vrfy | Verb::Help | Verb::Quit => Ok(()),
        }
    }

    /// RFC 2033 §4.1: LHLO in LMTP only, HELO and EHLO elsewhere only.
    fn may_say_hello(&self, verb: HelloVerb) -> Result<(), Reply> {
        if (verb == HelloVerb::Lhlo) == (self.config.protocol == Protocol::Lmtp) {
            Ok(())
        } else {
            Err(Reply::UNKNOWN_COMMAND)
        }
    }

    /// RFC 3207 §4.
    fn may_start_tls(&self) -> Result<(), Reply> {
        if self.tls.is_some() {
            return Err(Reply::TLS_ACTIVE);
        }
        if self.config.tls_available {
            Ok(())
        } else {
            Err(Reply::NOT_IMPLEMENTED)
        }
    }

    /// RFC 4954 §4.
    fn may_authenticate(&self) -> Result<(), Reply> {
        match self.config.auth {
            AuthMode::Off => Err(Reply::NOT_IMPLEMENTED),
            AuthMode::TlsOnly if self.hello.is_none() => Err(Reply::NEED_HELO),
            AuthMode::TlsOnly if self.tls.is_none() => Err(Reply::ENCRYPTION_REQUIRED),
            AuthMode::TlsOnly if self.authenticated.is_some() => Err(Reply::ALREADY_AUTHENTICATED),
            AuthMode::TlsOnly if self.transaction.is_some() => {
                Err(Reply::AUTHENTICATION_IN_TRANSACTION)
            }
            AuthMode::TlsOnly => Ok(()),
        }
    }

    fn may_start_transaction(&self) -> Result<(), Reply> {
        if self.hello.is_none() {
            return Err(Reply::NEED_HELO);
        }
        if self.config.tls_required && self.tls.is_none() {
            return Err(Reply::TLS_REQUIRED);
        }
        if self.config.auth_required && self.authenticated.is_none() {
            return Err(Reply::AUTHENTICATION_REQUIRED);
        }
        if self.transaction.is_some() {
            Err(Reply::NESTED_MAIL)
        } else {
            Ok(())
        }
    }

    fn may_add_recipient(&self) -> Result<(), Reply> {
        match &self.transaction {
            None => Err(Reply::NEED_MAIL),
            Some(transaction) if transaction.chunked => Err(Reply::BAD_SEQUENCE),
            Some(_) => Ok(()),
        }
    }

    /// RFC 3030 §2: not after BDAT.
    fn may_send_data(&self) -> Result<(), Reply> {
        match &self.transaction {
            Some(transaction) if transaction.chunked => Err(Reply::DATA_AFTER_BDAT),
            _ => self.has_recipients(),
        }
    }

    fn may_send_chunk(&self) -> Result<(), Reply> {
        if self.config.chunking {
            self.has_recipients()
        } else {
            Err(Reply::NOT_IMPLEMENTED)
        }
    }

    /// RFC 5321 §3.3: 503 or 554 if all recipients were refused; RFC 2033 §4.2: 503.
    fn has_recipients(&self) -> Result<(), Reply> {
        match &self.transaction {
            None => Err(Reply::NEED_MAIL),
            Some(transaction) if !transaction.recipients.is_empty() => Ok(()),
            Some(transaction) if transaction.rcpt_refused && !self.is_lmtp() => {
                Err(Reply::NO_VALID_RECIPIENTS)
            }
            Some(_) => Err(Reply::NEED_RCPT),
        }
    }
}
