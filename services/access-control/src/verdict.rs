//! From a decision of the policy to the reply that the client hears: command satisfaction (RFC 4496 §4.8).
//!
//! Texts say what is wrong and what the sender can do, never which pattern matched: that goes to the log. Nothing that the
//! client sent is repeated.

use opes_proto::smtp::Point;
use serde::Deserialize;

use crate::policy::{Decision, Denial};

/// The condition a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No particular condition: a rule for all, or the default.
    Policy,
    /// Network of the client.
    Client,
    /// Name given in HELO or EHLO.
    Helo,
    /// Reverse-path.
    Sender,
    /// Reverse-path longer than the limit.
    SenderTooLong,
    /// Forward-path.
    Recipient,
    /// Forward-path longer than the limit.
    RecipientTooLong,
    /// AUTH identity.
    Identity,
    /// The client should have authenticated.
    NotAuthenticated,
    /// The client should have started TLS.
    NotEncrypted,
}

/// A reply as a policy writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenReply")]
pub struct ReplyText {
    code: u16,
    enhanced: String,
    text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenReply {
    code: Option<u16>,
    enhanced: Option<String>,
    text: String,
}

/// What the service answers to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The command goes on; the name of the rule that allows it, if one does.
    Proceed(Option<String>),
    /// The command is answered.
    Reply {
        /// 4xx or 5xx.
        code: u16,
        /// `5.7.1`; empty where RFC 2034 §4 has none.
        enhanced: String,
        /// One line.
        text: String,
        /// For the log.
        reason: String,
    },
}

/// Room for code and enhanced code within a reply line (RFC 5321 §4.5.3.1.5: 512 octets).
const TEXT_OCTETS_MAX: usize = 480;

// === impl Verdict ===

impl Verdict {
    /// What `decision` means for the command at `point`.
    pub fn of(decision: &Decision<'_>, point: Point) -> Self {
        match decision {
            Decision::Undecided => Self::Proceed(None),
            Decision::Allow(rule) => Self::Proceed(rule.map(|rule| rule.name.clone())),
            Decision::Deny(denial) => Self::refusal(denial, point),
        }
    }

    fn refusal(denial: &Denial<'_>, point: Point) -> Self {
        let of_rule = || denial.rule.and_then(|rule| rule.reply.clone());
        let own = denial.reply.clone().or_else(of_rule);
        let ReplyText {
            code,
            enhanced,
            text,
        } = own.unwrap_or_else(|| denial.cause.reply(point));
        Self::Reply {
            code: code_at(point, code),
            // No enhanced code in a greeting or in a reply to HELO and EHLO (RFC 2034 §4).
            enhanced: if is_before_extensions(point) {
                String::new()
            } else {
                enhanced
            },
            text,
            reason: reason(denial),
        }
    }
}

fn reason(denial: &Denial<'_>) -> String {
    let rule = match denial.rule {
        Some(rule) => format!("rule `{}`", rule.name),
        None if denial.matched.is_empty() => "no rule allows it (default: deny)".to_owned(),
        None => "address too long".to_owned(),
    };
    if denial.matched.is_empty() {
        rule
    } else {
        format!("{rule}: {}", denial.matched)
    }
}

fn is_before_extensions(point: Point) -> bool {
    matches!(point, Point::Connect | Point::Helo)
}

/// In place of the greeting a client understands 554, and 421 if it is to come again (RFC 5321 §4.3.2, §3.8).
fn code_at(point: Point, code: u16) -> u16 {
    match (point, code) {
        (Point::Connect, ..500) => 421,
        (Point::Connect, _) => 554,
        (_, code) => code,
    }
}

// === impl Cause ===

impl Cause {
    fn reply(self, point: Point) -> ReplyText {
        let (code, enhanced, text) = match self {
            Self::Policy => (
                550,
                "5.7.1",
                "Not permitted by the access policy of this host",
            ),
            Self::Client => (550, "5.7.1", "Mail from your network is not accepted here"),
            Self::Helo => (550, "5.7.1", "Your host name (HELO) is not accepted here"),
            Self::Sender => (550, "5.7.1", "Sender address not accepted here"),
            Self::SenderTooLong => (501, "5.1.7", "Sender address too long"),
            Self::Recipient => (550, "5.7.1", "Recipient address not accepted from you"),
            Self::RecipientTooLong => (501, "5.1.3", "Recipient address too long"),
            // RFC 4954 §6: what a client understands at AUTH.
            Self::Identity if point == Point::Auth => {
                (535, "5.7.8", "This account is not permitted here")
            }
            Self::Identity => (550, "5.7.1", "This account is not permitted to do that"),
            // RFC 4954 §6, RFC 3207 §4.
            Self::NotAuthenticated => (530, "5.7.0", "Authentication required"),
            Self::NotEncrypted => (530, "5.7.0", "Must issue a STARTTLS command first"),
        };
        ReplyText {
            code,
            enhanced: enhanced.to_owned(),
            text: text.to_owned(),
        }
    }
}

// === impl ReplyText ===

impl ReplyText {
    /// A refusal; the error says what is none. Without code 550, without enhanced code `X.7.1`.
    pub fn new(code: Option<u16>, enhanced: Option<String>, text: &str) -> Result<Self, String> {
        let text = text.to_owned();
        Self::try_from(WrittenReply {
            code,
            enhanced,
            text,
        })
    }

    /// 4xx or 5xx.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// One line.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl TryFrom<WrittenReply> for ReplyText {
    type Error = String;

    fn try_from(written: WrittenReply) -> Result<Self, String> {
        let WrittenReply {
            code,
            enhanced,
            text,
        } = written;
        let code = code.unwrap_or(550);
        if !matches!(code, 400..=459 | 500..=559) {
            return Err(format!(
                "reply code {code} is no refusal; use 450 to come again or 550"
            ));
        }
        let class = code / 100;
        let enhanced = enhanced.unwrap_or_else(|| format!("{class}.7.1"));
        if !is_enhanced(&enhanced, class) {
            return Err(format!(
                "enhanced code `{enhanced}` does not fit reply code {code}; use for example {class}.7.1"
            ));
        }
        let printable = text.bytes().all(|octet| matches!(octet, b' '..=b'~'));
        if text.is_empty() || text.len() > TEXT_OCTETS_MAX || !printable {
            return Err(format!(
                "reply text must be one line of 1 to {TEXT_OCTETS_MAX} printable US-ASCII characters"
            ));
        }
        Ok(Self {
            code,
            enhanced,
            text,
        })
    }
}

/// `class.subject.detail` of RFC 3463 §2: one to three digits each.
fn is_enhanced(text: &str, class: u16) -> bool {
    let digits =
        |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let mut parts = text.split('.');
    parts.next() == Some(class.to_string().as_str())
        && parts.by_ref().take(2).filter(|part| digits(part)).count() == 2
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(code: Option<u16>, enhanced: Option<&str>, text: &str) -> Result<ReplyText, String> {
        let enhanced = enhanced.map(str::to_owned);
        WrittenReply {
            code,
            enhanced,
            text: text.to_owned(),
        }
        .try_into()
    }

    fn refusal(cause: Cause, point: Point) -> (u16, String) {
        let denial = Denial {
            rule: None,
            cause,
            matched: "x".to_owned(),
            reply: None,
        };
        match Verdict::refusal(&denial, point) {
            Verdict::Reply { code, enhanced, .. } => (code, enhanced),
            Verdict::Proceed(_) => panic!("a refusal proceeds"),
        }
    }

    #[test]
    fn codes_fit_the_command() {
        assert_eq!(refusal(Cause::Client, Point::Connect), (554, String::new()));
        assert_eq!(refusal(Cause::Helo, Point::Helo), (550, String::new()));
        assert_eq!(
            refusal(Cause::Sender, Point::MailFrom),
            (550, "5.7.1".to_owned())
        );
        assert_eq!(
            refusal(Cause::Identity, Point::Auth),
            (535, "5.7.8".to_owned())
        );
        assert_eq!(
            refusal(Cause::NotEncrypted, Point::MailFrom),
            (530, "5.7.0".to_owned())
        );
    }

    #[test]
    fn replies_of_a_policy_are_checked() {
        let reply = written(None, None, "no").unwrap();
        assert_eq!((reply.code, reply.enhanced.as_str()), (550, "5.7.1"));
        assert_eq!(written(Some(450), None, "later").unwrap().enhanced, "4.7.1");
        assert!(
            written(Some(250), None, "ok")
                .unwrap_err()
                .contains("no refusal")
        );
        assert!(written(Some(499), None, "x").is_err());
        for enhanced in ["4.7.1", "5.7", "5.7.1.1", "5.7.x", "5.1000.1", ""] {
            assert!(
                written(Some(550), Some(enhanced), "x").is_err(),
                "{enhanced}"
            );
        }
        for text in ["", "two\nlines", "café", "a\r"] {
            assert!(written(None, None, text).is_err(), "{text:?}");
        }
    }
}
