//! What runs in place of a rule that cannot call its service.

use crate::object::{Action, Object, OpesRule, OpesRuleSpec, ReplySpec, Resource, STAND_IN};
use crate::point::{Class, OnFailure, Point};

/// As an edge says it when a service does not answer (RFC 3463 §3.4).
const UNAVAILABLE: &str = "A service needed for this message is unavailable; try again later";
const UNAVAILABLE_CODE: &str = "4.3.0";

/// Policy of a rule whose service has this class, as far as that is known: nobody waits for observers.
pub(super) fn policy(rule: &OpesRule, class: Option<Class>) -> OnFailure {
    let written = rule.spec.callout.as_ref().and_then(|call| call.on_failure);
    match class {
        Some(Class::Observe) => OnFailure::Accept,
        _ => written.unwrap_or_default(),
    }
}

/// The rule with its failure as an action; `None` where it is looked at after everything is settled.
pub(super) fn of(rule: &OpesRule, instead_of: &Object, policy: OnFailure) -> Option<Object> {
    let callout = rule.spec.callout.as_ref()?;
    let open = |point: &&Point| !point.observe_only();
    let at: Vec<Point> = rule.spec.at.iter().filter(open).copied().collect();
    if at.is_empty() {
        return None;
    }
    let action = match policy {
        OnFailure::Accept => Action::Continue {},
        OnFailure::Reject => Action::Reject(ReplySpec::default()),
        OnFailure::Quarantine if at.iter().all(|point| point.admits_failure(policy)) => {
            Action::Quarantine {
                reason: format!("{} is unavailable", callout.service_ref.name),
            }
        }
        OnFailure::Tempfail | OnFailure::Quarantine => tempfail(),
    };
    let mut metadata = rule.metadata.clone();
    metadata.labels.clear();
    metadata.annotations.clear();
    metadata.annotations.insert(STAND_IN.into(), "true".into());
    Some(Object {
        origin: instead_of.origin.clone(),
        resource: Resource::OpesRule(Box::new(OpesRule {
            metadata,
            spec: OpesRuleSpec {
                at,
                callout: None,
                action: Some(action),
                ..rule.spec.clone()
            },
        })),
    })
}

fn tempfail() -> Action {
    Action::Tempfail(ReplySpec {
        enhanced: Some(UNAVAILABLE_CODE.into()),
        text: Some(UNAVAILABLE.into()),
        ..ReplySpec::default()
    })
}
