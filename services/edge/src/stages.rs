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

/// What services have said in the course of a plan.
pub(crate) type Annotations = HashMap<String, String>;

/// Makes the plan again, with these annotations added to what was known.
pub(crate) type Again<'a> = &'a (dyn Fn(&Annotations) -> Plan + Sync);

impl Run {
    /// Runs `plan` over `subject`. Rules that wait for annotations are looked at again with `again` when the analysers have answered,
    /// and when the adapters have.
    pub(crate) async fn plan(&self, plan: Plan, subject: Subject, again: Again<'_>) -> Merged {
        let mut merged = Merged::new(subject.view.clone());
        merged.refuse_mixed(&plan, &subject);
        merged.terminal_actions(&plan);
        let mut begun = Begun::default();
        self.observe(&begun.take_new(&plan.observers), &subject);
        let mut plan = plan;
        // Round after round, as each may bring annotations for which further analysers have waited.
        loop {
            let analysers = begun.take_new(&plan.analysers);
            if merged.ended() || analysers.is_empty() {
                break;
            }
            self.analyse(&analysers, &subject, &mut merged).await;
            plan = self.again(plan, &subject, again, &mut begun, &mut merged);
        }
        self.adapt(&begun.take_new(&plan.adapters), &subject, &mut merged)
            .await;
        plan = self.again(plan, &subject, again, &mut begun, &mut merged);
        self.adapt(&begun.take_new(&plan.adapters), &subject, &mut merged)
            .await;
        merged.edit_actions(&plan).await;
        self.adapt(&plan.signers, &subject, &mut merged).await;
        self.metrics.count_skipped(&plan);
        merged
    }

    /// The plan with what has been annotated by now; the same if no rule looks at that.
    fn again(
        &self,
        plan: Plan,
        subject: &Subject,
        again: Again<'_>,
        begun: &mut Begun,
        merged: &mut Merged,
    ) -> Plan {
        let reads = |rule: &Arc<Rule>| rule.reads_annotations();
        if merged.ended()
            || merged.annotations.is_empty()
            || !self.routing.table.rules.iter().any(reads)
        {
            return plan;
        }
        let plan = again(&merged.annotations);
        merged.refuse_mixed(&plan, subject);
        merged.terminal_actions(&plan);
        self.observe(&begun.take_new(&plan.observers), subject);
        plan
    }

    fn observe(&self, steps: &[Step], subject: &Subject) {
        for step in steps {
            if OBSERVERS.fetch_add(1, Ordering::Relaxed) >= OBSERVERS_MAX {
                OBSERVERS.fetch_sub(1, Ordering::Relaxed);
                self.metrics.observers_dropped.inc();
                continue;
            }
            let (run, rule, subject) = (self.clone(), Arc::clone(&step.rule), subject.clone());
            let place = ObserverPlace;
            tokio::spawn(async move {
                let _place = place;
                callout::run(&run.routing, &run.metrics, &rule, subject).await;
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

    /// One after another; each sees what the ones before it changed and said.
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
                context: with_annotations(&subject.context, &merged.annotations),
                ..subject.clone()
            };
            let result = callout::run(&self.routing, &self.metrics, &step.rule, subject).await;
            merged.take(result).await;
        }
    }
}

/// One of [`OBSERVERS_MAX`]; given back also by an observer that panics.
struct ObserverPlace;

impl Drop for ObserverPlace {
    fn drop(&mut self) {
        OBSERVERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Rules that have been started; a plan that is made again names them again.
#[derive(Default)]
struct Begun(Vec<Arc<Rule>>);

impl Begun {
    /// Those of `steps` that have not been started. They count as started from now on.
    fn take_new(&mut self, steps: &[Step]) -> Vec<Step> {
        let is_new = |step: &&Step| !self.0.iter().any(|rule| Arc::ptr_eq(rule, &step.rule));
        let new: Vec<Step> = steps.iter().filter(is_new).cloned().collect();
        self.0.extend(new.iter().map(|step| Arc::clone(&step.rule)));
        new
    }
}

fn with_annotations(context: &Arc<smtp::Context>, annotations: &Annotations) -> Arc<smtp::Context> {
    if annotations.is_empty() {
        return Arc::clone(context);
    }
    let mut context = smtp::Context::clone(context);
    let said = annotations
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()));
    context.annotations.extend(said);
    Arc::new(context)
}

impl Merged {
    /// One message has one fate, so its recipients were kept to one plan (ADR 0003). If they were not, nobody gets what is meant for
    /// others.
    fn refuse_mixed(&mut self, plan: &Plan, subject: &Subject) {
        if subject.point == smtp::Point::Content && plan.is_mixed() && !self.ended() {
            opes_telemetry::bug!("recipients of one message have different plans");
            self.verdict = Verdict::Refuse(Reply::LOCAL_ERROR);
        }
    }

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
        if self.ended() {
            return;
        }
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
