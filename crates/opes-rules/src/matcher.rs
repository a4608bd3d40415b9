//! Matching one rule: structured fields first, CEL last, recipients only where it matters.

use crate::condition::{Condition, Unevaluable, Variable};
use crate::facts::{Facts, Recipient, domain_of};
use crate::object::Network;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// The compiled `match` of a rule. Evaluating it allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    pub(crate) listener: Option<Vec<String>>,
    pub(crate) client_networks: Option<Vec<Network>>,
    pub(crate) sender_domains: Option<Domains>,
    pub(crate) recipient_domains: Option<Domains>,
    pub(crate) size_under: Option<u64>,
    pub(crate) size_over: Option<u64>,
    pub(crate) tls: Option<bool>,
    pub(crate) authenticated: Option<bool>,
    pub(crate) condition: Option<Arc<Condition>>,
}

/// A set of domains, looked up without regard to case.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Domains {
    /// Sorted, lower case.
    exact: Vec<String>,
    /// Sorted, lower case, without `*.`.
    parents: Vec<String>,
    /// `<>` was listed.
    null_path: bool,
}

/// Why a rule does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// This field of `match` does not hold.
    Field(&'static str),
    /// It cannot be known whether the rule matches.
    Unevaluable(Unevaluable),
}

pub(crate) type Verdict = Result<(), Mismatch>;

/// Written null reverse-path.
pub(crate) const NULL_PATH: &str = "<>";

// === impl Matcher ===

impl Matcher {
    /// The answer can differ from recipient to recipient.
    pub(crate) fn per_recipient(&self) -> bool {
        self.recipient_domains.is_some() || self.condition_per_recipient()
    }

    /// The answer of the expression can.
    pub(crate) fn condition_per_recipient(&self) -> bool {
        self.condition
            .as_ref()
            .is_some_and(|condition| condition.per_recipient())
    }

    /// The structured fields that do not depend on a recipient, cheapest first.
    pub(crate) fn check_dialog(&self, facts: &Facts<'_>) -> Verdict {
        holds("listener", self.listener.as_ref(), |names| {
            names.iter().any(|name| name == facts.listener)
        })?;
        holds("tls", self.tls.as_ref(), |wanted| {
            *wanted == facts.tls.is_some()
        })?;
        let authenticated = facts.auth.is_some();
        holds("authenticated", self.authenticated.as_ref(), |wanted| {
            *wanted == authenticated
        })?;
        known(
            "senderDomains",
            self.sender_domains.as_ref(),
            Variable::MailFrom,
            |domains| Some(domains.has_address(facts.mail_from?.address)),
        )?;
        known(
            "clientNetworks",
            self.client_networks.as_ref(),
            Variable::ClientIp,
            |networks| {
                let client = facts.client()?;
                Some(networks.iter().any(|network| network.0.contains(&client)))
            },
        )?;
        let size = facts.size;
        known(
            "sizeUnder",
            self.size_under.as_ref(),
            Variable::Size,
            |limit| Some(size? < *limit),
        )?;
        known(
            "sizeOver",
            self.size_over.as_ref(),
            Variable::Size,
            |limit| Some(size? > *limit),
        )
    }

    /// The structured fields that depend on a recipient.
    pub(crate) fn check_recipient(&self, recipient: &Recipient<'_>) -> Verdict {
        holds(
            "recipientDomains",
            self.recipient_domains.as_ref(),
            |domains| domains.has_address(recipient.address),
        )
    }

    /// The expression, for one recipient (index into `facts.recipients`) or for none.
    pub(crate) fn check_condition(&self, facts: &Facts<'_>, recipient: Option<usize>) -> Verdict {
        let Some(condition) = &self.condition else {
            return Ok(());
        };
        match condition.evaluate(facts, recipient) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Mismatch::Field("cel")),
            Err(reason) => Err(Mismatch::Unevaluable(reason)),
        }
    }

    /// For each of three fields the values of which a message has one: what is listed; `None` = any, or more than is listed.
    pub(crate) fn keys(&self) -> [Option<&[String]>; 3] {
        [
            self.recipient_domains.as_ref().and_then(Domains::only),
            self.sender_domains.as_ref().and_then(Domains::only),
            self.listener.as_deref(),
        ]
    }

    /// No message can meet both, as far as the structured fields tell.
    pub(crate) fn excludes(&self, other: &Self) -> bool {
        let listeners = match (&self.listener, &other.listener) {
            (Some(a), Some(b)) => !a.iter().any(|name| b.contains(name)),
            _ => false,
        };
        listeners
            || apart(
                self.recipient_domains.as_ref(),
                other.recipient_domains.as_ref(),
            )
            || apart(self.sender_domains.as_ref(), other.sender_domains.as_ref())
            || opposite(self.tls, other.tls)
            || opposite(self.authenticated, other.authenticated)
            || disjoint_sizes(self, other)
            || disjoint_sizes(other, self)
    }
}

fn holds<T>(field: &'static str, wanted: Option<&T>, test: impl Fn(&T) -> bool) -> Verdict {
    if wanted.is_none_or(test) {
        Ok(())
    } else {
        Err(Mismatch::Field(field))
    }
}

fn known<T>(
    field: &'static str,
    wanted: Option<&T>,
    variable: Variable,
    test: impl Fn(&T) -> Option<bool>,
) -> Verdict {
    match wanted.map(test) {
        None | Some(Some(true)) => Ok(()),
        Some(Some(false)) => Err(Mismatch::Field(field)),
        Some(None) => Err(Mismatch::Unevaluable(Unevaluable::Missing(variable))),
    }
}

fn opposite(a: Option<bool>, b: Option<bool>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

fn apart(a: Option<&Domains>, b: Option<&Domains>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a.excludes(b) && b.excludes(a))
}

fn disjoint_sizes(small: &Matcher, large: &Matcher) -> bool {
    matches!((small.size_under, large.size_over), (Some(under), Some(over)) if under <= over)
}

// === impl Domains ===

impl Domains {
    /// From what a rule lists: domains, `*.domain`, and `<>`. Syntax is the compiler's business.
    pub(crate) fn new<'d>(listed: impl IntoIterator<Item = &'d str>) -> Self {
        let mut set = Self::default();
        for domain in listed {
            let lower = domain.to_ascii_lowercase();
            match lower.strip_prefix("*.") {
                Some(parent) => set.parents.push(parent.to_owned()),
                None if lower == NULL_PATH => set.null_path = true,
                None => set.exact.push(lower),
            }
        }
        set.exact.sort_unstable();
        set.parents.sort_unstable();
        set
    }

    /// Whether the domain of this address is in the set.
    pub(crate) fn has_address(&self, address: &str) -> bool {
        match domain_of(address) {
            "" => self.null_path && address.is_empty(),
            domain => self.has_domain(domain),
        }
    }

    fn has_domain(&self, domain: &str) -> bool {
        if holds_domain(&self.exact, domain) {
            return true;
        }
        if self.parents.is_empty() {
            return false;
        }
        let mut rest = domain;
        while let Some((_, parent)) = rest.split_once('.') {
            if holds_domain(&self.parents, parent) {
                return true;
            }
            rest = parent;
        }
        false
    }

    /// The domains, if these are all that is in the set.
    fn only(&self) -> Option<&[String]> {
        (self.parents.is_empty() && !self.null_path).then_some(self.exact.as_slice())
    }

    /// Nothing of this set's own names is in the other. Two wildcards may always meet.
    fn excludes(&self, other: &Self) -> bool {
        let shared = self.exact.iter().any(|domain| other.has_domain(domain));
        let null_paths = self.null_path && other.null_path;
        let wildcards = !self.parents.is_empty() && !other.parents.is_empty();
        !(shared || null_paths || wildcards)
    }
}

fn holds_domain(sorted: &[String], domain: &str) -> bool {
    sorted
        .binary_search_by(|candidate| compare_ignoring_case(candidate, domain))
        .is_ok()
}

/// Order of a lower-case name to one in any case.
fn compare_ignoring_case(lower: &str, any: &str) -> Ordering {
    lower
        .bytes()
        .cmp(any.bytes().map(|b| b.to_ascii_lowercase()))
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(field) => write!(f, "match.{field} does not hold"),
            Self::Unevaluable(reason) => write!(f, "cannot be evaluated: {reason}"),
        }
    }
}
