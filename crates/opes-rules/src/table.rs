//! The compiled form: an immutable table that every edge runs.
//!
//! Made by [`crate::compile()`] only. Rules are in the order in which they run, with an index per
//! processing point, so that a point that no rule looks at costs one comparison.

use crate::diagnostic::Diagnostic;
use crate::matcher::Matcher;
use crate::object::{Image, TlsMode};
use crate::permission::PermissionSet;
use crate::point::{Class, OnFailure, POINTS, Point};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opes_trace::AgentUri;

/// All rules and services of one revision.
#[derive(Debug, Default)]
pub struct RoutingTable {
    /// Hash over all objects, independent of their order and of files: 16 hexadecimal digits.
    pub revision: String,
    /// In running order: priority, then `namespace/name`.
    pub rules: Vec<Arc<Rule>>,
    /// By `namespace/name`.
    pub services: BTreeMap<String, Arc<Service>>,
    /// What its author should know although it works.
    pub warnings: Vec<Diagnostic>,
    pub(crate) by_point: [Vec<u32>; POINTS],
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// `namespace/name`.
    pub name: String,
    /// Where it is looked at.
    pub points: Vec<Point>,
    /// Lower runs first.
    pub priority: i32,
    pub(crate) matcher: Matcher,
    /// The call, if it makes one.
    pub callout: Option<CalloutSpec>,
    /// What the processor does itself, if it does.
    pub action: Option<LocalAction>,
    /// What it would do is logged, nothing changes.
    pub shadow: bool,
    /// Share of dialogs, 0 to 100.
    pub percent: u8,
    /// Class of the service it calls.
    pub class: Option<Class>,
    /// It stands in for a rule that cannot run as it was written, and does what that does when its service fails.
    pub stand_in: bool,
}

/// A call to a service.
#[derive(Debug, Clone, PartialEq)]
pub struct CalloutSpec {
    /// `namespace/name` of the service, a key of [`RoutingTable::services`].
    pub service: String,
    /// How much of the content is sent.
    pub wants: ContentWant,
    /// What the service may do.
    pub allow: PermissionSet,
    /// Time for one transaction.
    pub timeout: Duration,
    /// What happens when it fails.
    pub on_failure: OnFailure,
    /// A JSON object.
    pub parameters: serde_json::Value,
    /// The same, serialized once, with sorted keys.
    pub parameters_json: String,
    /// The service may be left out if that is asked for.
    pub bypassable: bool,
}

/// How much of the mail data a rule sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentWant {
    /// What the service asked for at negotiation.
    #[default]
    AsService,
    /// Nothing.
    None,
    /// The header section.
    Header,
    /// The first octets, this many.
    Prefix(u64),
    /// Everything.
    All,
}

/// What the processor does without a callout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAction {
    /// 5xx. Terminal.
    Reject(LocalReply),
    /// 4xx. Terminal.
    Tempfail(LocalReply),
    /// No later rule of this point. Terminal.
    Accept,
    /// Nothing.
    Continue,
    /// Take and drop. Terminal.
    Discard,
    /// Take and hold. Terminal.
    Quarantine {
        /// For the person who looks at it.
        reason: String,
    },
    /// A header field at the top.
    AddHeader {
        /// Field name.
        name: String,
        /// Field body.
        value: String,
    },
    /// A mark before the subject.
    MarkSubject {
        /// The mark.
        text: String,
    },
    /// The next hop.
    Route {
        /// Host name or address.
        host: String,
        /// TCP port.
        port: u16,
        /// Speak LMTP.
        lmtp: bool,
    },
}

/// A reply that was checked: code and enhanced code agree, the text is one printable line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalReply {
    /// 4xx or 5xx.
    pub code: u16,
    /// Enhanced status code (RFC 3463).
    pub enhanced: (u8, u16, u16),
    /// One line of printable US-ASCII.
    pub text: String,
}

/// A service and how to reach it.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// `namespace/name`.
    pub name: String,
    /// What it may do.
    pub class: Class,
    /// Where it is.
    pub target: Target,
    /// For a connection to be usable.
    pub connect_timeout: Duration,
    /// Without progress in a transaction.
    pub idle_timeout: Duration,
    /// Transactions open at once, per edge.
    pub max_in_flight: u32,
    /// Transactions that wait for others to end, per edge.
    pub max_queued: u32,
    /// Most transactions at once on one connection.
    pub max_transactions_per_connection: u32,
    /// How the connection is protected.
    pub tls: TlsMode,
    /// Name that its certificate must be for; none = the host of the endpoint.
    pub server_name: Option<String>,
    /// A transaction may be repeated on another instance.
    pub idempotent: bool,
    /// It may be left out if an authenticated sender asks for that.
    pub bypassable: bool,
    /// Its name in trace fields and bypass requests; none: one that the processor makes.
    pub uri: Option<AgentUri>,
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Comes with OPES.
    Builtin {
        /// As in `opes service NAME`.
        name: String,
        /// A JSON object.
        config: serde_json::Value,
    },
    /// Already runs: `http://…`, `https://…` or `unix:/…`.
    Endpoints(Vec<String>),
    /// To be run by the operator.
    Image(Image),
}

// === impl RoutingTable ===

impl RoutingTable {
    /// Whether any rule looks at this point. When not, there is nothing to plan.
    pub fn has_rules(&self, point: Point) -> bool {
        !self.rules_at(point).is_empty()
    }

    /// Whether a bypass request can have an effect.
    pub fn has_bypassable(&self) -> bool {
        self.services.values().any(|service| service.bypassable)
    }

    /// Indexes into [`RoutingTable::rules`], in running order.
    pub(crate) fn rules_at(&self, point: Point) -> &[u32] {
        self.by_point.get(point.index()).map_or(&[], Vec::as_slice)
    }
}

// === impl Rule ===

impl Rule {
    /// Name of the stage it runs in, or of what it does itself.
    pub fn stage(&self) -> &'static str {
        match (&self.action, self.class) {
            (Some(action), _) => action.name(),
            (None, Some(class)) => class.name(),
            (None, None) => "nothing",
        }
    }

    /// It tests the size or the header section, which are known at the end of the data.
    pub fn reads_content(&self) -> bool {
        use crate::condition::Variable;
        let matcher = &self.matcher;
        let sized = matcher.size_under.is_some() || matcher.size_over.is_some();
        sized
            || matcher.condition.as_ref().is_some_and(|condition| {
                let needs = condition.needs();
                needs.contains(&Variable::Size) || needs.contains(&Variable::Header)
            })
    }

    /// It tests annotations, which services of an earlier stage or point make.
    pub fn reads_annotations(&self) -> bool {
        self.matcher.condition.as_ref().is_some_and(|condition| {
            condition
                .needs()
                .contains(&crate::condition::Variable::Annotation)
        })
    }
}

// === impl LocalAction ===

impl LocalAction {
    /// Ends the evaluation of later rules of the point, observers excepted.
    pub const fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Reject(_)
                | Self::Tempfail(_)
                | Self::Accept
                | Self::Discard
                | Self::Quarantine { .. }
        )
    }

    /// The name used in rule files.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Reject(_) => "reject",
            Self::Tempfail(_) => "tempfail",
            Self::Accept => "accept",
            Self::Continue => "continue",
            Self::Discard => "discard",
            Self::Quarantine { .. } => "quarantine",
            Self::AddHeader { .. } => "addHeader",
            Self::MarkSubject { .. } => "markSubject",
            Self::Route { .. } => "route",
        }
    }
}
