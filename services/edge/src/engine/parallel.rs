//! Analysers: all at once, merged in rule order.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::future::BoxFuture;
use opes_rules::Step;

use super::{Audience, Matter, Merged, Run};
use crate::callout::{StepResult, Who};
use crate::outcome::Verdict;

/// One callout on its way.
enum Slot<'a> {
    Running(BoxFuture<'a, StepResult>),
    Answered(Box<StepResult>),
    /// Merged, or dropped as it could change nothing.
    Over,
}

impl Run {
    /// Asks all of `steps` at once. Results count in rule order; what an earlier one has decided, a later one cannot change, so that it is
    /// not waited for.
    pub(super) async fn analyse(&self, steps: &[Step], matter: &Matter, merged: &mut Merged) {
        let mut audiences = Vec::new();
        let mut slots = Vec::new();
        for step in steps {
            for audience in merged.groups.audiences(&step.recipients) {
                let subject = merged.subject(matter, &audience);
                slots.push(Slot::Running(self.callouts.call(&step.rule, subject)));
                merged.calls.ran(&step.rule, &audience.members);
                audiences.push(audience);
            }
        }
        let mut next = 0;
        while next < slots.len() {
            progress(&mut slots).await;
            while let Some(slot) = slots.get_mut(next) {
                match std::mem::replace(slot, Slot::Over) {
                    running @ Slot::Running(_) => {
                        *slot = running;
                        break;
                    }
                    Slot::Answered(result) => {
                        if let Some(audience) = audiences.get(next) {
                            merged.take(audience, *result).await;
                        }
                    }
                    Slot::Over => {}
                }
                next += 1;
            }
            drop_idle(&mut slots, &audiences, merged);
        }
    }
}

/// Waits until one more has answered; returns at once if nothing runs.
async fn progress(slots: &mut [Slot<'_>]) {
    poll_fn(|context| {
        let (mut answered, mut running) = (false, false);
        for slot in slots.iter_mut() {
            if let Slot::Running(call) = slot {
                match call.as_mut().poll(context) {
                    Poll::Ready(result) => {
                        *slot = Slot::Answered(Box::new(result));
                        answered = true;
                    }
                    Poll::Pending => running = true,
                }
            }
        }
        if answered || !running {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Drops callouts for whose recipients everything is decided: merged, or refused by an earlier rule that waits for its turn.
fn drop_idle(slots: &mut [Slot<'_>], audiences: &[Audience], merged: &Merged) {
    let mut decided: Vec<usize> = merged
        .groups
        .groups
        .iter()
        .filter(|group| group.fate.is_over())
        .flat_map(|group| group.members.iter().copied())
        .collect();
    for (slot, audience) in slots.iter_mut().zip(audiences) {
        match slot {
            Slot::Running(_)
                if audience
                    .members
                    .iter()
                    .all(|member| decided.contains(member)) =>
            {
                *slot = Slot::Over;
            }
            Slot::Answered(result) if refuses_all(result) => decided.extend(&audience.members),
            Slot::Running(_) | Slot::Answered(_) | Slot::Over => {}
        }
    }
}

fn refuses_all(result: &StepResult) -> bool {
    let mut parts = result.parts.iter();
    parts.any(|part| part.who == Who::Rest && part.permitted.verdict != Verdict::Accept)
        && result.parts.len() == 1
}
