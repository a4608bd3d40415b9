//! A plan that is made again when services have annotated: which of its steps are new, and for whom.

use std::sync::Arc;

use opes_rules::{ActionStep, Plan, RecipientSet, Rule, Step};

/// A rule of a plan, for some recipients.
pub(super) trait Planned: Clone {
    fn rule(&self) -> &Arc<Rule>;
    fn recipients(&self) -> &RecipientSet;
    fn for_others(&self, recipients: RecipientSet) -> Self;
}

impl Planned for Step {
    fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }

    fn recipients(&self) -> &RecipientSet {
        &self.recipients
    }

    fn for_others(&self, recipients: RecipientSet) -> Self {
        Self {
            recipients,
            ..self.clone()
        }
    }
}

impl Planned for ActionStep {
    fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }

    fn recipients(&self) -> &RecipientSet {
        &self.recipients
    }

    fn for_others(&self, recipients: RecipientSet) -> Self {
        Self {
            recipients,
            ..self.clone()
        }
    }
}

/// Rules that have been started, and for whom. A plan that is made again names them again.
#[derive(Default)]
pub(super) struct Begun(Vec<(Arc<Rule>, RecipientSet)>);

impl Begun {
    /// What of `steps` has not been started, of `total` recipients. It counts as started from now on.
    pub(super) fn take_new<T: Planned>(&mut self, steps: &[T], total: usize) -> Vec<T> {
        let mut new = Vec::new();
        for step in steps {
            let recipients = self.take(step.rule(), step.recipients(), total);
            if !recipients.is_empty() {
                new.push(step.for_others(recipients));
            }
        }
        new
    }

    fn take(&mut self, rule: &Arc<Rule>, wanted: &RecipientSet, total: usize) -> RecipientSet {
        let mut all = self.0.iter_mut();
        let Some((_, known)) = all.find(|(known, _)| Arc::ptr_eq(known, rule)) else {
            self.0.push((Arc::clone(rule), wanted.clone()));
            return wanted.clone();
        };
        let new = only(wanted.iter(total).filter(|one| !known.contains(*one)));
        if !new.is_empty() {
            *known = only((0..total).filter(|one| known.contains(*one) || new.contains(*one)));
        }
        new
    }
}

fn only(members: impl Iterator<Item = usize>) -> RecipientSet {
    let small = members.filter_map(|member| u32::try_from(member).ok());
    RecipientSet::Only(small.collect())
}

/// Of each plan what concerns its members, as one plan in running order.
pub(super) fn join(parts: Vec<(Plan, Vec<usize>)>, total: usize) -> Plan {
    let mut joined = Plan::default();
    for (plan, members) in parts {
        let of = |set: &RecipientSet| only(set.iter(total).filter(|one| members.contains(one)));
        join_steps(&mut joined.observers, &plan.observers, of);
        join_steps(&mut joined.analysers, &plan.analysers, of);
        join_steps(&mut joined.adapters, &plan.adapters, of);
        join_steps(&mut joined.signers, &plan.signers, of);
        join_steps(&mut joined.bypassed, &plan.bypassed, of);
        join_steps(&mut joined.actions, &plan.actions, of);
        join_steps(&mut joined.shadow_actions, &plan.shadow_actions, of);
        joined.skipped.extend(plan.skipped);
    }
    joined
}

fn join_steps<T: Planned>(
    into: &mut Vec<T>,
    steps: &[T],
    of: impl Fn(&RecipientSet) -> RecipientSet,
) {
    for step in steps {
        let recipients = of(step.recipients());
        if recipients.is_empty() {
            continue;
        }
        let mut known = into.iter_mut();
        match known.find(|known| Arc::ptr_eq(known.rule(), step.rule())) {
            Some(known) => *known = known.for_others(united(known.recipients(), &recipients)),
            None => into.push(step.for_others(recipients)),
        }
    }
    // The running order: priority, then name.
    into.sort_by(|a, b| order(a.rule()).cmp(&order(b.rule())));
}

fn order(rule: &Rule) -> (i32, &str) {
    (rule.priority, &rule.name)
}

fn united(a: &RecipientSet, b: &RecipientSet) -> RecipientSet {
    match (a, b) {
        (RecipientSet::Only(a), RecipientSet::Only(b)) => {
            let mut all = [a.as_slice(), b.as_slice()].concat();
            all.sort_unstable();
            all.dedup();
            RecipientSet::Only(all)
        }
        (RecipientSet::All, _) | (_, RecipientSet::All) => RecipientSet::All,
    }
}
