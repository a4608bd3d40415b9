//! One rule's callout, from request to a permitted outcome, with its failure policy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use opes_callout_client::{CalloutError, ContentWant, Request};
use opes_content::View;
use opes_proto::smtp;
use opes_rules::{CalloutSpec, OnFailure, Permission, Rule};
use opes_smtp::reply::Reply;

use crate::context;
use crate::metrics::{ByCallout, ByRule, ByService, CalloutLabel, Metrics};
use crate::outcome::{Permitted, Verdict, permit};
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
    pub(crate) permitted: Permitted,
    pub(crate) report: StepReport,
}

/// Runs the callout of `rule`. Never fails: a failure becomes what the rule's policy says.
pub(crate) async fn run(
    routing: &Routing,
    metrics: &Metrics,
    rule: &Rule,
    subject: Subject,
) -> StepResult {
    let (Some(callout), Some(binding)) = (&rule.callout, routing.binding(rule)) else {
        return without_callout(rule);
    };
    let (started, point) = (Instant::now(), subject.point);
    let answer = ask(binding, callout, subject, metrics).await;
    let elapsed = started.elapsed();
    match answer {
        Ok(answer) => {
            let octets = answer.octets_sent + answer.octets_received;
            let permitted = permit(answer, callout.allow, point);
            count_refused(metrics, rule, &permitted.refused);
            let verdict = describe(&permitted);
            let report = report(
                rule,
                callout,
                verdict,
                permitted.reason.clone(),
                elapsed,
                octets,
            );
            StepResult { permitted, report }
        }
        Err(error) => failed(rule, callout, &error, elapsed),
    }
}

async fn ask(
    binding: &Binding,
    callout: &CalloutSpec,
    subject: Subject,
    metrics: &Metrics,
) -> Result<opes_callout_client::Answer, CalloutError> {
    let by_service = ByService {
        service: callout.service.clone(),
    };
    let inflight = metrics.callout_inflight.get_or_create(&by_service).clone();
    let _open = InFlight::new(inflight);
    let started = Instant::now();
    let context = match &subject.view {
        Some(view) => context::complete(&binding.client, &subject.context, view).await,
        None => Ok(subject.context),
    };
    let answer = match context {
        Ok(context) => {
            let request = Request {
                group: Arc::clone(&binding.group),
                point: subject.point,
                command_line: subject.command_line,
                context,
                content: subject.view,
                content_want: content_want(callout.wants),
                timeout: callout.timeout,
                traceparent: String::new(),
            };
            binding.client.run(request).await
        }
        Err(error) => Err(error),
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
    error: &CalloutError,
    elapsed: Duration,
) -> StepResult {
    tracing::warn!(rule = rule.name, service = callout.service, %error, "callout failed");
    let mut permitted = Permitted::default();
    match callout.on_failure {
        OnFailure::Accept => {}
        OnFailure::Tempfail => permitted.verdict = Verdict::Refuse(Reply::SERVICE_UNAVAILABLE),
        OnFailure::Reject => permitted.verdict = Verdict::Refuse(Reply::CONTENT_REFUSED),
        OnFailure::Quarantine => {
            let reason = format!("{} failed: {error}", callout.service);
            permitted.quarantine = Some(smtp::Quarantine {
                reason,
                queue: String::new(),
            });
        }
    }
    let verdict = format!("{:?} → {}", label(error), callout.on_failure.name()).to_lowercase();
    let report = report(rule, callout, verdict, error.to_string(), elapsed, 0);
    StepResult { permitted, report }
}

fn without_callout(rule: &Rule) -> StepResult {
    let report = StepReport {
        rule: rule.name.clone(),
        service: String::new(),
        verdict: "no callout".into(),
        reason: String::new(),
        elapsed: Duration::ZERO,
        octets: 0,
    };
    StepResult {
        permitted: Permitted::default(),
        report,
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
    }
}

fn count_refused(metrics: &Metrics, rule: &Rule, refused: &[Permission]) {
    for permission in refused {
        metrics
            .permissions_refused
            .get_or_create(&ByRule {
                rule: rule.name.clone(),
            })
            .inc();
        tracing::warn!(
            rule = rule.name,
            permission = permission.name(),
            "outcome refused: the rule's allow list does not name it"
        );
    }
}

/// `accept`, `reject 550`, `2 edits`, `rewritten` …
fn describe(permitted: &Permitted) -> String {
    let mut words = Vec::new();
    match &permitted.verdict {
        Verdict::Accept => {}
        Verdict::Refuse(reply) if reply.is_permanent() => {
            words.push(format!("reject {}", reply.code()));
        }
        Verdict::Refuse(reply) => words.push(format!("tempfail {}", reply.code())),
        Verdict::Discard => words.push("discard".into()),
    }
    match permitted.edits.len() {
        0 => {}
        1 => words.push("1 edit".into()),
        count => words.push(format!("{count} edits")),
    }
    let has = [
        (permitted.adapted.is_some(), "rewritten"),
        (permitted.command_line.is_some(), "command rewritten"),
        (permitted.sender.is_some(), "sender changed"),
        (!permitted.recipients.is_empty(), "recipients changed"),
        (permitted.quarantine.is_some(), "quarantine"),
        (!permitted.refused.is_empty(), "not allowed in part"),
    ];
    words.extend(
        has.into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, word)| word.to_owned()),
    );
    if words.is_empty() {
        "accept".into()
    } else {
        words.join(", ")
    }
}
