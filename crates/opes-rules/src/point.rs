//! Processing points, service classes and failure policies, and what each of them permits.
//!
//! The points are the vectoring points of an OPES processor (RFC 3835 §2.1) in an SMTP dialog, in
//! the order in which a message passes them. `docs/glossary.md` is the law for their names.

use serde::{Deserialize, Serialize};

/// Where in a message's life rules are looked at.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::object::schema::choice))]
#[serde(rename_all = "camelCase")]
pub enum Point {
    /// A client has connected; the greeting has not been sent.
    #[default]
    Connect,
    /// HELO, EHLO or LHLO.
    Helo,
    /// STARTTLS.
    StartTls,
    /// AUTH, after the credentials have been checked.
    Auth,
    /// MAIL FROM.
    MailFrom,
    /// RCPT TO, once for each recipient.
    RcptTo,
    /// DATA or the first BDAT, before the 354 reply.
    Data,
    /// From the first octet of mail data to our reply to it.
    Content,
    /// Accepted; the next hop of each recipient is being chosen.
    Routing,
    /// The client has its answer: to the mail data, or to a command that rules refused.
    Answered,
    /// The next hop has taken the message.
    Delivered,
    /// A delivery attempt failed for the time being.
    Deferred,
    /// Delivery was given up.
    Bounced,
}

/// How many points there are.
pub const POINTS: usize = 13;

/// What a callout service may do to a message; decides the stage it runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::object::schema::choice))]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// Looks on and is never waited for.
    Observe,
    /// Gives a verdict and annotations, changes nothing; runs in parallel with its like.
    Analyze,
    /// May change the message or the envelope; one after the other in rule order.
    Adapt,
    /// Signs what is there; after every adapter.
    Sign,
}

/// What happens to a message when a callout fails or runs out of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::object::schema::choice))]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// As if the rule had not been there.
    Accept,
    /// A 4xx reply: the client keeps the message and tries again.
    #[default]
    Tempfail,
    /// A 5xx reply.
    Reject,
    /// Taken, held, not delivered.
    Quarantine,
}

// === impl Point ===

impl Point {
    /// All points in the order of a message's life.
    pub const ALL: [Self; POINTS] = [
        Self::Connect,
        Self::Helo,
        Self::StartTls,
        Self::Auth,
        Self::MailFrom,
        Self::RcptTo,
        Self::Data,
        Self::Content,
        Self::Routing,
        Self::Answered,
        Self::Delivered,
        Self::Deferred,
        Self::Bounced,
    ];

    /// The name used in rule files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Helo => "helo",
            Self::StartTls => "startTls",
            Self::Auth => "auth",
            Self::MailFrom => "mailFrom",
            Self::RcptTo => "rcptTo",
            Self::Data => "data",
            Self::Content => "content",
            Self::Routing => "routing",
            Self::Answered => "answered",
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Bounced => "bounced",
        }
    }

    /// Position in [`Point::ALL`], 0 to 12.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Recipients are known here, and rules are evaluated for each of them.
    pub const fn has_recipients(self) -> bool {
        self.index() >= Self::RcptTo.index()
    }

    /// The fate of the message is settled; only observers may run.
    pub const fn observe_only(self) -> bool {
        self.index() >= Self::Answered.index()
    }

    /// A service of this class can be called here.
    pub fn admits(self, class: Class) -> bool {
        match class {
            Class::Observe => true,
            Class::Analyze => !self.observe_only(),
            Class::Adapt => matches!(
                self,
                Self::Helo | Self::MailFrom | Self::RcptTo | Self::Content | Self::Routing
            ),
            Class::Sign => matches!(self, Self::Content | Self::Routing),
        }
    }

    /// A callout that fails here can have this consequence.
    pub const fn admits_failure(self, policy: OnFailure) -> bool {
        match policy {
            OnFailure::Accept | OnFailure::Tempfail => true,
            // Once accepted, a refusal would be a bounce to somebody who may not have sent it.
            OnFailure::Reject => self.index() < Self::Routing.index(),
            OnFailure::Quarantine => matches!(self, Self::Content | Self::Routing),
        }
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Class ===

impl Class {
    /// The name used in rule files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Analyze => "analyze",
            Self::Adapt => "adapt",
            Self::Sign => "sign",
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

// === impl OnFailure ===

impl OnFailure {
    /// The name used in rule files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Tempfail => "tempfail",
            Self::Reject => "reject",
            Self::Quarantine => "quarantine",
        }
    }
}
