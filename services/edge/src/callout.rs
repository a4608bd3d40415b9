//! One rule's callout, from request to a permitted outcome, with its failure policy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use opes_callout_client::{CalloutError, ContentWant, Request};
use opes_content::View;
use opes_proto::smtp;
use opes_rules::{CalloutSpec, OnFailure, Permission, Rule};
use opes_smtp::reply::Reply;
use tokio::sync::watch;

use crate::context;
use crate::engine::{Callouts, Run};
use crate::metrics::{ByCallout, ByRule, ByService, CalloutLabel, Metrics};
use crate::outcome::{Gravity, Permitted, permit};
use crate::report::StepReport;
use crate::routing::{Binding, Routing};

/// What a callout is about.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) point: smtp::Point,
    pub(crate) command_line: Option<Bytes>,
    pub(crate) context: Arc<smtp::Context>,
    pub(crate) view: Option<View>,
}

/// What came of one step.
pub(crate) struct StepResult {
    /// One of them is for [`Who::Rest`].
    pub(crate) parts: Vec<Part>,
    pub(crate) report: StepReport,
    /// In place of the parts if one of them does not fit the message: the rule's failure policy.
    pub(crate) failure: Permitted,
}

/// What a service said of some recipients.
pub(crate) struct Part {
    pub(crate) who: Who,
    pub(crate) permitted: Permitted,
}

/// Whom a part is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// All that the service was asked about and no other part names.
    Rest,
    /// These addresses.
    Only(Vec<String>),
}

impl Part {
    pub(crate) fn for_all(permitted: Permitted) -> Self {
        Self {
            who: Who::Rest,
            permitted,
        }
    }
}

impl StepResult {
    fn one(permitted: Permitted, report: StepReport, failure: Permitted) -> Self {
        Self {
            parts: vec![Part::for_all(permitted)],
            report,
            failure,
        }
    }

    /// The gravest of what it says, in one word.
    pub(crate) fn would(&self) -> &'static str {
        gravest(&self.parts).unwrap_or_default().word()
    }
}

/// The clock of one message or command: set when the client has said its last octet, from when on it waits for our reply. Callouts that run
/// by then are told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deadline(Arc<watch::Sender<Option<tokio::time::Instant>>>);

/// Callouts over the network.
pub(crate) struct Live {
    routing: Arc<Routing>,
    metrics: Arc<Metrics>,
    deadline: Deadline,
}

impl Callouts for Live {
    fn call<'a>(&'a self, rule: &'a Arc<Rule>, subject: Subject) -> BoxFuture<'a, StepResult> {
        Box::pin(self.run(rule, subject))
    }
}

// === impl Deadline ===

impl Deadline {
    /// The client waits already.
    pub(crate) fn at(deadline: tokio::time::Instant) -> Self {
        Self(Arc::new(watch::Sender::new(Some(deadline))))
    }

    pub(crate) fn set(&self, deadline: tokio::time::Instant) {
        self.0.send_replace(Some(deadline));
    }

    /// The rule's time, or what is left of the message's.
    fn limit(&self, timeout: Duration) -> Duration {
        let now = tokio::time::Instant::now();
        match *self.0.borrow() {
            Some(deadline) => timeout.min(deadline.saturating_duration_since(now)),
            None => timeout,
        }
    }

    /// Until the deadline, which may be set later only.
    async fn passed(&self) {
        let mut said = self.0.subscribe();
        let deadline = said.wait_for(Option::is_some).await.map(|said| *said);
        match deadline {
            Ok(Some(deadline)) => tokio::time::sleep_until(deadline).await,
            // It is set, and we hold the sender.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl Live {
    /// What the plans of a transaction share, with callouts over the network.
    pub(crate) fn run_of(
        routing: Arc<Routing>,
        metrics: &Arc<Metrics>,
        deadline: &Deadline,
    ) -> Run {
        Run {
            callouts: Arc::new(Self {
                routing: Arc::clone(&routing),
                metrics: Arc::clone(metrics),
                deadline: deadline.clone(),
            }),
            routing,
            metrics: Arc::clone(metrics),
        }
    }

    async fn run(&self, rule: &Rule, subject: Subject) -> StepResult {
        let (Some(callout), Some(binding)) = (&rule.callout, self.routing.binding(rule)) else {
            let report = without_callout(rule);
            return StepResult::one(Permitted::default(), report, Permitted::default());
        };
        let (started, point) = (Instant::now(), subject.point);
        let answer = ask(binding, callout, &self.deadline, subject, &self.metrics).await;
        let elapsed = started.elapsed();
        match answer {
            Ok(answer) => {
                let octets = answer.octets_sent + answer.octets_received;
                let (parts, refused) = permit(answer, callout.allow, point);
                count_refused(&self.metrics, rule, binding, &refused);
                let (verdict, reason) = describe(&parts, &refused);
                let report = report(rule, callout, verdict, reason, elapsed, octets);
                StepResult {
                    report: StepReport {
                        gravity: gravest(&parts),
                        ..report
                    },
                    parts,
                    failure: policy(callout, "its outcome does not fit the message"),
                }
            }
            Err(error) => failed(rule, callout, binding, &error, elapsed),
        }
    }
}

async fn ask(
    binding: &Binding,
    callout: &CalloutSpec,
    deadline: &Deadline,
    subject: Subject,
    metrics: &Metrics,
) -> Result<opes_callout_client::Answer, CalloutError> {
    let by_service = ByService {
        service: callout.service.clone(),
    };
    let inflight = metrics.callout_inflight.get_or_create(&by_service).clone();
    let _open = InFlight::new(inflight);
    let started = Instant::now();
    let answer = tokio::select! {
        biased;
        answer = transaction(binding, callout, deadline, subject) => answer,
        // The client stops waiting before the rule does.
        () = deadline.passed() => Err(CalloutError::Timeout {
            service: callout.service.clone(),
            timeout: started.elapsed(),
        }),
    };
    metrics
        .callout_seconds
        .get_or_create(&by_service)
        .observe(started.elapsed().as_secs_f64());
    let result = match &answer {
        Ok(_) => CalloutLabel::Answered,
        Err(error) => label(error),
    };
    metrics
        .callouts
        .get_or_create(&ByCallout {
            service: callout.service.clone(),
            result,
        })
        .inc();
    answer
}

async fn transaction(
    binding: &Binding,
    callout: &CalloutSpec,
    deadline: &Deadline,
    subject: Subject,
) -> Result<opes_callout_client::Answer, CalloutError> {
    let context = match &subject.view {
        Some(view) => context::complete(&binding.client, &subject.context, view).await?,
        None => subject.context,
    };
    let request = Request {
        group: Arc::clone(&binding.group),
        point: subject.point,
        command_line: subject.command_line,
        context,
        content: subject.view,
        content_want: content_want(callout.wants),
        timeout: deadline.limit(callout.timeout),
        traceparent: String::new(),
    };
    binding.client.run(request).await
}

fn gravest(parts: &[Part]) -> Option<Gravity> {
    parts.iter().map(|part| part.permitted.gravest()).max()
}

fn content_want(want: opes_rules::ContentWant) -> ContentWant {
    match want {
        opes_rules::ContentWant::AsService => ContentWant::Unspecified,
        opes_rules::ContentWant::None => ContentWant::None,
        opes_rules::ContentWant::Header => ContentWant::Header,
        opes_rules::ContentWant::Prefix(octets) => ContentWant::Prefix(octets),
        opes_rules::ContentWant::All => ContentWant::All,
    }
}

/// Counts an open callout for as long as it lives, also if its future is dropped.
struct InFlight(prometheus_client::metrics::gauge::Gauge);

impl InFlight {
    fn new(gauge: prometheus_client::metrics::gauge::Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn label(error: &CalloutError) -> CalloutLabel {
    match error {
        CalloutError::Timeout { .. } => CalloutLabel::Timeout,
        CalloutError::Unavailable { .. } => CalloutLabel::Unavailable,
        CalloutError::Untrusted { .. } => CalloutLabel::Untrusted,
        CalloutError::Failed { .. } => CalloutLabel::Failed,
        CalloutError::Protocol { .. } => CalloutLabel::Protocol,
        CalloutError::Content { .. } => CalloutLabel::Content,
    }
}

/// The rule's failure policy in place of an answer.
fn failed(
    rule: &Rule,
    callout: &CalloutSpec,
    binding: &Binding,
    error: &CalloutError,
    elapsed: Duration,
) -> StepResult {
    let now = tokio::time::Instant::now();
    if let Some(count) = binding.failures.note(label(error), now) {
        tracing::warn!(rule = rule.name, service = callout.service, %error, count, "callout failed");
    }
    let permitted = policy(callout, &error.to_string());
    let verdict = format!("{:?} → {}", label(error), callout.on_failure.name()).to_lowercase();
    let report = StepReport {
        gravity: Some(permitted.gravest()),
        failure: Some(label(error)),
        ..report(rule, callout, verdict, error.to_string(), elapsed, 0)
    };
    StepResult::one(permitted.clone(), report, permitted)
}

/// What the rule wants done when its service has failed.
fn policy(callout: &CalloutSpec, error: &str) -> Permitted {
    match callout.on_failure {
        OnFailure::Accept => Permitted::default(),
        OnFailure::Tempfail => Permitted::refusing(Reply::SERVICE_UNAVAILABLE),
        OnFailure::Reject => Permitted::refusing(Reply::CONTENT_REFUSED),
        OnFailure::Quarantine => Permitted {
            quarantine: Some(smtp::Quarantine {
                reason: format!("{} failed: {error}", callout.service),
                queue: String::new(),
            }),
            ..Permitted::default()
        },
    }
}

fn without_callout(rule: &Rule) -> StepReport {
    StepReport {
        rule: rule.name.clone(),
        service: String::new(),
        verdict: "no callout".into(),
        reason: String::new(),
        elapsed: Duration::ZERO,
        octets: 0,
        gravity: Some(Gravity::Accept),
        failure: None,
    }
}

fn report(
    rule: &Rule,
    callout: &CalloutSpec,
    verdict: String,
    reason: String,
    elapsed: Duration,
    octets: u64,
) -> StepReport {
    let service = callout.service.clone();
    StepReport {
        rule: rule.name.clone(),
        service,
        verdict,
        reason,
        elapsed,
        octets,
        gravity: Some(Gravity::Accept),
        failure: None,
    }
}

fn count_refused(metrics: &Metrics, rule: &Rule, binding: &Binding, refused: &[Permission]) {
    let now = tokio::time::Instant::now();
    for permission in refused {
        metrics
            .permissions_refused
            .get_or_create(&ByRule {
                rule: rule.name.clone(),
            })
            .inc();
        if let Some(count) = binding.refusals.note(*permission, now) {
            tracing::warn!(
                rule = rule.name,
                permission = permission.name(),
                count,
                "outcome refused: the rule's allow list does not name it, or it means nothing at this point"
            );
        }
    }
}

/// `accept`, `reject 550`, `2 edits`, `rewritten` … with the recipients of each part if there are several; and the services' reasons.
fn describe(parts: &[Part], refused: &[Permission]) -> (String, String) {
    let words = parts.iter().map(|part| match &part.who {
        Who::Rest => part.permitted.to_string(),
        Who::Only(who) => format!("{} recipient(s): {}", who.len(), part.permitted),
    });
    let mut words = words.collect::<Vec<_>>().join("; ");
    if !refused.is_empty() {
        words.push_str(", not allowed in part");
    }
    let reasons = parts.iter().map(|part| part.permitted.reason.as_str());
    let reasons: Vec<&str> = reasons.filter(|reason| !reason.is_empty()).collect();
    (words, reasons.join("; "))
}
