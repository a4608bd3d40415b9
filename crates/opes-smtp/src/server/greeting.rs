//! Connect, HELO, EHLO, LHLO (RFC 5321 §3.1, §3.2, §4.1.1.1; RFC 2033 §4.1).

use bytes::{Bytes, BytesMut};

use super::{Action, Asked, AuthMode, Check, Config, Hello, Phase, Protocol, Session};
use crate::auth::Mechanism;
use crate::command::HelloVerb;
use crate::limits::BYPASS_KEYWORD;
use crate::reply::Reply;

impl Session {
    /// A client that speaks first breaks RFC 5321 §3.1; those that do are robots, or requests of another protocol.
    pub(super) fn check_connect(&mut self, input: &BytesMut) -> Action {
        if !input.is_empty() {
            self.close_with(&Reply::EARLY_TALKER);
            return Action::Close;
        }
        self.asked = Asked::Connect;
        Action::Check(Check::Connect)
    }

    pub(super) fn greet(&mut self) {
        let Config {
            hostname,
            protocol,
            banner,
            ..
        } = &*self.config;
        let name = if *protocol == Protocol::Lmtp {
            "LMTP"
        } else {
            "ESMTP"
        };
        let text = format!("{hostname} {name} {banner}");
        self.push(&Reply::GREETING.with_text(text.trim_end()));
        self.phase = Phase::Commands;
    }

    /// RFC 5321 §3.1: after a 554 greeting the server waits for QUIT.
    pub(super) fn refuse_connect(&mut self, reply: &Reply) {
        self.push(reply);
        self.refused = true;
        self.phase = Phase::Commands;
    }

    pub(super) fn check_hello(&mut self, line: Bytes, verb: HelloVerb, argument: String) -> Action {
        self.asked = Asked::Helo {
            verb,
            argument: argument.clone(),
        };
        Action::Check(Check::Helo {
            line,
            verb,
            argument,
        })
    }

    /// Also ends an open transaction, like RSET (RFC 5321 §4.1.4).
    pub(super) fn proceed_hello(&mut self, verb: HelloVerb, argument: String) {
        self.abort_transaction();
        let mut text = format!("{} Hello {argument}", self.config.hostname);
        if verb != HelloVerb::Helo {
            self.list_extensions(&mut text);
        }
        self.hello = Some(Hello { verb, argument });
        self.push_idle(&Reply::HELLO.with_text(text));
    }

    /// One extension a line (RFC 5321 §4.1.1.1).
    fn list_extensions(&self, text: &mut String) {
        let config = &self.config;
        let mut list = |extension: &str| {
            text.push('\n');
            text.push_str(extension);
        };
        list("PIPELINING");
        list("8BITMIME");
        list("ENHANCEDSTATUSCODES");
        match config.size_max {
            u64::MAX => list("SIZE"),
            octets => list(&format!("SIZE {octets}")),
        }
        if config.chunking {
            list("CHUNKING");
        }
        if config.smtputf8 {
            list("SMTPUTF8");
        }
        if config.dsn {
            list("DSN");
        }
        if config.prdr && !self.is_lmtp() {
            list("PRDR");
        }
        if config.opes_bypass {
            list(BYPASS_KEYWORD);
        }
        if config.tls_available && self.tls.is_none() {
            list("STARTTLS");
        }
        if config.auth == AuthMode::TlsOnly && self.tls.is_some() {
            list(&format!("AUTH {}", Mechanism::OFFERED));
        }
    }
}
