//! Events: what `kubectl describe` shows of transitions. Only of transitions, and each once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use opes_k8s::status::{condition, reason};
use opes_rules::object::API_VERSION;
use tokio::time::Instant;

use crate::metrics::{Metrics, Part, Reason};
use crate::status::conditions::{cut, find};
use crate::world::Seen;

/// The same of the same object is not told again within this time.
const SAME: Duration = Duration::from_mins(10);
/// Most that is remembered for that.
const REMEMBERED_MAX: usize = 10_000;
/// Longest text, by the API.
const NOTE_OCTETS_MAX: usize = 1_000;
/// Names have at most 253 octets, of which the time has up to 20.
const NAME_OCTETS_MAX: usize = 200;
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Conditions of which something is told. The others follow from them, or are told by other controllers.
const TOLD: [&str; 4] = [
    condition::ACCEPTED,
    condition::RESOLVED_REFS,
    condition::PROGRAMMED,
    condition::READY,
];

/// Tells of transitions. Clones share what was told.
#[derive(Clone)]
pub struct Events {
    client: Client,
    instance: String,
    told: Arc<Mutex<BTreeMap<Told, Instant>>>,
    metrics: Metrics,
}

/// uid, type and reason of a condition.
type Told = (String, String, String);

/// A transition that is worth telling of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// It is bad.
    pub warning: bool,
    /// Type of the condition.
    pub type_: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub note: String,
}

/// What has become bad, or good again. What is new and good is nothing to tell of: a thousand rules would be a thousand events.
pub fn transitions(before: &[Condition], after: &[Condition]) -> Vec<Transition> {
    let told = after
        .iter()
        .filter(|now| TOLD.contains(&now.type_.as_str()));
    let changed = told.filter_map(|now| {
        let was = find(before, &now.type_);
        let turned_bad =
            is_news(now) && was.is_none_or(|was| was.status != "False" || was.reason != now.reason);
        let turned_good = now.status == "True" && was.is_some_and(is_news);
        // Something that is being made is not ready at first.
        let first = now.type_ == condition::READY && was.is_none_or(|was| was.status != "True");
        (turned_good || (turned_bad && !first)).then(|| Transition {
            warning: turned_bad,
            type_: now.type_.clone(),
            reason: if turned_bad {
                now.reason.clone()
            } else {
                now.type_.clone()
            },
            note: now.message.clone(),
        })
    });
    changed.collect()
}

/// It is bad, and does not follow from what another condition says.
fn is_news(said: &Condition) -> bool {
    let of_edges = [reason::PENDING, reason::REFUSED].contains(&said.reason.as_str());
    said.status == "False" && (said.type_ != condition::PROGRAMMED || of_edges)
}

// === impl Events ===

impl Events {
    /// As this replica.
    pub fn new(client: Client, instance: &str, metrics: Metrics) -> Self {
        Self {
            client,
            instance: instance.to_owned(),
            told: Arc::default(),
            metrics,
        }
    }

    /// Tells of what has changed. An event that cannot be written is lost: the condition says the same.
    pub async fn transitions(&self, seen: &Seen, before: &[Condition], after: &[Condition]) {
        for transition in transitions(before, after) {
            if self.is_new(seen, &transition) {
                self.tell(seen, &transition).await;
            }
        }
    }

    fn is_new(&self, seen: &Seen, transition: &Transition) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.duration_since(*at) < SAME);
        let key = (
            seen.uid.clone(),
            transition.type_.clone(),
            format!("{} {}", transition.reason, transition.note),
        );
        if told.len() >= REMEMBERED_MAX || told.contains_key(&key) {
            return false;
        }
        told.insert(key, now);
        true
    }

    async fn tell(&self, seen: &Seen, transition: &Transition) {
        let event = self.event(seen, transition, Timestamp::now());
        let api: Api<Event> = Api::namespaced(self.client.clone(), seen.namespace());
        self.metrics.wrote(Part::Event);
        let parameters = PostParams::default();
        let request = api.create(&parameters, &event);
        let reason = match tokio::time::timeout(TIMEOUT, request).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "event could not be written");
                Reason::of(&error)
            }
            Err(_) => Reason::Timeout,
        };
        self.metrics.failed(Part::Event, reason);
    }

    fn event(&self, seen: &Seen, transition: &Transition, now: Timestamp) -> Event {
        let name = cut(seen.name(), NAME_OCTETS_MAX);
        Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}.{:x}",
                    name.trim_end_matches(['.', '-']),
                    now.as_nanosecond()
                )),
                namespace: Some(seen.namespace().to_owned()),
                ..ObjectMeta::default()
            },
            action: Some(transition.type_.clone()),
            reason: Some(transition.reason.clone()),
            note: Some(cut(&transition.note, NOTE_OCTETS_MAX)),
            type_: Some(
                if transition.warning {
                    "Warning"
                } else {
                    "Normal"
                }
                .into(),
            ),
            event_time: Some(MicroTime(now)),
            regarding: Some(ObjectReference {
                api_version: Some(API_VERSION.into()),
                kind: Some(seen.key.kind.into()),
                name: Some(seen.name().to_owned()),
                namespace: Some(seen.namespace().to_owned()),
                uid: Some(seen.uid.clone()),
                resource_version: Some(seen.resource_version.clone()),
                field_path: None,
            }),
            reporting_controller: Some("opes.dev/operator".into()),
            reporting_instance: Some(cut(&self.instance, 128)),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::conditions::{Said, Truth};

    fn conditions(type_: &'static str, truth: Truth, reason: &str) -> Vec<Condition> {
        vec![Said::new(type_, truth, reason, "why").after(None, 1, Timestamp::UNIX_EPOCH)]
    }

    #[test]
    fn only_what_turns_bad_or_good_again_is_told() {
        let accepted = |truth, reason| conditions(condition::ACCEPTED, truth, reason);
        let (yes, no, other) = (
            accepted(Truth::True, "Accepted"),
            accepted(Truth::False, "Invalid"),
            accepted(Truth::False, "Conflicted"),
        );
        assert_eq!(
            transitions(&[], &yes).len(),
            0,
            "a thousand rules are not a thousand events"
        );
        assert_eq!(transitions(&yes, &yes).len(), 0);
        assert_eq!(transitions(&no, &no).len(), 0);
        for (before, after, warning) in [
            (&[][..], &no, true),
            (&yes, &no, true),
            (&no, &other, true),
            (&no, &yes, false),
        ] {
            let told = transitions(before, after);
            assert_eq!(told.len(), 1, "{before:?} {after:?}");
            assert_eq!(told[0].warning, warning);
        }
    }

    #[test]
    fn a_pool_that_is_being_made_is_no_news() {
        let ready = |truth, reason| conditions(condition::READY, truth, reason);
        let (yes, no) = (ready(Truth::True, "Ready"), ready(Truth::False, "NotReady"));
        assert_eq!(transitions(&[], &no).len(), 0);
        assert_eq!(transitions(&no, &yes).len(), 1);
        assert_eq!(transitions(&yes, &no).len(), 1);
    }
}
