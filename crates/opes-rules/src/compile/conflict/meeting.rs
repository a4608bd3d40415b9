//! Which rules are in conflict with a given one, found without looking at all pairs.
//!
//! Rules that can be in conflict are kept by what a message has one of: recipient domain, sender domain, listener. A rule that
//! lists such values is compared with those that share one of them, or list none.

use crate::matcher::Matcher;
use crate::point::{Class, Point};
use crate::table::{LocalAction, Rule};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Names of the actions that end a point.
const TERMINAL: [&str; 5] = ["reject", "tempfail", "accept", "discard", "quarantine"];

/// Rules that are in a table together.
#[derive(Default)]
pub(in crate::compile) struct Conflicts {
    rules: Vec<Arc<Rule>>,
    terminal: BTreeMap<(i32, &'static str), Bucket>,
    signers: Bucket,
    changers: Bucket,
}

/// Indexes of rules, by the values that they list for each of three fields.
#[derive(Default)]
struct Bucket {
    all: Vec<usize>,
    fields: [Field; 3],
}

#[derive(Default)]
struct Field {
    listed: HashMap<String, Vec<usize>>,
    /// Rules that list nothing here, or more than can be looked up.
    open: Vec<usize>,
}

// === impl Conflicts ===

impl Conflicts {
    /// Adds one more.
    pub(in crate::compile) fn add(&mut self, rule: &Arc<Rule>) {
        let number = self.rules.len();
        if let Some(action) = terminal(rule) {
            let key = (rule.priority, action.name());
            let bucket = self.terminal.entry(key).or_default();
            bucket.add(number, &rule.matcher);
        }
        if signs(rule) {
            self.signers.add(number, &rule.matcher);
        }
        if changes_octets(rule) {
            self.changers.add(number, &rule.matcher);
        }
        self.rules.push(Arc::clone(rule));
    }

    /// Rules with another terminal action of the same priority at a point that some message could meet both at; in the order in
    /// which they were added.
    pub(in crate::compile) fn contradicted(&self, rule: &Rule) -> Vec<&Rule> {
        let Some(action) = terminal(rule) else {
            return Vec::new();
        };
        let mut numbers = Vec::new();
        for other in TERMINAL.iter().filter(|name| **name != action.name()) {
            if let Some(bucket) = self.terminal.get(&(rule.priority, *other)) {
                numbers.extend(bucket.may_meet(&rule.matcher));
            }
        }
        let mut found = self.meeting(numbers, rule);
        found.retain(|other| other.points.iter().any(|at| rule.points.contains(at)));
        found
    }

    /// Rules that sign the message at a point before the last one at which `rule` can change it.
    pub(in crate::compile) fn signed_before(&self, rule: &Rule) -> Vec<&Rule> {
        if !changes_octets(rule) {
            return Vec::new();
        }
        let mut found = self.meeting(self.signers.may_meet(&rule.matcher), rule);
        found.retain(|signer| signed_at(signer, rule).is_some());
        found
    }

    /// Rules that can change the message at a point after one at which `rule` signs it.
    pub(in crate::compile) fn changed_after(&self, rule: &Rule) -> Vec<&Rule> {
        if !signs(rule) {
            return Vec::new();
        }
        let mut found = self.meeting(self.changers.may_meet(&rule.matcher), rule);
        found.retain(|changer| signed_at(rule, changer).is_some());
        found
    }

    fn meeting(&self, mut numbers: Vec<usize>, rule: &Rule) -> Vec<&Rule> {
        numbers.sort_unstable();
        numbers.dedup();
        numbers
            .into_iter()
            .filter_map(|number| self.rules.get(number))
            .filter(|other| !other.matcher.excludes(&rule.matcher))
            .map(Arc::as_ref)
            .collect()
    }
}

impl Bucket {
    fn add(&mut self, number: usize, matcher: &Matcher) {
        self.all.push(number);
        for (field, keys) in self.fields.iter_mut().zip(matcher.keys()) {
            match keys {
                None => field.open.push(number),
                Some(keys) => {
                    for key in keys {
                        field.listed.entry(key.clone()).or_default().push(number);
                    }
                }
            }
        }
    }

    /// Candidates, by the field that leaves fewest.
    fn may_meet(&self, matcher: &Matcher) -> Vec<usize> {
        let by_field = self.fields.iter().zip(matcher.keys());
        let fewest = by_field
            .filter_map(|(field, keys)| keys.map(|keys| field.candidates(keys)))
            .min_by_key(Vec::len);
        fewest.unwrap_or_else(|| self.all.clone())
    }
}

impl Field {
    fn candidates(&self, keys: &[String]) -> Vec<usize> {
        let listed = keys.iter().filter_map(|key| self.listed.get(key)).flatten();
        self.open.iter().chain(listed).copied().collect()
    }
}

// === what is in conflict ===

fn terminal(rule: &Rule) -> Option<&LocalAction> {
    rule.action
        .as_ref()
        .filter(|action| action.is_terminal() && !rule.shadow && !rule.stand_in)
}

fn signs(rule: &Rule) -> bool {
    rule.class == Some(Class::Sign) && !rule.shadow
}

fn changes_octets(rule: &Rule) -> bool {
    if rule.shadow {
        return false;
    }
    let adapts = rule.class == Some(Class::Adapt)
        && rule
            .callout
            .as_ref()
            .is_some_and(|callout| callout.allow.changes_octets());
    let edits = matches!(
        rule.action,
        Some(LocalAction::AddHeader { .. } | LocalAction::MarkSubject { .. })
    );
    adapts || edits
}

/// The first point at which `signer` signs before `changer` may have changed the message for the last time.
fn signed_at(signer: &Rule, changer: &Rule) -> Option<Point> {
    let last = changer.points.iter().max()?;
    let before = signer.points.iter().filter(|point| *point < last);
    before.min().copied()
}

// === messages ===

/// Message and remedy for the author of `rule`.
pub(in crate::compile) fn contradiction(rule: &Rule, other: &Rule) -> (String, String) {
    let name = |rule: &Rule| rule.action.as_ref().map_or("", LocalAction::name);
    let message = format!(
        "`{}` contradicts `{}` of rule {} at the same point with the same priority {}",
        name(rule),
        name(other),
        other.name,
        rule.priority
    );
    let remedy = "give one of them another priority; the lower number wins".to_owned();
    (message, remedy)
}

/// Field, message and remedy for the author of the rule that changes the message.
pub(in crate::compile) fn broken_signature(
    changer: &Rule,
    signer: &Rule,
) -> (String, String, String) {
    let last = changer.points.iter().max().copied().unwrap_or_default();
    let signed_at = signed_at(signer, changer).unwrap_or_default();
    let at = changer.points.iter().position(|point| *point == last);
    let field = at.map_or_else(|| "spec.at".to_owned(), |at| format!("spec.at[{at}]"));
    let signer = &signer.name;
    let message = format!(
        "the message can be changed at {last} after rule {signer} has signed it at {signed_at}"
    );
    let remedy = format!("move this rule to {signed_at}, or let {signer} sign at {last}");
    (field, message, remedy)
}
