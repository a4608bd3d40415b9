//! What is said of a service's pool: `Available`, `Progressing`, `ScalingActive`, and `Ready` of all of it.

use kube::api::DynamicObject;
use opes_k8s::status::{condition, reason};
use serde_json::Value;

use super::conditions::{Said, Truth, cut};
use crate::apply::Problem;
use crate::metrics::Reason;
use crate::plan::{Plan, Scaling};

/// Available=False: an owned object could not be written.
pub const APPLY_FAILED: &str = "ApplyFailed";
/// Available=False: an object that the pool needs is somebody else's.
pub const NAME_TAKEN: &str = "NameTaken";
/// ScalingActive=False: KEDA was asked for, and the cluster has none.
pub const KEDA_MISSING: &str = "KedaMissing";

/// Longest message of another controller that is passed on.
const OTHERS_OCTETS_MAX: usize = 512;

/// What is known of a pool.
#[derive(Debug, Clone, Copy, Default)]
pub struct PoolView<'a> {
    /// What was planned; none: it was never accepted.
    pub plan: Option<&'a Plan>,
    /// The Deployment.
    pub deployment: Option<&'a DynamicObject>,
    /// The HorizontalPodAutoscaler or ScaledObject.
    pub scaler: Option<&'a DynamicObject>,
    /// What is in the way.
    pub problem: Option<&'a Problem>,
    /// Instances that have to be ready.
    pub least: u32,
    /// There may be none.
    pub to_zero: bool,
}

// === impl PoolView ===

impl PoolView<'_> {
    /// All conditions besides `Accepted`, which is given.
    pub fn conditions(&self, accepted: &Said) -> Vec<Said> {
        let available = self.available();
        let progressing = self.progressing();
        let scaling = self.scaling();
        let ready = self.ready(accepted, &available, &scaling);
        vec![available, progressing, scaling, ready]
    }

    /// Pods, and pods that are ready; none: there is no pool.
    pub fn counts(&self) -> Option<(i32, i32)> {
        if !self.is_ours() {
            return None;
        }
        let count = |field: &str| {
            let count = self
                .deployment
                .and_then(|deployment| deployment.data["status"][field].as_i64());
            i32::try_from(count.unwrap_or_default()).unwrap_or(i32::MAX)
        };
        Some((count("replicas"), count("readyReplicas")))
    }

    /// The operator runs it.
    pub fn is_ours(&self) -> bool {
        self.plan
            .is_some_and(|plan| plan.scaling != Scaling::NotOurs)
    }

    fn status(&self, field: &str) -> Option<u64> {
        self.deployment?.data["status"][field].as_u64()
    }

    fn available(&self) -> Said {
        let type_ = condition::AVAILABLE;
        if self.plan.is_none() {
            return Said::new(
                type_,
                Truth::Unknown,
                reason::NOT_ACCEPTED,
                "it was never accepted",
            );
        }
        if !self.is_ours() {
            let text = "the operator does not run it; edges see whether it answers";
            return Said::new(type_, Truth::Unknown, reason::NOT_MANAGED, text);
        }
        let available = self.status("availableReplicas").unwrap_or_default();
        if available >= u64::from(self.least.max(1)) {
            return Said::new(
                type_,
                Truth::True,
                reason::INSTANCES_READY,
                "enough instances are ready",
            );
        }
        if let Some(problem) = self.problem {
            let why = if problem.reason == Reason::NameTaken {
                NAME_TAKEN
            } else {
                APPLY_FAILED
            };
            return Said::new(type_, Truth::False, why, problem.message.clone());
        }
        let wanted = self
            .deployment
            .and_then(|deployment| deployment.data["spec"]["replicas"].as_u64());
        if self.to_zero && wanted == Some(0) {
            return Said::new(
                type_,
                Truth::True,
                reason::SCALED_TO_ZERO,
                "nothing is asked of it",
            );
        }
        let text = if available > 0 {
            "fewer instances are ready than spec.pool.pdb.minAvailable"
        } else {
            "no instance is ready; look at its pods"
        };
        Said::new(type_, Truth::False, reason::NO_INSTANCES, text)
    }

    fn progressing(&self) -> Said {
        let type_ = condition::PROGRESSING;
        let Some(deployment) = self.deployment.filter(|_| self.is_ours()) else {
            if self.is_ours() {
                return Said::new(
                    type_,
                    Truth::True,
                    reason::ROLLING_OUT,
                    "the pool is being made",
                );
            }
            return Said::new(
                type_,
                Truth::False,
                reason::NOT_MANAGED,
                "the operator does not run it",
            );
        };
        let stalled =
            other(&deployment.data, "Progressing").filter(|said| said["status"] == "False");
        if let Some(said) = stalled {
            return Said::new(type_, Truth::False, reason::STALLED, text_of(said)).sticky();
        }
        let all = self.status("replicas").unwrap_or_default();
        let updated = self.status("updatedReplicas").unwrap_or_default();
        if self.status("observedGeneration").is_none() || updated < all {
            return Said::new(
                type_,
                Truth::True,
                reason::ROLLING_OUT,
                "pods are being replaced",
            );
        }
        Said::new(
            type_,
            Truth::False,
            reason::UP_TO_DATE,
            "what runs is what is written",
        )
    }

    fn scaling(&self) -> Said {
        let type_ = condition::SCALING_ACTIVE;
        let Some(plan) = self.plan else {
            return Said::new(
                type_,
                Truth::Unknown,
                reason::NOT_ACCEPTED,
                "it was never accepted",
            );
        };
        match plan.scaling {
            Scaling::NotOurs => Said::new(
                type_,
                Truth::False,
                reason::NOT_MANAGED,
                "the operator does not run it",
            ),
            Scaling::Fixed => Said::new(
                type_,
                Truth::False,
                reason::SCALING_OFF,
                "spec.pool.engine is none: spec.replicas decides",
            ),
            Scaling::KedaMissing => {
                let text = "spec.pool.engine: the cluster has no KEDA (keda.sh/v1alpha1); install it, or write hpa. Until then there are spec.pool.min instances";
                Said::new(type_, Truth::False, KEDA_MISSING, text)
            }
            Scaling::NoMetrics => {
                let text = "spec.pool.engine: the cluster has no CPU metrics, and the operator's metricsApi is off; there are spec.pool.min instances";
                Said::new(type_, Truth::False, reason::NO_METRICS, text)
            }
            Scaling::Hpa => self.scaler_says("ScalingActive"),
            Scaling::Keda => self.scaler_says("Ready"),
        }
    }

    /// What the autoscaler says of itself.
    fn scaler_says(&self, its: &str) -> Said {
        let type_ = condition::SCALING_ACTIVE;
        let said = self.scaler.and_then(|scaler| other(&scaler.data, its));
        match said.map(|said| (said, said["status"].as_str().unwrap_or_default())) {
            Some((_, "True")) => Said::new(
                type_,
                Truth::True,
                reason::SCALING,
                "the autoscaler has figures",
            ),
            Some((said, "False")) => {
                let zero = said["reason"] == "ScalingDisabled";
                let why = if zero {
                    reason::SCALING_OFF
                } else {
                    reason::NO_METRICS
                };
                Said::new(type_, Truth::False, why, text_of(said)).sticky()
            }
            _ => Said::new(
                type_,
                Truth::Unknown,
                reason::SCALING_PENDING,
                "the autoscaler has not said anything yet",
            ),
        }
    }

    /// Scaling is not of it: a pool without figures works, and says so elsewhere. KEDA that is missing was asked for.
    fn ready(&self, accepted: &Said, available: &Said, scaling: &Said) -> Said {
        let type_ = condition::READY;
        if accepted.truth != Truth::True {
            return Said::new(type_, Truth::False, reason::NOT_ACCEPTED, "see Accepted");
        }
        if !self.is_ours() {
            return Said::new(
                type_,
                Truth::True,
                reason::READY,
                "edges call it where it is",
            );
        }
        if scaling.reason == KEDA_MISSING {
            return Said::new(type_, Truth::False, KEDA_MISSING, "see ScalingActive");
        }
        match available.truth {
            Truth::True => Said::new(type_, Truth::True, reason::READY, "it can be called"),
            Truth::False | Truth::Unknown => {
                Said::new(type_, Truth::False, reason::NOT_READY, "see Available")
            }
        }
    }
}

/// A condition of another controller's object.
fn other<'v>(data: &'v Value, type_: &str) -> Option<&'v Value> {
    let conditions = data["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == type_)
}

fn text_of(said: &Value) -> String {
    let field = |name: &str| said[name].as_str().unwrap_or_default();
    cut(
        &format!("{}: {}", field("reason"), field("message")),
        OTHERS_OCTETS_MAX,
    )
}

#[cfg(test)]
mod tests {
    use kube::api::ApiResource;
    use serde_json::json;

    use super::*;
    use crate::kinds::Kind;

    fn object(kind: Kind, data: Value) -> DynamicObject {
        let resource: ApiResource = kind.resource();
        let mut object = DynamicObject::new("opes-scan", &resource);
        object.data = data;
        object
    }

    fn plan(scaling: Scaling) -> Plan {
        Plan {
            scaling,
            ..Plan::default()
        }
    }

    fn accepted() -> Said {
        Said::new(condition::ACCEPTED, Truth::True, reason::ACCEPTED, "")
    }

    fn said(view: &PoolView<'_>) -> Vec<(Truth, String)> {
        view.conditions(&accepted())
            .into_iter()
            .map(|said| (said.truth, said.reason))
            .collect()
    }

    #[test]
    fn a_service_that_runs_elsewhere_is_ready_when_it_is_accepted() {
        let plan = plan(Scaling::NotOurs);
        let view = PoolView {
            plan: Some(&plan),
            ..PoolView::default()
        };
        let expected = [
            (Truth::Unknown, reason::NOT_MANAGED),
            (Truth::False, reason::NOT_MANAGED),
            (Truth::False, reason::NOT_MANAGED),
            (Truth::True, reason::READY),
        ];
        assert_eq!(
            said(&view),
            expected.map(|(truth, why)| (truth, why.to_owned()))
        );
        assert_eq!(view.counts(), None);
    }

    #[test]
    fn a_pool_goes_from_nothing_to_ready() {
        let plan = plan(Scaling::Hpa);
        let mut view = PoolView {
            plan: Some(&plan),
            least: 1,
            ..PoolView::default()
        };
        assert_eq!(
            said(&view)[0],
            (Truth::False, reason::NO_INSTANCES.to_owned())
        );
        assert_eq!(
            said(&view)[1],
            (Truth::True, reason::ROLLING_OUT.to_owned())
        );
        assert_eq!(
            said(&view)[2],
            (Truth::Unknown, reason::SCALING_PENDING.to_owned())
        );
        assert_eq!(said(&view)[3], (Truth::False, reason::NOT_READY.to_owned()));
        let status = json!({ "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2 });
        let deployment = object(
            Kind::Deployment,
            json!({ "spec": { "replicas": 2 }, "status": status }),
        );
        let scaling =
            json!({ "status": { "conditions": [{ "type": "ScalingActive", "status": "True" }] } });
        let scaler = object(Kind::HorizontalPodAutoscaler, scaling);
        view.deployment = Some(&deployment);
        view.scaler = Some(&scaler);
        let truths: Vec<Truth> = said(&view).into_iter().map(|(truth, _)| truth).collect();
        assert_eq!(
            truths,
            [Truth::True, Truth::False, Truth::True, Truth::True]
        );
        assert_eq!(view.counts(), Some((2, 2)));
    }

    #[test]
    fn what_is_in_the_way_is_said() {
        let plan = plan(Scaling::KedaMissing);
        let problem = Problem {
            reason: Reason::NameTaken,
            message: "taken".into(),
        };
        let view = PoolView {
            plan: Some(&plan),
            problem: Some(&problem),
            least: 1,
            ..PoolView::default()
        };
        assert_eq!(said(&view)[0], (Truth::False, NAME_TAKEN.to_owned()));
        assert_eq!(said(&view)[2], (Truth::False, KEDA_MISSING.to_owned()));
        assert_eq!(said(&view)[3], (Truth::False, KEDA_MISSING.to_owned()));
    }

    #[test]
    fn scaled_to_zero_is_available_only_where_it_may_be() {
        let plan = plan(Scaling::Keda);
        let deployment = object(
            Kind::Deployment,
            json!({ "spec": { "replicas": 0 }, "status": { "observedGeneration": 1 } }),
        );
        let mut view = PoolView {
            plan: Some(&plan),
            deployment: Some(&deployment),
            least: 1,
            ..PoolView::default()
        };
        assert_eq!(said(&view)[0].0, Truth::False);
        view.to_zero = true;
        assert_eq!(
            said(&view)[0],
            (Truth::True, reason::SCALED_TO_ZERO.to_owned())
        );
    }

    #[test]
    fn a_roll_out_that_is_stuck_says_why() {
        let plan = plan(Scaling::Fixed);
        let stuck = json!([{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "no image" }]);
        let deployment = object(
            Kind::Deployment,
            json!({ "status": { "observedGeneration": 1, "conditions": stuck } }),
        );
        let view = PoolView {
            plan: Some(&plan),
            deployment: Some(&deployment),
            ..PoolView::default()
        };
        let said = view.conditions(&accepted());
        assert_eq!(
            (said[1].truth, said[1].reason.as_str()),
            (Truth::False, reason::STALLED)
        );
        assert!(said[1].message.contains("no image"));
        assert_eq!(said[2].reason, reason::SCALING_OFF);
    }
}
