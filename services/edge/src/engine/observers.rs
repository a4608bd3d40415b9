//! Callouts that nobody waits for: observers, and whatever a rule runs in shadow mode.

use std::sync::atomic::{AtomicUsize, Ordering};

use opes_rules::{ActionStep, Plan, Step};

use super::{Annotations, Matter, Merged, Recipient, Run};
use crate::callout::StepResult;
use crate::metrics::ByShadow;

/// Observer callouts running at once in one edge; beyond it they are dropped and counted, never waited for.
const OBSERVERS_MAX: usize = 1000;

static OBSERVERS: AtomicUsize = AtomicUsize::new(0);

/// One of [`OBSERVERS_MAX`]; given back also by an observer that panics.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        if OBSERVERS.fetch_add(1, Ordering::Relaxed) < OBSERVERS_MAX {
            return Some(Self);
        }
        OBSERVERS.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OBSERVERS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Run {
    /// Observers only: for what cannot be changed any more.
    pub(crate) fn watch(
        &self,
        plan: &Plan,
        matter: &Matter,
        recipients: Vec<Recipient>,
        said: &Annotations,
    ) {
        let mut merged = Merged::new(recipients, None, said.clone());
        self.observe(&plan.observers, matter, &mut merged);
    }

    pub(super) fn observe(&self, steps: &[Step], matter: &Matter, merged: &mut Merged) {
        for step in steps {
            for audience in merged.groups.everybody_in(&step.recipients) {
                let Some(place) = Place::take() else {
                    self.metrics.observers_dropped.inc();
                    continue;
                };
                let subject = merged.subject(matter, &audience);
                merged.calls.ran(&step.rule, &audience.members);
                let dialog_id = matter.context.dialog_id.clone();
                let (run, step) = (self.clone(), step.clone());
                self.metrics.observers.spawn(async move {
                    let _place = place;
                    let result = run.callouts.call(&step.rule, subject).await;
                    if step.shadow {
                        run.record(&dialog_id, &result);
                    }
                });
            }
        }
    }

    /// What a rule in shadow mode would have done, and how long it took.
    fn record(&self, dialog_id: &str, result: &StepResult) {
        let report = &result.report;
        tracing::info!(
            session_id = dialog_id,
            rule = report.rule,
            service = report.service,
            would = report.verdict,
            reason = report.reason,
            elapsed_ms = report.elapsed.as_millis(),
            "shadow"
        );
        self.count_shadow(&report.rule, result.would());
    }

    pub(super) fn shadow_actions(&self, actions: &[ActionStep], matter: &Matter) {
        for step in actions {
            let Some(action) = &step.rule.action else {
                continue;
            };
            tracing::info!(
                session_id = matter.context.dialog_id,
                rule = step.rule.name,
                would = action.name(),
                "shadow"
            );
            self.count_shadow(&step.rule.name, action.name());
        }
    }

    fn count_shadow(&self, rule: &str, would: &'static str) {
        let label = ByShadow {
            rule: rule.to_owned(),
            would,
        };
        self.metrics.shadows.get_or_create(&label).inc();
    }
}
