//! The policy: ordered rules over the SMTP dialog, first match wins (RFC 4496 §4.4, §4.8).
//!
//! The dialog unfolds command by command, so a condition may be about something that has not been said yet. Such a rule is
//! *pending*. A pending rule that allows holds back everything below it: it may still win. A pending rule that denies does
//! not hold back another denial. So a command is refused as soon as the refusal is certain, and never too early.
//!
//! A rule may depend on what a directory knows. Then the policy says what is to be asked, and is evaluated again with the answer:
//! it is a function of what is known, and never waits for anything.

mod load;

use std::net::IpAddr;

use serde::Deserialize;

use crate::address::Address;
use crate::lookup::{Answers, Lookup, Question, State, Word, WordError};
use crate::pattern::{AddressPatterns, HostPatterns, IdentityPatterns, Networks};
use crate::verdict::{Cause, ReplyText};

pub use load::PolicyError;

/// Most rules in one policy.
pub const RULES_MAX: usize = 10_000;
/// Most rules in one policy that ask a directory: each may cost the time of a look-up.
pub const LOOKUP_RULES_MAX: usize = 32;
/// A path has at most 256 octets, two of them the angle brackets (RFC 5321 §4.5.3.1.3).
pub const ADDRESS_OCTETS_MAX_DEFAULT: usize = 254;

/// Ordered rules and what holds when none matches.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// When no rule matches. Without a default in the text there is no policy: an empty file must not open the door.
    pub default: Action,
    /// First match wins.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Longest sender or recipient address, in octets as written, that is looked at any further.
    #[serde(default = "address_octets_max_default")]
    pub max_address_octets: usize,
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// The command goes on.
    Allow,
    /// The command is refused.
    Deny,
    /// As the word says that a directory has for it.
    Lookup,
}

/// One rule: matches if all its conditions do; without conditions it always matches.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// For logs; shown to no client.
    pub name: String,
    /// What holds if the rule matches.
    pub action: Action,
    /// The refusal; absent = a reply that fits the condition.
    pub reply: Option<ReplyText>,
    client: Option<Networks>,
    helo: Option<HostPatterns>,
    tls: Option<bool>,
    authenticated: Option<bool>,
    auth: Option<IdentityPatterns>,
    sender: Option<AddressPatterns>,
    recipient: Option<AddressPatterns>,
    lookup: Option<Lookup>,
}

/// What is known of the dialog so far; `None` = not yet.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Argument of HELO or EHLO.
    pub helo: Option<&'a str>,
    /// Is the connection encrypted?
    pub tls: Option<bool>,
    /// AUTH identity.
    pub auth: Auth<'a>,
    /// Reverse-path.
    pub sender: Option<Address>,
    /// The forward-path in question.
    pub recipient: Option<Address>,
}

/// What is known of the client's identity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Auth<'a> {
    /// It may still authenticate.
    #[default]
    NotYet,
    /// It has begun a transaction without.
    Anonymous,
    /// It has authenticated as this.
    Identity(&'a str),
}

/// How far the policy has come.
#[derive(Debug, Clone, PartialEq)]
pub enum Step<'p> {
    /// It depends on this; to be evaluated again with the answer.
    Ask(Question),
    /// What it says.
    Decided(Decision<'p>),
}

/// What the policy says to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision<'p> {
    /// A rule that is still pending may allow.
    Undecided,
    /// By this rule, or by the default.
    Allow(Option<&'p Rule>),
    /// Certain already.
    Deny(Denial<'p>),
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Denial<'p> {
    /// `None`: by the default or by the length of an address.
    pub rule: Option<&'p Rule>,
    /// The condition that a client should hear of.
    pub cause: Cause,
    /// The matching pattern, for the log.
    pub matched: String,
    /// What a directory wants the client to hear, in place of the rule's own reply.
    pub reply: Option<ReplyText>,
}

/// How a condition stands.
enum Match {
    No,
    Pending,
    /// By this pattern.
    Yes(String),
}

// === impl Policy ===

impl Policy {
    /// What holds for the command after which `facts` are known, as far as `answers` go.
    pub fn decide(&self, facts: &Facts<'_>, answers: &Answers) -> Result<Step<'_>, WordError> {
        if let Some(denial) = self.overlong(facts) {
            return Ok(Step::Decided(Decision::Deny(denial)));
        }
        let mut pending = false;
        for rule in &self.rules {
            match rule.says(facts, answers)? {
                Says::Nothing => {}
                Says::Ask(question) => return Ok(Step::Ask(question)),
                Says::Pending if rule.action != Action::Deny => {
                    return Ok(Step::Decided(Decision::Undecided));
                }
                Says::Pending => pending = true,
                Says::Allow if pending => return Ok(Step::Decided(Decision::Undecided)),
                Says::Allow => return Ok(Step::Decided(Decision::Allow(Some(rule)))),
                Says::Deny(denial) => return Ok(Step::Decided(Decision::Deny(denial))),
            }
        }
        Ok(Step::Decided(match self.default {
            Action::Allow if pending => Decision::Undecided,
            Action::Allow => Decision::Allow(None),
            // `lookup` is no default: a policy with it is not read.
            Action::Deny | Action::Lookup => Decision::Deny(Denial {
                rule: None,
                cause: Cause::Policy,
                matched: String::new(),
                reply: None,
            }),
        }))
    }

    /// Does any rule depend on the client's address?
    pub fn looks_at_client(&self) -> bool {
        self.rules.iter().any(|rule| {
            let asks = rule.lookup.as_ref().is_some_and(Lookup::uses_client);
            rule.client.is_some() || asks
        })
    }

    fn overlong(&self, facts: &Facts<'_>) -> Option<Denial<'static>> {
        let overlong = |address: &Option<Address>, cause| {
            let octets = address.as_ref()?.octets_as_written();
            let matched = format!(
                "{octets} octets, maxAddressOctets {}",
                self.max_address_octets
            );
            (octets > self.max_address_octets).then_some(Denial {
                rule: None,
                cause,
                matched,
                reply: None,
            })
        };
        overlong(&facts.recipient, Cause::RecipientTooLong)
            .or_else(|| overlong(&facts.sender, Cause::SenderTooLong))
    }
}

fn address_octets_max_default() -> usize {
    ADDRESS_OCTETS_MAX_DEFAULT
}

// === impl Rule ===

/// How a whole rule stands.
enum RuleMatch {
    No,
    Pending,
    Yes { cause: Cause, matched: String },
}

/// What a rule says to a command.
enum Says<'p> {
    /// It does not match.
    Nothing,
    Pending,
    Ask(Question),
    Allow,
    Deny(Denial<'p>),
}

impl PartialEq for Rule {
    /// Rules of one policy have different names.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Rule {
    fn says(&self, facts: &Facts<'_>, answers: &Answers) -> Result<Says<'_>, WordError> {
        let (cause, matched) = match self.matches(facts) {
            RuleMatch::No => return Ok(Says::Nothing),
            RuleMatch::Pending => return Ok(Says::Pending),
            RuleMatch::Yes { cause, matched } => (cause, matched),
        };
        let deny = |cause, matched, reply| {
            let rule = Some(self);
            Says::Deny(Denial {
                rule,
                cause,
                matched,
                reply,
            })
        };
        let Some(lookup) = &self.lookup else {
            return Ok(match self.action {
                Action::Allow => Says::Allow,
                Action::Deny => deny(cause, matched, None),
                // Such a policy is not read.
                Action::Lookup => Says::Nothing,
            });
        };
        // What the answers are asked for last decides, unless another condition says more.
        let cause = match cause {
            Cause::Policy => lookup.cause(),
            cause => cause,
        };
        let answer = match lookup.state(facts, answers) {
            State::Pending => return Ok(Says::Pending),
            State::Ask(question) => return Ok(Says::Ask(question)),
            State::Answered(answer) => answer,
        };
        let found = answer.is_found();
        let matched = format!("look-up {}: found {found}", lookup.directory);
        let holds = found == lookup.found.unwrap_or(true);
        Ok(match (self.action, &lookup.verdict) {
            (Action::Allow | Action::Deny, _) if !holds => Says::Nothing,
            (Action::Allow, _) => Says::Allow,
            (Action::Deny, _) => deny(cause, matched, None),
            (Action::Lookup, verdict) => {
                let name = verdict.as_deref().unwrap_or_default();
                match Word::read(&lookup.directory, name, &answer)? {
                    Word::Ok => Says::Allow,
                    Word::Dunno => Says::Nothing,
                    Word::Refuse(reply) => deny(cause, matched, reply),
                }
            }
        })
    }

    fn matches(&self, facts: &Facts<'_>) -> RuleMatch {
        let mut outcome = RuleMatch::Yes {
            cause: Cause::Policy,
            matched: "no condition".to_owned(),
        };
        for (cause, condition) in self.conditions(facts) {
            match condition {
                Match::No => return RuleMatch::No,
                Match::Pending => outcome = RuleMatch::Pending,
                Match::Yes(matched) if matches!(outcome, RuleMatch::Yes { .. }) => {
                    outcome = RuleMatch::Yes { cause, matched };
                }
                Match::Yes(_) => {}
            }
        }
        outcome
    }

    /// From the most general to the most telling one: the last that matches is what the client hears of.
    fn conditions(&self, facts: &Facts<'_>) -> impl Iterator<Item = (Cause, Match)> {
        let address = |patterns: &Option<AddressPatterns>, fact: &Option<Address>| {
            test(patterns.as_ref(), fact.as_ref(), AddressPatterns::find)
        };
        let says = |wanted: &bool, is: bool| (*wanted == is).then(|| is.to_string());
        let authenticated = match facts.auth {
            Auth::NotYet => None,
            Auth::Anonymous => Some(false),
            Auth::Identity(_) => Some(true),
        };
        let missing_auth = self.authenticated == Some(false);
        [
            (
                Cause::Client,
                test(self.client.as_ref(), facts.client, Networks::find),
            ),
            (
                Cause::Helo,
                test(self.helo.as_ref(), facts.helo, HostPatterns::find),
            ),
            (Cause::Sender, address(&self.sender, &facts.sender)),
            (Cause::Recipient, address(&self.recipient, &facts.recipient)),
            (Cause::Identity, self.identity(facts.auth)),
            (
                if missing_auth {
                    Cause::NotAuthenticated
                } else {
                    Cause::Identity
                },
                test(self.authenticated.as_ref(), authenticated, says),
            ),
            (
                if self.tls == Some(false) {
                    Cause::NotEncrypted
                } else {
                    Cause::Policy
                },
                test(self.tls.as_ref(), facts.tls, says),
            ),
        ]
        .into_iter()
        .filter_map(|(cause, outcome)| outcome.map(|outcome| (cause, outcome)))
    }

    fn identity(&self, auth: Auth<'_>) -> Option<Match> {
        let patterns = self.auth.as_ref()?;
        Some(match auth {
            Auth::NotYet => Match::Pending,
            Auth::Anonymous => Match::No,
            Auth::Identity(identity) => patterns.find(identity).map_or(Match::No, Match::Yes),
        })
    }
}

/// `None`: the rule has no such condition.
fn test<P, F>(
    condition: Option<&P>,
    fact: Option<F>,
    find: impl Fn(&P, F) -> Option<String>,
) -> Option<Match> {
    let condition = condition?;
    Some(match fact {
        None => Match::Pending,
        Some(fact) => find(condition, fact).map_or(Match::No, Match::Yes),
    })
}

#[cfg(test)]
mod tests;
