//! What the edge asks ([`Request`]) and what it gets ([`Answer`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opes_content::{Adaptation, View};
use opes_proto::smtp::{self, Context, Outcome, Permission, Point, ServiceParameters, Wants};

/// The rule on whose behalf a transaction runs. One [`Arc`] per rule and revision: each distinct one is announced once
/// per connection, as a service group of OCP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// `namespace/name`.
    pub rule: String,
    /// Revision of the routing table.
    pub revision: String,
    /// `parameters` of the rule, a JSON object; empty = none.
    pub parameters_json: String,
    /// What the rule lets the service do.
    pub allow: Vec<Permission>,
}

impl Group {
    pub(crate) fn parameters(&self) -> ServiceParameters {
        ServiceParameters {
            rule: self.rule.clone(),
            revision: self.revision.clone(),
            parameters_json: self.parameters_json.clone(),
            allow: self
                .allow
                .iter()
                .map(|&permission| permission.into())
                .collect(),
        }
    }
}

/// How much of the content is wanted. The rule and the service each state one; the lesser is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentWant {
    /// The other side's choice.
    #[default]
    Unspecified,
    /// No octet.
    None,
    /// The header section with its empty line.
    Header,
    /// So many octets from the first.
    Prefix(u64),
    /// Everything.
    All,
}

impl ContentWant {
    /// Of the negotiation.
    pub fn of(wants: &Wants) -> Self {
        match wants.content() {
            smtp::ContentWant::Unspecified => Self::Unspecified,
            smtp::ContentWant::None => Self::None,
            smtp::ContentWant::Header => Self::Header,
            smtp::ContentWant::Prefix => Self::Prefix(wants.prefix),
            smtp::ContentWant::All => Self::All,
        }
    }
}

/// One callout.
#[derive(Debug, Clone)]
pub struct Request {
    /// The rule.
    pub group: Arc<Group>,
    /// Where the dialog stands.
    pub point: Point,
    /// The command line without CRLF, at the points of commands.
    pub command_line: Option<Bytes>,
    /// All context there is; what the service did not ask for is not sent.
    pub context: Arc<Context>,
    /// The message, at the points with content. It may still grow.
    pub content: Option<View>,
    /// What the rule lets the service see of it.
    pub content_want: ContentWant,
    /// For everything together, connecting included.
    pub timeout: Duration,
    /// W3C trace context; empty = none.
    pub traceparent: String,
}

impl Request {
    /// From `content` on a transaction is about mail data, before that about a command.
    pub(crate) fn is_message(&self) -> bool {
        self.point >= Point::Content
    }

    pub(crate) fn mail_data(&self) -> Option<&View> {
        self.content.as_ref().filter(|_| self.is_message())
    }
}

/// What the service decided.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Verdict, edits, envelope changes and advice, as the profile has them; copies and range are taken out.
    pub outcome: Outcome,
    /// What some of the recipients get instead. `outcome` and `adapted` are about all others.
    pub copies: Vec<AnswerCopy>,
    /// Command modification: the whole new line, to be parsed again. `None` = unchanged.
    pub command_line: Option<Bytes>,
    /// The adapted message over the [`View`] that was given; `None` = unchanged. Its edits come on top.
    pub adapted: Option<Adaptation>,
    /// Encoded octets of the OCP messages of this transaction, from us.
    pub octets_sent: u64,
    /// The same, from the service.
    pub octets_received: u64,
    /// From the call to the answer.
    pub elapsed: Duration,
}

/// What some of the recipients get, in place of everything that the rest of the [`Answer`] says.
#[derive(Debug, Clone, Default)]
pub struct AnswerCopy {
    /// As the context named them; never empty, none in another copy. If the service did not ask for recipients: as it names them.
    pub recipients: Vec<String>,
    /// As in [`Answer::outcome`].
    pub outcome: Outcome,
    /// As in [`Answer::adapted`]: a message of its own. `None` = the original, unchanged.
    pub adapted: Option<Adaptation>,
}
