//! `spec` of an `OpesRule`, as people write it.

use super::{HumanDuration, Network, Quantity};
use crate::permission::Permission;
use crate::point::{OnFailure, Point};
use serde::{Deserialize, Serialize};

/// At which points, for what, and what is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::rule))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpesRuleSpec {
    /// Processing points at which the rule is looked at; at least one.
    pub at: Vec<Point>,
    /// Lower is earlier at each point; ties by namespace/name. 100 if absent.
    #[serde(default = "default_priority")]
    pub priority: i32,
    /// What it is for; all conditions must hold. Everything if absent.
    #[serde(default, rename = "match")]
    pub matching: Match,
    /// The service to call. Exactly one of `callout` and `action`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callout: Option<Callout>,
    /// What is done without a service. Exactly one of `callout` and `action`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// How much of the traffic it applies to, and whether it changes anything.
    #[serde(default)]
    pub rollout: Rollout,
}

/// Conditions. Each present field must hold; a list holds if one of its members does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::matching))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Match {
    /// Names of listeners, of which the client came in on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Vec<String>>,
    /// Networks or addresses, of which one is the client's: `192.0.2.0/24`, `2001:db8::1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_networks: Option<Vec<Network>>,
    /// Domains of the reverse-path; `*.example.com` = any subdomain, `<>` = the null reverse-path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_domains: Option<Vec<String>>,
    /// Domains of the recipient; `*.example.com` = any subdomain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_domains: Option<Vec<String>>,
    /// The message has fewer octets: `30Mi`, `512Ki`, or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_under: Option<Quantity>,
    /// The message has more octets: `30Mi`, `512Ki`, or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_over: Option<Quantity>,
    /// The connection of the client is encrypted (true), or is not (false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// The client has authenticated (true), or has not (false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authenticated: Option<bool>,
    /// A condition in the Common Expression Language, for what the other fields cannot say; they cost less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cel: Option<String>,
}

/// Which service to call and what it may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::callout))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Callout {
    /// The `CalloutService`; it must be in the namespace of the rule.
    pub service_ref: ServiceRef,
    /// How much of the content is sent: less than the service asks for, or what it asks for if absent.
    #[serde(default)]
    pub wants: RuleWants,
    /// What the service may do to the message. It may do nothing but annotate if absent.
    #[serde(default)]
    pub allow: Vec<Permission>,
    /// Time for one transaction, from `10ms` to `600s`; `30s` if absent.
    #[serde(default = "default_timeout")]
    pub timeout: HumanDuration,
    /// What happens when the service fails, is late or is missing; `tempfail` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Handed to the service as it is; at most 64 KiB.
    #[serde(default)]
    pub parameters: serde_json::Map<String, serde_json::Value>,
}

/// Name of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::service_ref))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceRef {
    /// `metadata.name` of the `CalloutService`.
    pub name: String,
}

/// How much of the content a rule sends to its service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::wants))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuleWants {
    /// What the service asks for if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentChoice>,
    /// How many octets, with `content: prefix` only: `64Ki`, or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Quantity>,
}

/// How much of the mail data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::choice))]
#[serde(rename_all = "camelCase")]
pub enum ContentChoice {
    /// Nothing.
    None,
    /// The header section.
    Header,
    /// The first `prefix` octets.
    Prefix,
    /// Everything.
    All,
}

/// What the processor does itself. Exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::action))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// Refuse for good, 5xx. Terminal.
    Reject(ReplySpec),
    /// Refuse for the time being, 4xx. Terminal.
    Tempfail(ReplySpec),
    /// No later rule of this point is looked at, observers excepted. Terminal.
    Accept {},
    /// Nothing; the rule is only counted and logged.
    Continue {},
    /// Take the message, deliver it to nobody. Terminal.
    Discard {
        /// Must be true: the message will be lost and nobody is told.
        #[serde(default, rename = "acknowledgeLoss")]
        acknowledge_loss: bool,
    },
    /// Take the message and hold it. Terminal.
    Quarantine {
        /// Why, for the person who looks at it.
        reason: String,
    },
    /// Add a header field at the top.
    AddHeader {
        /// Field name (RFC 5322 §2.2).
        name: String,
        /// Field body, printable US-ASCII.
        value: String,
    },
    /// Put a mark before the subject, once.
    MarkSubject {
        /// The mark, such as `[SPAM]`.
        text: String,
    },
    /// Send to this next hop.
    Route {
        /// Host name or address.
        host: String,
        /// TCP port; 25 if absent, 24 with `lmtp`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// Speak LMTP (RFC 2033) instead of SMTP; false if absent.
        #[serde(default)]
        lmtp: bool,
    },
}

/// An SMTP reply. What is absent is filled in as fits the point.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::reply))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReplySpec {
    /// Reply code: 500 to 559 for `reject`, 400 to 459 for `tempfail`. Fits the point if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Enhanced status code (RFC 3463); `5.7.1` or `4.7.1` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enhanced: Option<String>,
    /// Text for the client, one line of printable US-ASCII.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// How a rule is introduced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::rollout))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rollout {
    /// Whether the rule changes anything; `enforce` if absent.
    pub mode: RolloutMode,
    /// Share of dialogs that the rule applies to, in percent; 100 if absent. All edges choose the same ones.
    pub percent: i64,
}

/// Whether a rule changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = super::schema::choice))]
#[serde(rename_all = "camelCase")]
pub enum RolloutMode {
    /// The rule acts.
    #[default]
    Enforce,
    /// The rule runs, what it would have done is logged, nothing changes.
    Shadow,
}

const fn default_priority() -> i32 {
    100
}

const fn default_timeout() -> HumanDuration {
    HumanDuration::from_secs(30)
}

// === defaults ===

impl Default for Rollout {
    fn default() -> Self {
        Self {
            mode: RolloutMode::Enforce,
            percent: 100,
        }
    }
}
