//! What is made for services, repaired, shared with others, and taken away.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use opes_cluster::{ControlPlane, DEADLINE, eventually};
use opes_operator::kinds::Kind;
use serde_json::json;

use super::{POOL, RULE, SERVICE, calls, until};
use crate::bed::{Bed, owners_of};

/// Within which what was deleted or changed is put right, on a machine that is busy with other things.
const REPAIRED: Duration = Duration::from_mins(1);
/// Within which half of it is.
const REPAIRED_USUALLY: Duration = Duration::from_secs(5);

/// What is made for a pool that an HPA scales.
const MADE: [Kind; 7] = [
    Kind::ServiceAccount,
    Kind::ConfigMap,
    Kind::Service,
    Kind::NetworkPolicy,
    Kind::Deployment,
    Kind::PodDisruptionBudget,
    Kind::HorizontalPodAutoscaler,
];

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one story, told in order")]
async fn owned_objects_are_made_repaired_and_shared() -> Result<()> {
    let bed = Bed::new(ControlPlane::shared().await?).await?;
    // The fixture's operators serve no load and the cluster has no CPU metrics, so that there would be nothing to scale by.
    let operator = bed
        .start_with(
            "a",
            "metricsApi: { enabled: auto, listen: '127.0.0.1:0' }\n",
        )
        .await?;
    bed.service("scan", POOL).await?;
    for kind in MADE {
        let object = until(&bed, kind, "opes-scan", DEADLINE, |_| true).await?;
        assert_eq!(object.owner_references()[0].name, "scan", "{}", kind.name());
    }
    let secret = bed
        .plane
        .kubectl(&["get", "secret", "-n", &bed.namespace, "-o", "name"])?;
    eventually("the pool's certificate", DEADLINE, || async {
        Ok(bed
            .plane
            .kubectl(&["get", "secret", "opes-scan-tls", "-n", &bed.namespace])
            .ok())
    })
    .await
    .with_context(|| secret.clone())?;
    let made = bed.plane.kubectl(&[
        "get",
        "secret",
        "opes-scan-tls",
        "-n",
        &bed.namespace,
        "-o",
        r"jsonpath={.metadata.annotations.opes\.dev/not-after}",
    ])?;
    until(&bed, SERVICE, "scan", DEADLINE, |service| {
        let said = service.data["status"]["certificateNotAfter"].as_str();
        said.and_then(|said| said.parse::<Timestamp>().ok())
            .is_some_and(|end| end.as_second().to_string() == made)
    })
    .await?;
    // A rule of the same name is another object, and has no certificate.
    bed.rule("scan", &calls("scan")).await?;
    bed.expect(RULE, "scan", "Accepted", "True", "Accepted")
        .await?;
    bed.expect(RULE, "scan", "ResolvedRefs", "True", "ResolvedRefs")
        .await?;

    // Nobody but the autoscaler says how many.
    let deployment = until(&bed, Kind::Deployment, "opes-scan", DEADLINE, |_| true).await?;
    assert!(owners_of(&deployment, "/f:spec/f:template").contains(&"opes-operator".to_owned()));
    assert!(!owners_of(&deployment, "/f:spec/f:replicas").contains(&"opes-operator".to_owned()));
    bed.plane.kubectl(&[
        "scale",
        "deployment",
        "opes-scan",
        "-n",
        &bed.namespace,
        "--replicas=7",
    ])?;

    // What is deleted comes back.
    let mut times = Vec::new();
    for kind in MADE {
        let api = bed.api(kind)?;
        let before = api.get("opes-scan").await?.uid();
        let deleted = Instant::now();
        api.delete("opes-scan", &DeleteParams::background()).await?;
        until(&bed, kind, "opes-scan", REPAIRED, |object| {
            object.uid() != before && object.metadata.deletion_timestamp.is_none()
        })
        .await?;
        times.push(deleted.elapsed());
    }
    times.sort();
    println!("repaired after {times:.1?}");
    assert!(times[times.len() / 2] < REPAIRED_USUALLY, "{times:?}");
    bed.plane.kubectl(&[
        "scale",
        "deployment",
        "opes-scan",
        "-n",
        &bed.namespace,
        "--replicas=7",
    ])?;

    // What is changed is put right, what is added stays.
    let patch = json!({
        "metadata": { "labels": { "team": "mail", "opes.dev/callout-service": "stolen" }, "annotations": { "example.com/note": "kept" } },
        "spec": { "template": { "spec": { "containers": [{ "name": "service", "image": "registry.example.com/other:1" }] } } },
    });
    bed.api(Kind::Deployment)?
        .patch(
            "opes-scan",
            &PatchParams::default(),
            &Patch::Strategic(&patch),
        )
        .await?;
    let image = |object: &kube::api::DynamicObject| {
        object.data["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    let ours = "registry.example.com/opes/opes-normalizer:1";
    let repaired = until(&bed, Kind::Deployment, "opes-scan", REPAIRED, |object| {
        image(object) == ours
    })
    .await?;
    assert_eq!(repaired.labels()["team"], "mail");
    assert_eq!(repaired.labels()["opes.dev/callout-service"], "scan");
    assert_eq!(repaired.annotations()["example.com/note"], "kept");
    assert_eq!(
        repaired.data["spec"]["replicas"], 7,
        "the operator does not fight over replicas"
    );

    // No autoscaler any more: it goes, and spec.replicas decides.
    bed.service("scan", "{ class: adapt, builtin: { name: normalizer, config: {} }, replicas: 3, pool: { engine: none } }").await?;
    until(&bed, Kind::Deployment, "opes-scan", DEADLINE, |object| {
        object.data["spec"]["replicas"] == 3
    })
    .await?;
    let gone = bed.api(Kind::HorizontalPodAutoscaler)?;
    eventually("the HPA is gone", DEADLINE, || async {
        Ok(gone.get_opt("opes-scan").await?.is_none().then_some(()))
    })
    .await?;
    bed.expect(SERVICE, "scan", "ScalingActive", "False", "ScalingOff")
        .await?;
    // And back: the pool does not fall to one instance in between.
    bed.service("scan", POOL).await?;
    until(
        &bed,
        Kind::HorizontalPodAutoscaler,
        "opes-scan",
        DEADLINE,
        |_| true,
    )
    .await?;
    let handed = until(&bed, Kind::Deployment, "opes-scan", DEADLINE, |object| {
        !owners_of(object, "/f:spec/f:replicas").contains(&"opes-operator".to_owned())
    })
    .await?;
    assert_eq!(handed.data["spec"]["replicas"], 3);

    // It runs elsewhere now: nothing of the pool is left.
    bed.service(
        "scan",
        "{ class: adapt, endpoint: 'https://filter.example.com:9000' }",
    )
    .await?;
    for kind in MADE {
        let api = bed.api(kind)?;
        eventually(&format!("{} is gone", kind.name()), DEADLINE, || async {
            Ok(api.get_opt("opes-scan").await?.is_none().then_some(()))
        })
        .await?;
    }
    bed.expect(SERVICE, "scan", "Available", "Unknown", "NotManaged")
        .await?;
    let metrics = operator.metrics().await?;
    let mut errors = metrics
        .lines()
        .filter(|line| line.starts_with("opes_operator_errors_total{"));
    let forbidden = errors.find(|line| line.contains("Forbidden") && !line.ends_with(" 0"));
    assert!(forbidden.is_none(), "{forbidden:?}");
    for name in [
        "opes_operator_reconcile_seconds_bucket{",
        "opes_operator_queue{",
        "opes_operator_snapshot_info{revision=\"",
        "opes_operator_edges{",
        "opes_operator_edge_lag_revisions ",
        "opes_operator_leading 1",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    for part in ["Apply", "Status"] {
        let name = format!("opes_operator_writes_total{{part=\"{part}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        assert!(count.is_some_and(|count| count != "0"), "{metrics}");
    }
    operator.stop().await
}

#[tokio::test]
async fn what_cannot_be_made_is_said_and_is_in_nobodys_way() -> Result<()> {
    let bed = Bed::new(ControlPlane::shared().await?).await?;
    let theirs =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: opes-taken }\ndata: { mine: 'yes' }\n";
    bed.plane
        .kubectl_with(&["apply", "-n", &bed.namespace, "-f", "-"], theirs)?;
    let operator = bed.start("a").await?;
    bed.service("taken", POOL).await?;
    bed.service(
        "keda",
        "{ class: adapt, builtin: { name: normalizer, config: {} }, pool: { engine: keda } }",
    )
    .await?;
    let said = bed
        .expect(SERVICE, "taken", "Available", "False", "NameTaken")
        .await?;
    assert!(said.message.contains("ConfigMap opes-taken"), "{said:?}");
    bed.expect(SERVICE, "taken", "Ready", "False", "NotReady")
        .await?;
    let kept = until(&bed, Kind::ConfigMap, "opes-taken", DEADLINE, |_| true).await?;
    assert_eq!(kept.data["data"], json!({ "mine": "yes" }));
    bed.expect(SERVICE, "keda", "ScalingActive", "False", "KedaMissing")
        .await?;
    let deployment = until(&bed, Kind::Deployment, "opes-keda", DEADLINE, |_| true).await?;
    assert_eq!(deployment.data["spec"]["replicas"], 2);
    // A place that the operator has taken already: no API server takes that, however often it is asked.
    let twice = "{ class: adapt, builtin: { name: normalizer, config: {} }, pod: { mounts: [{ secret: s, path: /tmp }] } }";
    bed.service("twice", twice).await?;
    let said = bed
        .expect(SERVICE, "twice", "Available", "False", "ApplyFailed")
        .await?;
    assert!(said.message.contains("mountPath"), "{said:?}");
    let invalid = r#"opes_operator_errors_total{part="Apply",reason="Invalid"} 1"#;
    let metrics = operator.metrics().await?;
    assert!(metrics.contains(invalid), "{metrics}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let metrics = operator.metrics().await?;
    assert!(metrics.contains(invalid), "it was asked again: {metrics}");
    let mended = twice.replace("/tmp", "/keys");
    bed.service("twice", &mended).await?;
    until(&bed, Kind::Deployment, "opes-twice", DEADLINE, |_| true).await?;
    operator.stop().await
}

#[tokio::test]
async fn everything_can_be_deleted_without_an_operator() -> Result<()> {
    let bed = Bed::new(ControlPlane::shared().await?).await?;
    let operator = bed.start("a").await?;
    bed.service("scan", POOL).await?;
    bed.rule("r", &calls("scan")).await?;
    until(
        &bed,
        Kind::PodDisruptionBudget,
        "opes-scan",
        DEADLINE,
        |_| true,
    )
    .await?;
    bed.expect(RULE, "r", "Accepted", "True", "Accepted")
        .await?;
    operator.stop().await?;
    bed.api(SERVICE)?
        .delete("scan", &DeleteParams::background())
        .await?;
    for kind in [
        SERVICE,
        Kind::Deployment,
        Kind::Service,
        Kind::ServiceAccount,
    ] {
        let api = bed.api(kind)?;
        let name = if kind == SERVICE { "scan" } else { "opes-scan" };
        eventually(&format!("{} is gone", kind.name()), DEADLINE, || async {
            Ok(api.get_opt(name).await?.is_none().then_some(()))
        })
        .await?;
    }
    bed.plane
        .kubectl(&["delete", "namespace", &bed.namespace, "--timeout=300s"])?;
    Ok(())
}
