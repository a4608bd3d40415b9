//! What is said of an object's text: `Accepted`, and of a rule `ResolvedRefs`.

use opes_k8s::status::{condition, reason};
use opes_rules::compile::{Fault, FaultKind, Outcome, Runs};
use opes_rules::object::Resource;

use super::conditions::{Said, Truth, message};
use crate::index::{Evaluation, Finding};
use crate::shared::ObjectKey;
use crate::world::Seen;

/// Programmed=False: the rule's `onFailure` runs in its place.
pub const STAND_IN: &str = "StandIn";
/// Programmed=False: what was accepted last runs in its place.
pub const LAST_ACCEPTED: &str = "LastAccepted";

/// `Accepted` of a rule or service.
pub fn accepted(finding: &Finding) -> Said {
    let type_ = condition::ACCEPTED;
    let faults = &finding.judgement.faults;
    let error = faults
        .iter()
        .find(|fault| fault.is_error() && fault.kind != FaultKind::Reference);
    if let Some(fault) = error {
        let why = reason_of(finding, fault);
        let text = format!("{}; {}", message(&fault.diagnostic), what_runs(finding));
        return Said::new(type_, Truth::False, why, text);
    }
    match finding.judgement.outcome {
        Outcome::Accepted | Outcome::StandIn(_) => {
            let warnings: Vec<String> = faults
                .iter()
                .filter(|fault| !fault.is_error())
                .map(|fault| message(&fault.diagnostic))
                .collect();
            let text = if warnings.is_empty() {
                "it is right as it is written".to_owned()
            } else {
                format!("warning: {}", warnings.join("; "))
            };
            Said::new(type_, Truth::True, reason::ACCEPTED, text)
        }
        Outcome::LastAccepted | Outcome::LeftOut => {
            Said::new(type_, Truth::False, reason::INVALID, what_runs(finding))
        }
    }
}

fn reason_of(finding: &Finding, fault: &Fault) -> &'static str {
    match fault.kind {
        _ if finding.not_permitted.is_some() => reason::NOT_PERMITTED,
        FaultKind::Conflict { .. } => reason::CONFLICTED,
        FaultKind::Syntax | FaultKind::Other | FaultKind::Reference => reason::INVALID,
    }
}

fn what_runs(finding: &Finding) -> String {
    match (finding.judgement.runs, &finding.accepted) {
        (Runs::LastAccepted, Some(accepted)) => format!("generation {} runs", accepted.generation),
        (Runs::LastAccepted, None) => "what was accepted last runs".to_owned(),
        (Runs::Written, _) => "it runs".to_owned(),
        (Runs::Nothing, _) => "it does not run".to_owned(),
    }
}

/// `ResolvedRefs` of a rule.
pub fn resolved(seen: &Seen, finding: &Finding, evaluation: &Evaluation) -> Said {
    let type_ = condition::RESOLVED_REFS;
    let Some(object) = &seen.parsed.object else {
        return Said::new(
            type_,
            Truth::Unknown,
            reason::INVALID,
            "what it refers to could not be read",
        );
    };
    let fault = finding
        .judgement
        .faults
        .iter()
        .find(|fault| fault.kind == FaultKind::Reference && fault.is_error());
    let Some(fault) = fault else {
        return Said::new(
            type_,
            Truth::True,
            reason::RESOLVED_REFS,
            "what it refers to is there",
        );
    };
    let service = match &object.resource {
        Resource::OpesRule(rule) => rule
            .spec
            .callout
            .as_ref()
            .map(|callout| format!("{}/{}", rule.metadata.namespace, callout.service_ref.name)),
        Resource::CalloutService(_) => None,
    };
    let known = service.is_some_and(|name| {
        evaluation.findings.contains_key(&ObjectKey {
            kind: "CalloutService",
            name,
        })
    });
    let why = if known {
        reason::BACKEND_NOT_ACCEPTED
    } else {
        reason::BACKEND_NOT_FOUND
    };
    Said::new(type_, Truth::False, why, message(&fault.diagnostic))
}

/// `Programmed` of a rule that is not in the table as it is written; none: it is.
pub fn not_as_written(finding: &Finding) -> Option<Said> {
    let type_ = condition::PROGRAMMED;
    let said = match (finding.judgement.outcome, finding.judgement.runs) {
        (Outcome::StandIn(on_failure), Runs::Nothing) => {
            let text = format!(
                "it has nothing to do at its points while its service is missing (onFailure: {})",
                on_failure.name()
            );
            Said::new(type_, Truth::False, STAND_IN, text)
        }
        (Outcome::StandIn(on_failure), _) => {
            let text = format!(
                "its onFailure ({}) runs in its place; see ResolvedRefs",
                on_failure.name()
            );
            Said::new(type_, Truth::False, STAND_IN, text)
        }
        (Outcome::LeftOut, _) | (_, Runs::Nothing) => Said::new(
            type_,
            Truth::False,
            reason::NOT_ACCEPTED,
            "it does not run; see Accepted",
        ),
        (Outcome::LastAccepted, _) | (_, Runs::LastAccepted) => {
            let text = format!("{}; see Accepted", what_runs(finding));
            Said::new(type_, Truth::False, LAST_ACCEPTED, text)
        }
        (Outcome::Accepted, Runs::Written) => return None,
    };
    Some(said)
}
