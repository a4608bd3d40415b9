//! One request: apply or delete.

use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde_json::json;

use super::{Action, Inputs, ObjectId, Outcome, Problem};
use crate::kinds::{Kind, MANAGED_BY, MANAGER, SERVICE_LABEL};
use crate::metrics::{Part, Reason};
use crate::plan::{FIXED_REPLICAS, Planned};

/// For one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Field manager that keeps `replicas` as they are when something else begins to scale, until it says otherwise.
const HANDOVER: &str = "opes-operator-replicas";

pub(super) async fn perform(inputs: &Inputs, action: &Action) -> Outcome {
    if !*inputs.leading.borrow() {
        return Outcome::NotLeading;
    }
    let request = async {
        match action {
            Action::Apply { planned, live, uid } => {
                apply(inputs, planned, live.as_deref(), uid).await
            }
            Action::Delete { id, uid } => delete(inputs, id, uid).await,
        }
    };
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(Problem {
            reason: Reason::of(&error),
            message: said(&error),
        }),
        Err(_) => Outcome::Failed(Problem {
            reason: Reason::Timeout,
            message: "the API server did not answer in time".into(),
        }),
    }
}

async fn apply(
    inputs: &Inputs,
    planned: &Planned,
    live: Option<&DynamicObject>,
    uid: &str,
) -> Result<Outcome, kube::Error> {
    let api = api(inputs, planned.kind, &planned.namespace);
    if live.is_none()
        && let Some(there) = api.get_opt(&planned.name).await?
    {
        if is_ours(&there, planned, uid) {
            return Ok(Outcome::Seen(Box::new(there)));
        }
        let message = format!(
            "{} {} is somebody else's; rename the service, or remove it",
            planned.kind.name(),
            planned.name
        );
        return Ok(Outcome::Failed(Problem {
            reason: Reason::NameTaken,
            message,
        }));
    }
    if let Some(live) = live {
        hand_over_replicas(inputs, &api, planned, live).await?;
    }
    inputs.metrics.wrote(Part::Apply);
    let parameters = PatchParams::apply(MANAGER).force();
    let written = api
        .patch(&planned.name, &parameters, &Patch::Apply(&planned.document))
        .await?;
    tracing::info!(
        kind = planned.kind.name(),
        namespace = planned.namespace,
        name = planned.name,
        "applied"
    );
    Ok(Outcome::Written(Box::new(written)))
}

/// An object that lost its labels is not seen by the watch, and is ours all the same.
fn is_ours(there: &DynamicObject, planned: &Planned, uid: &str) -> bool {
    let owned = there
        .owner_references()
        .iter()
        .any(|owner| owner.uid == uid);
    let service = planned.document["metadata"]["labels"][SERVICE_LABEL].as_str();
    let label = |key: &str| there.labels().get(key).map(String::as_str);
    owned || (label(MANAGED_BY) == Some(MANAGER) && label(SERVICE_LABEL) == service)
}

/// A field that nobody owns any more falls back to its default, and a pool of many to one instance.
async fn hand_over_replicas(
    inputs: &Inputs,
    api: &Api<DynamicObject>,
    planned: &Planned,
    live: &DynamicObject,
) -> Result<(), kube::Error> {
    let fixed = live.annotations().contains_key(FIXED_REPLICAS);
    let wanted = planned.document["spec"]["replicas"].is_number();
    if planned.kind != Kind::Deployment || !fixed || wanted {
        return Ok(());
    }
    let kept = json!({
        "apiVersion": planned.kind.api_version(),
        "kind": planned.kind.name(),
        "metadata": { "name": planned.name, "namespace": planned.namespace },
        "spec": { "replicas": live.data["spec"]["replicas"] },
    });
    inputs.metrics.wrote(Part::Apply);
    api.patch(
        &planned.name,
        &PatchParams::apply(HANDOVER).force(),
        &Patch::Apply(&kept),
    )
    .await
    .map(|_| ())
}

async fn delete(inputs: &Inputs, id: &ObjectId, uid: &str) -> Result<Outcome, kube::Error> {
    let (namespace, name) = id.1.split_once('/').unwrap_or_default();
    let precondition = Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    };
    let parameters = DeleteParams::background().preconditions(precondition);
    inputs.metrics.wrote(Part::Apply);
    match api(inputs, id.0, namespace).delete(name, &parameters).await {
        Ok(_) => {
            tracing::info!(
                kind = id.0.name(),
                namespace,
                name,
                "deleted: not wanted any more"
            );
            Ok(Outcome::Gone)
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Outcome::Gone),
        Err(error) => Err(error),
    }
}

fn api(inputs: &Inputs, kind: Kind, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(inputs.client.clone(), namespace, &kind.resource())
}

/// For people: what the API server said, without the rest.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}
