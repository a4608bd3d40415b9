//! What the edge does itself for a rule, without a callout.

use opes_proto::smtp;
use opes_rules::{ActionStep, LocalAction, LocalReply, Plan, Rule, Step};
use opes_smtp::reply::{Enhanced, Reply};

use super::Merged;
use crate::callout::{Part, StepResult};
use crate::outcome::{Gravity, Permitted, Verdict};
use crate::report::StepReport;

impl Merged {
    /// Refusals come first: whatever else would run for these recipients could not change them.
    pub(super) fn refusals(&mut self, plan: &Plan) {
        for step in &plan.actions {
            let Some(action) = &step.rule.action else {
                continue;
            };
            let verdict = match action {
                LocalAction::Reject(reply) => Verdict::Refuse(local_reply(reply, Reply::REFUSED)),
                LocalAction::Tempfail(reply) => {
                    Verdict::Refuse(local_reply(reply, Reply::TRY_LATER))
                }
                _ => continue,
            };
            let members: Vec<usize> = step.recipients.iter(self.total()).collect();
            let open = self.groups.audiences(&step.recipients);
            if !open.is_empty() {
                self.groups
                    .change(&members, |fate| fate.verdict = verdict.clone());
                self.steps.push(StepReport {
                    gravity: Some(gravity_of(&verdict)),
                    ..local_report(&step.rule, action.name())
                });
            }
        }
    }

    /// Callouts that are left out because the sender asked for it: no more than a line of the report.
    pub(super) fn bypasses(&mut self, steps: &[Step]) {
        for step in steps {
            let members = step.recipients.iter(self.total()).collect();
            self.calls.bypassed(&step.rule, members);
            let callout = step.rule.callout.as_ref();
            self.steps.push(StepReport {
                service: callout
                    .map(|callout| callout.service.clone())
                    .unwrap_or_default(),
                gravity: None,
                ..local_report(&step.rule, "bypassed")
            });
        }
    }

    /// The others, after the adapters and before the signers.
    pub(super) async fn late_actions(&mut self, plan: &Plan) {
        for step in &plan.actions {
            self.late_action(step).await;
        }
    }

    async fn late_action(&mut self, step: &ActionStep) {
        let Some(permitted) = step.rule.action.as_ref().and_then(late) else {
            return;
        };
        let name = step.rule.action.as_ref().map_or("", LocalAction::name);
        for audience in self.groups.audiences(&step.recipients) {
            let result = StepResult {
                parts: vec![Part::for_all(permitted.clone())],
                report: StepReport {
                    gravity: Some(permitted.gravest()),
                    ..local_report(&step.rule, name)
                },
                failure: Permitted::refusing(Reply::LOCAL_ERROR),
            };
            self.take(&audience, result).await;
        }
    }
}

fn late(action: &LocalAction) -> Option<Permitted> {
    let mut permitted = Permitted::default();
    match action {
        LocalAction::Discard => permitted.verdict = Verdict::Discard,
        LocalAction::AddHeader { name, value } => permitted.edits.push(header(name, value)),
        LocalAction::MarkSubject { text } => permitted.edits.push(subject_mark(text)),
        LocalAction::Quarantine { reason } => {
            permitted.quarantine = Some(smtp::Quarantine {
                reason: reason.clone(),
                queue: String::new(),
            });
        }
        LocalAction::Route { host, port, lmtp } => {
            permitted.recipients.push(route(host, *port, *lmtp));
        }
        LocalAction::Reject(_)
        | LocalAction::Tempfail(_)
        | LocalAction::Accept
        | LocalAction::Continue => return None,
    }
    Some(permitted)
}

/// The rule's reply; the compiler has checked it, so the fallback is for a table that did not come through it.
fn local_reply(reply: &LocalReply, fallback: Reply) -> Reply {
    let (class, subject, detail) = reply.enhanced;
    Reply::checked(
        reply.code,
        Some(Enhanced(class, subject, detail)),
        &[reply.text.as_str()],
    )
    .unwrap_or(fallback)
}

fn local_report(rule: &Rule, verdict: &str) -> StepReport {
    StepReport {
        rule: rule.name.clone(),
        service: String::new(),
        verdict: verdict.to_owned(),
        reason: String::new(),
        elapsed: std::time::Duration::ZERO,
        octets: 0,
        gravity: Some(Gravity::Accept),
        failure: None,
    }
}

fn gravity_of(verdict: &Verdict) -> Gravity {
    let permitted = Permitted {
        verdict: verdict.clone(),
        ..Permitted::default()
    };
    permitted.gravest()
}

fn header(name: &str, value: &str) -> smtp::Edit {
    let add = smtp::HeaderAdd {
        name: name.into(),
        value: value.to_owned().into(),
        append: false,
        above: None,
    };
    smtp::Edit {
        kind: Some(smtp::edit::Kind::HeaderAdd(add)),
    }
}

fn subject_mark(text: &str) -> smtp::Edit {
    smtp::Edit {
        kind: Some(smtp::edit::Kind::SubjectMark(smtp::SubjectMark {
            text: text.into(),
        })),
    }
}

/// A next hop for every recipient.
fn route(host: &str, port: u16, lmtp: bool) -> smtp::RecipientChange {
    let next_hop = smtp::NextHop {
        host: host.into(),
        port: port.into(),
        lmtp,
    };
    smtp::RecipientChange {
        original: "*".into(),
        next_hop: Some(next_hop),
        ..Default::default()
    }
}
