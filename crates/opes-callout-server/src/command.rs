//! An SMTP command as a service sees it, and what it may answer.

use std::sync::Arc;

use bytes::Bytes;
use opes_proto::smtp::{
    Context, NextHop, Outcome, Permission, Point, RecipientChange, ServiceParameters, verdict,
};

use crate::answer::{Answer, reply};

/// One SMTP command on its way (RFC 4496 §3.1: command modification, command satisfaction).
#[derive(Debug, Clone)]
pub struct Command {
    /// Where the dialog stands.
    pub point: Point,
    /// The line as received, without CRLF; empty at `connect`.
    pub line: Bytes,
    /// What the service asked for, as far as it is known at this point.
    pub context: Context,
    /// The rule on whose behalf this runs.
    pub parameters: Arc<GroupParameters>,
}

/// The rule on whose behalf a transaction runs, with its parameters.
#[derive(Debug, Clone, Default)]
pub struct GroupParameters {
    /// `namespace/name`.
    pub rule: String,
    /// Revision of the routing table.
    pub revision: String,
    /// `parameters` of the rule: a JSON object as text; empty = none.
    pub json: String,
    /// What the rule lets this service do.
    pub allow: Vec<Permission>,
}

impl GroupParameters {
    /// May the service do this on behalf of this rule? Saves work for what would be refused anyway.
    pub fn allows(&self, permission: Permission) -> bool {
        self.allow.contains(&permission)
    }
}

impl From<ServiceParameters> for GroupParameters {
    fn from(parameters: ServiceParameters) -> Self {
        let allow = parameters.allow().collect();
        let ServiceParameters {
            rule,
            revision,
            parameters_json: json,
            ..
        } = parameters;
        Self {
            rule,
            revision,
            json,
            allow,
        }
    }
}

/// The answer to a command.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct CommandAnswer {
    answer: Answer,
    line: Option<Bytes>,
}

impl CommandAnswer {
    /// The command goes on.
    pub fn proceed() -> Self {
        Self::default()
    }

    /// Command satisfaction: this is the reply to the command, e.g. `(550, "5.7.1", "not from here")`.
    /// 2xx answers in place of the processor, 4xx and 5xx refuse.
    pub fn reply(code: u32, enhanced: &str, text: impl Into<String>) -> Self {
        let answer = match code {
            500.. => Answer::reject(code, enhanced, text),
            400.. => Answer::tempfail(code, enhanced, text),
            _ => Self::satisfied(code, enhanced, text),
        };
        Self { answer, line: None }
    }

    fn satisfied(code: u32, enhanced: &str, text: impl Into<String>) -> Answer {
        let mut outcome = Outcome::default();
        let verdict = outcome.verdict.get_or_insert_default();
        verdict.action = verdict::Action::Accept.into();
        verdict.reply = Some(reply(code, enhanced, text));
        Answer::from(outcome)
    }

    /// Command modification: the whole new line without CRLF; the processor parses it again.
    pub fn rewrite(line: impl Into<Bytes>) -> Self {
        Self {
            line: Some(line.into()),
            ..Self::default()
        }
    }

    /// Next hop of the recipient in question.
    pub fn next_hop(self, host: impl Into<String>, port: u16) -> Self {
        self.next_hop_speaking(host, port, false)
    }

    /// The same, for a next hop that speaks LMTP (RFC 2033).
    pub fn next_hop_lmtp(self, host: impl Into<String>, port: u16) -> Self {
        self.next_hop_speaking(host, port, true)
    }

    fn next_hop_speaking(mut self, host: impl Into<String>, port: u16, lmtp: bool) -> Self {
        let next_hop = NextHop {
            host: host.into(),
            port: u32::from(port),
            lmtp,
        };
        self.answer = self.answer.recipient(RecipientChange {
            next_hop: Some(next_hop),
            ..Default::default()
        });
        self
    }

    /// Another reverse-path; empty = the null reverse-path.
    pub fn mail_from(mut self, address: impl Into<String>) -> Self {
        self.answer = self.answer.mail_from(address);
        self
    }

    /// The recipient in question changed, taken out, or another one added.
    pub fn recipient(mut self, change: RecipientChange) -> Self {
        self.answer = self.answer.recipient(change);
        self
    }

    /// Later rules can test this: `annotation("key")`.
    pub fn annotate(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.answer = self.answer.annotate(key, value);
        self
    }

    /// One line for people: why. For logs and `explain`, never shown to clients.
    pub fn reason(mut self, text: impl Into<String>) -> Self {
        self.answer = self.answer.reason(text);
        self
    }

    /// The processor may reuse this answer for so long.
    pub fn cache_seconds(mut self, seconds: u32) -> Self {
        self.answer = self.answer.cache_seconds(seconds);
        self
    }

    /// The profile's message and the new command line, if any.
    pub fn into_parts(self) -> (Outcome, Option<Bytes>) {
        (self.answer.into_outcome(), self.line)
    }
}
