//! Why a rule runs or does not, for people and as JSON.

use crate::facts::Facts;
use crate::matcher::Mismatch;
use crate::plan::{RecipientSet, in_share, is_bypassed};
use crate::point::{Class, Point};
use crate::table::{LocalAction, RoutingTable, Rule};
use serde::Serialize;
use std::fmt::Write;

/// What happens to one message at every point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Of the table.
    pub revision: String,
    /// Points that rules look at, in the order of a message's life.
    pub points: Vec<PointExplanation>,
}

/// What happens at one point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PointExplanation {
    /// The point.
    pub point: Point,
    /// Every rule of the point, in the order in which they are looked at.
    pub rules: Vec<RuleExplanation>,
}

/// What becomes of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleExplanation {
    /// `namespace/name`.
    pub rule: String,
    /// Lower is earlier.
    pub priority: i32,
    /// Class of the service, or name of the local action.
    pub stage: String,
    /// The service that is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// It changes nothing.
    pub shadow: bool,
    /// For everybody, or for each recipient.
    pub verdicts: Vec<VerdictExplanation>,
}

/// Whether a rule runs for somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictExplanation {
    /// A recipient; absent = the same for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// The rule runs.
    pub runs: bool,
    /// Why not, or why.
    pub reason: String,
}

/// Explains every point that rules look at, with what is known there.
pub fn explain(table: &RoutingTable, facts: &Facts<'_>) -> Explanation {
    let points = Point::ALL
        .into_iter()
        .filter(|point| table.has_rules(*point));
    let points = points
        .map(|point| explain_point(table, &facts.seen_from(point)))
        .collect();
    Explanation {
        revision: table.revision.clone(),
        points,
    }
}

/// The same as a text.
pub fn text(table: &RoutingTable, facts: &Facts<'_>) -> String {
    let explanation = explain(table, facts);
    let mut out = format!("revision {}\n", explanation.revision);
    for point in &explanation.points {
        let _ = writeln!(out, "{}", point.point);
        for rule in &point.rules {
            write_rule(&mut out, rule);
        }
    }
    if explanation.points.is_empty() {
        out.push_str("no rules\n");
    }
    out
}

fn write_rule(out: &mut String, rule: &RuleExplanation) {
    let shadow = if rule.shadow {
        " (shadow: changes nothing)"
    } else {
        ""
    };
    let calls = rule
        .service
        .as_ref()
        .map(|name| format!(" → {name}"))
        .unwrap_or_default();
    let _ = writeln!(
        out,
        "  {:>6}  {}: {}{calls}{shadow}",
        rule.priority, rule.rule, rule.stage
    );
    for verdict in &rule.verdicts {
        let mark = if verdict.runs { "runs" } else { "does not run" };
        let whom = verdict
            .recipient
            .as_ref()
            .map(|r| format!(" for <{r}>"))
            .unwrap_or_default();
        let _ = writeln!(out, "          {mark}{whom}: {}", verdict.reason);
    }
}

fn explain_point(table: &RoutingTable, facts: &Facts<'_>) -> PointExplanation {
    let mut closed: Vec<(String, RecipientSet)> = Vec::new();
    let rules = table.rules_at(facts.point).iter();
    let rules = rules.filter_map(|index| table.rules.get(usize::try_from(*index).ok()?));
    let rules = rules
        .map(|rule| explain_rule(rule, facts, &mut closed))
        .collect();
    PointExplanation {
        point: facts.point,
        rules,
    }
}

/// Explains one rule; notes for whom it closes the point.
fn explain_rule(
    rule: &Rule,
    facts: &Facts<'_>,
    closed: &mut Vec<(String, RecipientSet)>,
) -> RuleExplanation {
    let everybody = facts.recipients.is_empty();
    let verdicts = if everybody {
        vec![verdict(rule, facts, None, closed)]
    } else {
        (0..facts.recipients.len())
            .map(|index| verdict(rule, facts, Some(index), closed))
            .collect()
    };
    let terminal = rule.action.as_ref().is_some_and(LocalAction::is_terminal);
    if terminal && !rule.shadow {
        let run = |(index, verdict): (usize, &VerdictExplanation)| {
            verdict.runs.then(|| u32::try_from(index).ok()).flatten()
        };
        let indexes = verdicts.iter().enumerate().filter_map(run).collect();
        closed.push((rule.name.clone(), RecipientSet::Only(indexes)));
    }
    RuleExplanation {
        rule: rule.name.clone(),
        priority: rule.priority,
        stage: rule.stage().to_owned(),
        service: rule.callout.as_ref().map(|callout| callout.service.clone()),
        shadow: rule.shadow,
        verdicts: merged(verdicts),
    }
}

fn verdict(
    rule: &Rule,
    facts: &Facts<'_>,
    recipient: Option<usize>,
    closed: &[(String, RecipientSet)],
) -> VerdictExplanation {
    let name = recipient.and_then(|index| facts.recipients.get(index));
    let reason = mismatch(rule, facts, recipient, closed);
    VerdictExplanation {
        recipient: name.map(|recipient| recipient.address.to_owned()),
        runs: reason.is_none(),
        reason: reason.unwrap_or_else(|| why_it_runs(rule, facts)),
    }
}

/// Why the rule does not run, in the order in which the planner finds out.
fn mismatch(
    rule: &Rule,
    facts: &Facts<'_>,
    recipient: Option<usize>,
    closed: &[(String, RecipientSet)],
) -> Option<String> {
    if !in_share(rule, facts.dialog_id) {
        return Some(format!(
            "this dialog is not among the {} % of its rollout",
            rule.percent
        ));
    }
    let ended_by = closed
        .iter()
        .find(|(_, set)| set.contains(recipient.unwrap_or(0)));
    if let Some((name, _)) = ended_by.filter(|_| rule.class != Some(Class::Observe)) {
        return Some(format!("rule {name} has ended this point"));
    }
    if recipient.is_none() && facts.point.has_recipients() && rule.matcher.per_recipient() {
        return Some("there is no recipient".to_owned());
    }
    let matcher = &rule.matcher;
    let verdict = matcher
        .check_dialog(facts)
        .and_then(
            |()| match recipient.and_then(|index| facts.recipients.get(index)) {
                Some(recipient) => matcher.check_recipient(recipient),
                None => Ok(()),
            },
        )
        .and_then(|()| matcher.check_condition(facts, recipient));
    match verdict {
        Ok(()) => is_bypassed(rule, facts).then(|| "bypassed on request".to_owned()),
        Err(mismatch) => Some(reason(&mismatch, rule)),
    }
}

fn why_it_runs(rule: &Rule, facts: &Facts<'_>) -> String {
    let asked = rule.callout.as_ref().zip(facts.bypass);
    if asked.is_some_and(|(callout, bypass)| bypass.covers(&callout.service)) {
        "everything in match holds; the bypass is refused, since the service does not have `bypass.allowed`".to_owned()
    } else {
        "everything in match holds".to_owned()
    }
}

fn reason(mismatch: &Mismatch, rule: &Rule) -> String {
    match (mismatch, &rule.matcher.condition) {
        (Mismatch::Field("cel"), Some(condition)) => {
            format!("match.cel is false: {}", condition.source())
        }
        _ => mismatch.to_string(),
    }
}

/// One verdict instead of many that say the same.
fn merged(mut verdicts: Vec<VerdictExplanation>) -> Vec<VerdictExplanation> {
    let same = verdicts.split_first().is_some_and(|(first, rest)| {
        rest.iter()
            .all(|v| v.runs == first.runs && v.reason == first.reason)
    });
    if same {
        verdicts.truncate(1);
        if let Some(first) = verdicts.first_mut() {
            first.recipient = None;
        }
    }
    verdicts
}
