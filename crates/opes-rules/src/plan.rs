//! From facts to a plan: which rules run, for which recipients, in which stage.
//!
//! Rules of a point are looked at in order of priority, then name. They accumulate; a terminal
//! action closes its recipients to every later rule except observers. A callout goes to the stage
//! of its service's class, a shadow callout to the observers. Nothing is allocated when nothing
//! matches. The plan depends on the facts and the table only, never on the order of files.

mod recipients;
mod share;

use crate::condition::Unevaluable;
use crate::facts::Facts;
use crate::matcher::{Mismatch, Verdict};
use crate::point::Class;
use crate::table::{LocalAction, RoutingTable, Rule};
use std::sync::Arc;

pub use recipients::RecipientSet;
pub(crate) use share::in_share;

/// What to do at one point for one message.
#[derive(Debug, Default)]
pub struct Plan {
    /// Never waited for; shadow callouts of any class are among them.
    pub observers: Vec<Step>,
    /// In parallel.
    pub analysers: Vec<Step>,
    /// One after the other.
    pub adapters: Vec<Step>,
    /// One after the other, after the adapters.
    pub signers: Vec<Step>,
    /// What the processor does itself, in order. For one recipient the first terminal one is last.
    pub actions: Vec<ActionStep>,
    /// Actions of shadow rules: to be logged, not done.
    pub shadow_actions: Vec<ActionStep>,
    /// Rules that could not be evaluated; to be counted.
    pub skipped: Vec<Skipped>,
    /// Callouts that are left out because the sender asked for it and the service allows it; to be reported.
    pub bypassed: Vec<Step>,
}

/// A callout to make.
#[derive(Debug, Clone)]
pub struct Step {
    /// A rule with a callout.
    pub rule: Arc<Rule>,
    /// For whom.
    pub recipients: RecipientSet,
    /// Whatever the service answers is logged and changes nothing.
    pub shadow: bool,
}

/// An action to take.
#[derive(Debug, Clone)]
pub struct ActionStep {
    /// A rule with an action.
    pub rule: Arc<Rule>,
    /// For whom.
    pub recipients: RecipientSet,
}

/// A rule that could not be evaluated and therefore does not match.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// The rule.
    pub rule: Arc<Rule>,
    /// For whom.
    pub recipients: RecipientSet,
    /// Why.
    pub reason: Unevaluable,
}

/// Recipients with the same signature get the same treatment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PlanSignature(u64);

/// For whom a rule matches, and for whom that cannot be known.
struct Selection {
    matching: RecipientSet,
    unknown: RecipientSet,
    reason: Option<Unevaluable>,
}

#[derive(Default)]
struct SelectionBuilder {
    matching: recipients::Builder,
    unknown: recipients::Builder,
    reason: Option<Unevaluable>,
}

// === impl RoutingTable ===

impl RoutingTable {
    /// Plans what happens at `facts.point`.
    pub fn plan(&self, facts: &Facts<'_>) -> Plan {
        let mut plan = Plan::default();
        let mut closed = RecipientSet::none();
        for index in self.rules_at(facts.point) {
            let Some(rule) = usize::try_from(*index).ok().and_then(|i| self.rules.get(i)) else {
                continue;
            };
            if !in_share(rule, facts.dialog_id) {
                continue;
            }
            let mut selection = select(rule, facts);
            if rule.class != Some(Class::Observe) {
                selection.remove(&closed, facts.recipients.len());
            }
            let bypassed = is_bypassed(rule, facts);
            plan.add(rule, selection, bypassed, &mut closed);
        }
        plan
    }

    /// Whether all recipients of `facts` will be treated alike at `facts.point`, whatever is still unknown and whatever services annotate
    /// until then.
    pub fn treats_alike(&self, facts: &Facts<'_>) -> bool {
        let plan = self.plan(facts);
        let first = plan.signature_of(0);
        let rules = self.rules_at(facts.point).iter();
        let mut rules = rules.filter_map(|index| self.rules.get(usize::try_from(*index).ok()?));
        (1..facts.recipients.len()).all(|other| plan.signature_of(other) == first)
            && rules.all(|rule| !rule.reads_annotations() || stays_alike(rule, facts))
    }
}

/// Whether the rule's service is left out on request. Asking is not enough: the service must allow it.
pub(crate) fn is_bypassed(rule: &Rule, facts: &Facts<'_>) -> bool {
    let asked = rule.callout.as_ref().zip(facts.bypass);
    asked.is_some_and(|(callout, bypass)| callout.bypassable && bypass.covers(&callout.service))
}

/// Whether a rule whose condition may change with annotations will match all recipients or none.
fn stays_alike(rule: &Rule, facts: &Facts<'_>) -> bool {
    let matcher = &rule.matcher;
    if matches!(matcher.check_dialog(facts), Err(Mismatch::Field(_))) {
        return true;
    }
    let mut fits = facts
        .recipients
        .iter()
        .map(|to| matcher.check_recipient(to).is_ok());
    match fits.next() {
        Some(true) => fits.all(|fits| fits) && !matcher.condition_per_recipient(),
        Some(false) => fits.all(|fits| !fits),
        None => true,
    }
}

/// For which recipients a rule matches. The expression comes last, and only once if its answer is
/// the same for everybody.
fn select(rule: &Rule, facts: &Facts<'_>) -> Selection {
    let matcher = &rule.matcher;
    let dialog = matcher.check_dialog(facts);
    if matches!(dialog, Err(Mismatch::Field(_))) {
        return Selection::all(dialog);
    }
    if !matcher.per_recipient() {
        return Selection::all(dialog.and_then(|()| matcher.check_condition(facts, None)));
    }
    let mut shared: Option<Verdict> = None;
    let mut builder = SelectionBuilder::default();
    for (index, recipient) in facts.recipients.iter().enumerate() {
        let verdict = matcher.check_recipient(recipient).and_then(|()| {
            if matcher.condition_per_recipient() {
                return matcher.check_condition(facts, Some(index));
            }
            *shared.get_or_insert_with(|| matcher.check_condition(facts, None))
        });
        // What is unknown of the dialog leaves open only those whom the rest does not rule out.
        let verdict = match verdict {
            Err(Mismatch::Field(_)) => verdict,
            Ok(()) | Err(Mismatch::Unevaluable(_)) => dialog.and(verdict),
        };
        builder.add(index, verdict);
    }
    builder.finish()
}

// === impl SelectionBuilder ===

impl SelectionBuilder {
    fn add(&mut self, index: usize, verdict: Verdict) {
        self.matching.add(index, verdict.is_ok());
        let reason = match verdict {
            Err(Mismatch::Unevaluable(reason)) => Some(reason),
            Ok(()) | Err(Mismatch::Field(_)) => None,
        };
        self.unknown.add(index, reason.is_some());
        self.reason = self.reason.or(reason);
    }

    fn finish(self) -> Selection {
        let (matching, unknown) = (self.matching.finish(), self.unknown.finish());
        Selection {
            matching,
            unknown,
            reason: self.reason,
        }
    }
}

// === impl Selection ===

impl Selection {
    fn all(verdict: Verdict) -> Self {
        let (matching, unknown, reason) = match verdict {
            Ok(()) => (RecipientSet::All, RecipientSet::none(), None),
            Err(Mismatch::Field(_)) => (RecipientSet::none(), RecipientSet::none(), None),
            Err(Mismatch::Unevaluable(why)) => (RecipientSet::none(), RecipientSet::All, Some(why)),
        };
        Self {
            matching,
            unknown,
            reason,
        }
    }

    fn remove(&mut self, closed: &RecipientSet, total: usize) {
        self.matching.remove(closed, total);
        self.unknown.remove(closed, total);
    }
}

// === impl Plan ===

impl Plan {
    fn add(
        &mut self,
        rule: &Arc<Rule>,
        selection: Selection,
        bypassed: bool,
        closed: &mut RecipientSet,
    ) {
        if let Some(reason) = selection.reason
            && !selection.unknown.is_empty()
        {
            let recipients = selection.unknown;
            self.skipped.push(Skipped {
                rule: Arc::clone(rule),
                recipients,
                reason,
            });
        }
        let recipients = selection.matching;
        if recipients.is_empty() {
            return;
        }
        let terminal = rule.action.as_ref().is_some_and(LocalAction::is_terminal);
        if terminal && !rule.shadow {
            closed.extend(&recipients);
        }
        let shadow = rule.shadow;
        let rule = Arc::clone(rule);
        if bypassed {
            self.bypassed.push(Step {
                rule,
                recipients,
                shadow,
            });
            return;
        }
        match (rule.class, shadow) {
            (None, false) => self.actions.push(ActionStep { rule, recipients }),
            (None, true) => self.shadow_actions.push(ActionStep { rule, recipients }),
            (Some(class), _) => self.stage(class, shadow).push(Step {
                rule,
                recipients,
                shadow,
            }),
        }
    }

    fn stage(&mut self, class: Class, shadow: bool) -> &mut Vec<Step> {
        match class {
            _ if shadow => &mut self.observers,
            Class::Observe => &mut self.observers,
            Class::Analyze => &mut self.analysers,
            Class::Adapt => &mut self.adapters,
            Class::Sign => &mut self.signers,
        }
    }

    /// Nothing to call, nothing to do, and no bypass to report.
    pub const fn is_empty(&self) -> bool {
        self.observers.is_empty()
            && self.analysers.is_empty()
            && self.adapters.is_empty()
            && self.signers.is_empty()
            && self.actions.is_empty()
            && self.shadow_actions.is_empty()
            && self.bypassed.is_empty()
    }

    /// Signature of what this plan does for one recipient (index into `facts.recipients`).
    fn signature_of(&self, recipient: usize) -> PlanSignature {
        let steps = [
            &self.observers,
            &self.analysers,
            &self.adapters,
            &self.signers,
        ];
        let steps = steps
            .into_iter()
            .flatten()
            .map(|step| (&step.rule, &step.recipients));
        let actions = [&self.actions, &self.shadow_actions];
        let actions = actions
            .into_iter()
            .flatten()
            .map(|step| (&step.rule, &step.recipients));
        let mut hash = share::Hash::default();
        for (rule, recipients) in steps.chain(actions) {
            if recipients.contains(recipient) {
                hash.text(&rule.name);
            }
        }
        // A rule that might match once more is known sets recipients apart as well.
        hash.text("?");
        for skipped in self
            .skipped
            .iter()
            .filter(|s| s.recipients.contains(recipient))
        {
            hash.text(&skipped.rule.name);
            // Its answer may turn out another for each recipient.
            if skipped.rule.matcher.condition_per_recipient() {
                hash.text(&recipient.to_string());
            }
        }
        PlanSignature(hash.finish())
    }
}

#[cfg(test)]
mod tests;
