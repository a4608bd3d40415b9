//! Runs a plan: observers ‖ analysers → adapters → signers, and merges what they say.
//!
//! The merge does not depend on who answers first: analysers count in rule order, and the first refusal in that order ends the
//! plan; what still runs is dropped, which ends its transactions. Adapters see what the ones before them changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use opes_content::View;
use opes_proto::smtp;
use opes_rules::{LocalAction, LocalReply, Plan, Rule, Step};
use opes_smtp::reply::{Enhanced, Reply};

use crate::callout::{self, StepResult, Subject};
use crate::edits;
use crate::metrics::Metrics;
use crate::outcome::{Permitted, Verdict};
use crate::report::StepReport;
use crate::routing::Routing;

/// Observer callouts running at once in one edge; beyond it they are dropped and counted, never waited for.
const OBSERVERS_MAX: usize = 1000;

static OBSERVERS: AtomicUsize = AtomicUsize::new(0);

/// What all rules of a plan together made of a message or command.
pub(crate) struct Merged {
    pub(crate) verdict: Verdict,
    pub(crate) view: Option<View>,
    /// Replacement of the command, last adapter's word.
    pub(crate) command_line: Option<Bytes>,
    pub(crate) sender: Option<String>,
    pub(crate) recipients: Vec<smtp::RecipientChange>,
    pub(crate) quarantine: Option<smtp::Quarantine>,
    pub(crate) annotations: HashMap<String, String>,
    pub(crate) steps: Vec<StepReport>,
}

/// What every callout of a plan shares.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) routing: Arc<Routing>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Run {
    /// Runs `plan` over `subject`.
    pub(crate) async fn plan(&self, plan: Plan, subject: Subject) -> Merged {
        let mut merged = Merged::new(subject.view.clone());
        merged.terminal_actions(&plan);
        self.observe(&plan.observers, &subject);
        if merged.ended() {
            return merged;
        }
        self.analyse(&plan.analysers, &subject, &mut merged).await;
        self.adapt(&plan.adapters, &subject, &mut merged).await;
        merged.edit_actions(&plan).await;
        self.adapt(&plan.signers, &subject, &mut merged).await;
        merged
    }

    fn observe(&self, steps: &[Step], subject: &Subject) {
        for step in steps {
            if OBSERVERS.fetch_add(1, Ordering::Relaxed) >= OBSERVERS_MAX {
                OBSERVERS.fetch_sub(1, Ordering::Relaxed);
                self.metrics.observers_dropped.inc();
                continue;
            }
            let (run, rule, subject) = (self.clone(), Arc::clone(&step.rule), subject.clone());
            tokio::spawn(async move {
                callout::run(&run.routing, &run.metrics, &rule, subject).await;
                OBSERVERS.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    async fn analyse(&self, steps: &[Step], subject: &Subject, merged: &mut Merged) {
        let mut running: FuturesOrdered<_> = steps
            .iter()
            .map(|step| callout::run(&self.routing, &self.metrics, &step.rule, subject.clone()))
            .collect();
        while let Some(result) = running.next().await {
            merged.take(result).await;
            if merged.ended() {
                return;
            }
        }
    }

    async fn adapt(&self, steps: &[Step], subject: &Subject, merged: &mut Merged) {
        for step in steps {
            if merged.ended() {
                return;
            }
            let subject = Subject {
                view: merged.view.clone(),
                command_line: merged
                    .command_line
                    .clone()
                    .or_else(|| subject.command_line.clone()),
                ..subject.clone()
            };
            let result = callout::run(&self.routing, &self.metrics, &step.rule, subject).await;
            merged.take(result).await;
        }
    }
}

impl Merged {
    pub(crate) fn new(view: Option<View>) -> Self {
        Self {
            verdict: Verdict::Accept,
            view,
            command_line: None,
            sender: None,
            recipients: Vec::new(),
            quarantine: None,
            annotations: HashMap::new(),
            steps: Vec::new(),
        }
    }

    fn ended(&self) -> bool {
        self.verdict != Verdict::Accept
    }

    async fn take(&mut self, result: StepResult) {
        let StepResult {
            permitted,
            mut report,
        } = result;
        if let Err(error) = self.take_content(&permitted).await {
            tracing::error!(
                rule = report.rule,
                service = report.service,
                error,
                "outcome cannot be applied"
            );
            report.verdict = format!("{} (not applicable: {error})", report.verdict);
            self.verdict = Verdict::Refuse(Reply::SERVICE_UNAVAILABLE);
        } else if permitted.verdict != Verdict::Accept {
            self.verdict = permitted.verdict;
        }
        self.command_line = permitted.command_line.or(self.command_line.take());
        self.sender = permitted.sender.or(self.sender.take());
        self.recipients.extend(permitted.recipients);
        self.quarantine = self.quarantine.take().or(permitted.quarantine);
        self.annotations.extend(permitted.annotations);
        self.steps.push(report);
    }

    /// The adapted flow first, then the edits, both over the view that the service saw.
    async fn take_content(&mut self, permitted: &Permitted) -> Result<(), String> {
        let Some(view) = &self.view else {
            return Ok(());
        };
        if permitted.adapted.is_none() && permitted.edits.is_empty() {
            return Ok(());
        }
        if !view.content().wait_complete().await {
            return Err("the client left before the end of the message".into());
        }
        let mut adapted = view.clone();
        if let Some(rope) = &permitted.adapted {
            adapted = view
                .compose(Some(rope.clone()))
                .map_err(|error| error.to_string())?;
        }
        self.view = Some(
            edits::apply(&adapted, permitted.edits.clone())
                .await
                .map_err(|error| error.to_string())?,
        );
        Ok(())
    }

    fn terminal_actions(&mut self, plan: &Plan) {
        for step in &plan.actions {
            let Some(action) = &step.rule.action else {
                continue;
            };
            self.verdict = match action {
                LocalAction::Reject(reply) => Verdict::Refuse(local_reply(reply, Reply::REFUSED)),
                LocalAction::Tempfail(reply) => {
                    Verdict::Refuse(local_reply(reply, Reply::TRY_LATER))
                }
                LocalAction::Discard => Verdict::Discard,
                _ => continue,
            };
            self.steps.push(local_report(&step.rule, action.name()));
            return;
        }
    }

    async fn edit_actions(&mut self, plan: &Plan) {
        for step in &plan.actions {
            if self.ended() {
                return;
            }
            let Some(action) = &step.rule.action else {
                continue;
            };
            let mut permitted = Permitted::default();
            match action {
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
                _ => continue,
            }
            let report = local_report(&step.rule, action.name());
            self.take(StepResult { permitted, report }).await;
        }
    }
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
    }
}

fn header(name: &str, value: &str) -> smtp::Edit {
    let add = smtp::HeaderAdd {
        name: name.into(),
        value: value.to_owned().into(),
        append: false,
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
