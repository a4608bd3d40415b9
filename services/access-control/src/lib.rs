//! Access control: a policy over client, HELO, TLS, AUTH, sender and recipient decides whether a command goes on
//! (RFC 4496 §4.4, §4.8). Rules may ask a directory (LDAP or SQL).
//!
//! A refusal is the reply to that very command (command satisfaction); nothing is ever modified. Owns the policy and its
//! reloading. A policy that cannot be read keeps the service from starting; later it keeps the last good one in force.

mod address;
mod config;
mod lookup;
mod pattern;
mod policy;
mod service;
mod verdict;

pub use address::Address;
pub use lookup::{Answers, Directories, INPUTS, Key, Lookup, Question, Uses, Word, WordError};
pub use pattern::{AddressPatterns, HostPatterns, IdentityPatterns, Networks, PATTERNS_MAX};
pub use policy::{
    ADDRESS_OCTETS_MAX_DEFAULT, Action, Auth, Decision, Denial, Facts, LOOKUP_RULES_MAX, Policy,
    PolicyError, RULES_MAX, Rule, Step,
};
pub use service::{AccessControl, RULE_ANNOTATION};
pub use verdict::{Cause, ReplyText, Verdict};
