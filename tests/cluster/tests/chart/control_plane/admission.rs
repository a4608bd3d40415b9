//! A real API server: every object of every case is one that it would take, in a namespace that enforces `restricted`.

use anyhow::{Context as _, Result};
use opes_cluster::{Cluster, ControlPlane};
use serde_json::{Value, json};

use crate::cases;
use crate::helm::{NAMESPACE, objects, place, pods, rendered};

/// Kinds of other projects, which a bare API server does not know.
const FOREIGN: [&str; 3] = [
    "cert-manager.io/v1",
    "monitoring.coreos.com/v1",
    "keda.sh/v1alpha1",
];

/// The namespace of the renderings, with the strictest of the pod security standards.
fn restricted(cluster: &Cluster) -> Result<()> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": NAMESPACE, "labels": {
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/enforce-version": "latest",
        } },
    });
    cluster.kubectl_with(&["apply", "-f", "-"], &namespace.to_string())?;
    // Pods are admitted only with their account there.
    for account in [
        "default",
        "opes-operator",
        "opes-edge",
        "mailfilter-operator",
        "mailfilter-edge",
        "theirs",
    ] {
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": account, "namespace": NAMESPACE } });
        cluster.kubectl_with(&["apply", "-f", "-"], &account.to_string())?;
    }
    Ok(())
}

/// A pod as its owner would make it.
fn pod(name: &str, metadata: &Value, spec: &Value) -> Value {
    let mut spec = spec.clone();
    // Of a PriorityClass of the cases' that nobody made.
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("priorityClassName");
        // Set by the StatefulSet itself.
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        let has_spool = volumes
            .as_array()
            .is_some_and(|it| it.iter().any(|it| it["name"] == "spool"));
        if let (false, Some(list)) = (has_spool, volumes.as_array_mut()) {
            list.push(json!({ "name": "spool", "persistentVolumeClaim": { "claimName": "spool-opes-edge-0" } }));
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": metadata["labels"], "annotations": metadata["annotations"] },
        "spec": spec,
    })
}

fn dry_run(cluster: &Cluster, object: &Value) -> Result<String> {
    cluster.kubectl_with(
        &["create", "--dry-run=server", "-f", "-"],
        &object.to_string(),
    )
}

#[tokio::test]
async fn the_api_server_takes_every_object_and_admits_every_pod() -> Result<()> {
    let plane = ControlPlane::start().await?;
    restricted(&plane)?;
    let (mut taken, mut admitted) = (0, 0);
    for case in cases::all()? {
        let objects = objects(&rendered("helm", &case.values())?)?;
        let pods = pods(&objects);
        for (index, found) in pods.iter().enumerate() {
            let pod = pod(&format!("pod-{index}"), found.metadata, found.spec);
            dry_run(&plane, &pod)
                .with_context(|| format!("{}: pod of {}", case.name, place(found.owner)))?;
            admitted += 1;
        }
        let known = objects.iter().filter(|it| {
            let version = it["apiVersion"].as_str().unwrap_or_default();
            let exists = ["ServiceAccount", "Pod"]
                .iter()
                .any(|kind| it["kind"] == *kind);
            !FOREIGN.contains(&version) && !exists
        });
        let list =
            json!({ "apiVersion": "v1", "kind": "List", "items": known.collect::<Vec<_>>() });
        dry_run(&plane, &list).context(case.name)?;
        taken += list["items"].as_array().map_or(0, Vec::len);
    }
    assert!(
        admitted > 25 && taken > 100,
        "{admitted} pods, {taken} objects"
    );
    // And the API server does look: the same pod with one thing less is refused.
    let objects = objects(&rendered("helm", &[])?)?;
    let pods = pods(&objects);
    let first = pods.first().context("no pod")?;
    let mut loose = pod("loose", first.metadata, first.spec);
    loose["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    let said = dry_run(&plane, &loose)
        .err()
        .context("a pod that may gain privileges was admitted")?;
    assert!(format!("{said:#}").contains("restricted"), "{said:#}");
    Ok(())
}
