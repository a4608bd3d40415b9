//! KEDA itself at our routing port: what the operator writes is what KEDA takes, and a pool comes from nothing and goes back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use opes_cluster::{ControlPlane, DEADLINE, Keda, eventually};
use opes_operator::kinds::Kind;
use opes_proto::routing::PoolLoad;
use serde_json::{Value, json};

use super::{POOL, SERVICE, until};
use crate::bed::{self, Bed, Replica};
use crate::edge::Edge;

/// KEDA asks every 15 s. What it does within this time again and again it was told to do.
const PUSHED: Duration = Duration::from_secs(3);

/// A pool of KEDA's, and an edge that says how busy it is.
struct Pool<'p> {
    bed: &'p Bed<'p>,
    load: Arc<Mutex<PoolLoad>>,
    deployments: Api<Deployment>,
}

// === impl Pool ===

impl<'p> Pool<'p> {
    fn new(bed: &'p Bed<'p>) -> Result<Self> {
        let load = PoolLoad {
            service: format!("{}/scan", bed.namespace),
            in_flight: 0,
            queued: 0,
        };
        Ok(Self {
            bed,
            load: Arc::new(Mutex::new(load)),
            deployments: Api::namespaced(bed.plane.client()?, &bed.namespace),
        })
    }

    /// An edge that follows `operator` with what that made for it.
    async fn edge(&self, operator: &Replica) -> Result<Edge> {
        let said = Arc::clone(&self.load);
        let says = move || vec![said.lock().unwrap_or_else(PoisonError::into_inner).clone()];
        let tls = self.bed.edge_tls().await?;
        let config = self.bed.follower("edge-0", operator.routing, tls)?;
        Ok(Edge::busy(config, says))
    }

    fn load(&self, in_flight: u32, queued: u32) {
        let mut load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        (load.in_flight, load.queued) = (in_flight, queued);
    }

    async fn aims_at(&self, in_flight: u32) -> Result<()> {
        let spec = format!(
            "{{ class: adapt, builtin: {{ name: normalizer, config: {{ domain: example.com }} }}, \
             pool: {{ engine: keda, min: 0, max: 6, targetInFlight: {in_flight}, scaleDownAfter: 5s }} }}"
        );
        self.bed.service("scan", &spec).await?;
        Ok(())
    }

    async fn replicas(&self, wanted: i32) -> Result<()> {
        let what = format!("{wanted} replicas");
        let found = eventually(&what, DEADLINE, || async {
            let spec = self.deployments.get("opes-scan").await?.spec;
            let found = spec.context("no spec")?.replicas;
            ensure!(found == Some(wanted), "{found:?}");
            Ok(Some(()))
        });
        found.await.with_context(|| self.keda_says())
    }

    /// Of the HorizontalPodAutoscaler that KEDA makes, in transactions for an instance.
    async fn target(&self, wanted: u32) -> Result<()> {
        let hpas: Api<HorizontalPodAutoscaler> =
            Api::namespaced(self.bed.plane.client()?, &self.bed.namespace);
        let what = format!("a target of {wanted}");
        let found = eventually(&what, DEADLINE, || async {
            let spec = hpas.get("keda-hpa-opes-scan").await?.spec;
            let metrics = spec.and_then(|spec| spec.metrics).unwrap_or_default();
            let external = metrics.first().and_then(|metric| metric.external.clone());
            let target = external.and_then(|external| external.target.average_value);
            let found = target.map(|quantity| quantity.0);
            ensure!(found == Some(wanted.to_string()), "{found:?}");
            Ok(Some(()))
        });
        found.await.with_context(|| self.keda_says())
    }

    /// A transaction that waits makes an instance, whenever KEDA would have asked next: three times running. Before that it may be late as
    /// often: where KEDA got an error, as from an operator that has just started, its stream is closed, and it pauses before it calls again.
    async fn wakes(&self) -> Result<()> {
        let mut late: u32 = 3;
        let mut told = 0;
        while told < 3 {
            self.replicas(0).await?;
            let waits = Instant::now();
            self.load(0, 1);
            self.replicas(1).await?;
            let woken = waits.elapsed();
            println!("woken after {woken:?}");
            self.load(0, 0);
            told = if woken < PUSHED { told + 1 } else { 0 };
            if told == 0 {
                let left = late.checked_sub(1);
                late = left.with_context(|| format!("{woken:?}: {}", self.keda_says()))?;
            }
        }
        self.replicas(0).await
    }

    /// How often the operator has written the ScaledObject anew, and until when its certificate is good.
    async fn written(&self) -> Result<(Option<i64>, String)> {
        let object = self.bed.api(Kind::ScaledObject)?.get("opes-scan").await?;
        let end = &object.data["spec"]["triggers"][0]["metadata"]["certificateNotAfter"];
        let end = end.as_str().context("no certificate is told of")?;
        Ok((object.metadata.generation, end.to_owned()))
    }

    /// KEDA takes what we wrote, and our operator says so.
    async fn is_taken(&self) -> Result<()> {
        let taken = |object: &DynamicObject| {
            bed::condition(object, "Ready").is_some_and(|ready| ready.status == "True")
        };
        until(self.bed, Kind::ScaledObject, "opes-scan", DEADLINE, taken)
            .await
            .with_context(|| self.keda_says())?;
        self.bed
            .expect(SERVICE, "scan", "ScalingActive", "True", "Scaling")
            .await?;
        Ok(())
    }

    fn keda_says(&self) -> String {
        let said = self.bed.plane.tail("keda-operator");
        said.unwrap_or_default()
    }
}

// The one test that is ignored: it needs a program that takes minutes to compile. `cargo xtask kubernetes test` runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KEDA, which takes minutes to compile: cargo xtask kubernetes test; or OPES_KEDA from cargo xtask kubernetes keda, and --ignored"]
async fn keda_itself_scales_a_pool_from_nothing_and_back() -> Result<()> {
    // One of its own: to the other tests there is no KEDA.
    let plane = ControlPlane::builder().controllers().start().await?;
    let keda = Keda::start(&plane).await?;
    let bed = Bed::new(&plane).await?;
    // Here it may not look whose the metrics API is, and takes it for its own: there is an HPA first.
    let more = "metricsApi: { enabled: auto, listen: '127.0.0.1:0' }\n";
    let operator = bed.start_with("a", more).await?;
    let address = format!("opes-operator.{}.svc:9443", bed.namespace);
    keda.route(&address, operator.routing);
    let pool = Pool::new(&bed)?;
    let edge = pool.edge(&operator).await?;
    bed.service("scan", POOL).await?;
    until(
        &bed,
        Kind::HorizontalPodAutoscaler,
        "opes-scan",
        DEADLINE,
        |_| true,
    )
    .await?;
    pool.aims_at(20).await?;
    pool.is_taken().await?;
    pool.target(20).await?;
    pool.wakes().await?;

    // 50 open and waiting, 20 for each; then 15.
    pool.load(45, 5);
    pool.replicas(3).await?;
    pool.load(15, 0);
    pool.replicas(1).await?;
    // Another aim: KEDA learns of it though nothing else changes.
    pool.load(45, 5);
    pool.aims_at(10).await?;
    pool.target(10).await?;
    pool.replicas(5).await?;
    pool.load(0, 0);
    pool.replicas(0).await?;
    pool.is_taken().await?;

    // Another operator writes nothing that is as it should be.
    let before = pool.written().await?;
    operator.stop().await?;
    drop(edge);
    let operator = bed.start("b").await?;
    keda.route(&address, operator.routing);
    let edge = pool.edge(&operator).await?;
    pool.wakes().await?;
    assert_eq!(pool.written().await?, before);

    // Another authority, and nobody believes the one before: KEDA shows the new certificate, also where it is told.
    operator.stop().await?;
    drop(edge);
    for secret in ["opes-ca", "opes-edge-tls", "opes-scan-tls"] {
        plane.kubectl(&["delete", "secret", "-n", &bed.namespace, secret])?;
    }
    let operator = bed.start("c").await?;
    keda.route(&address, operator.routing);
    let edge = pool.edge(&operator).await?;
    eventually("the new certificate is told of", DEADLINE, || async {
        let after = pool.written().await?;
        Ok((after.1 != before.1).then_some(()))
    })
    .await?;
    pool.wakes().await?;
    drop(edge);

    no_autoscaler(&pool).await?;
    operator.stop().await
}

#[tokio::test]
async fn a_new_certificate_makes_another_scaled_object_and_a_restart_does_not() -> Result<()> {
    // One of its own: to the other tests there is no KEDA. Here are its kinds, and nobody who acts on them.
    let plane = ControlPlane::builder().controllers().start().await?;
    let kinds = [Kind::ScaledObject, Kind::TriggerAuthentication].map(definition);
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": kinds });
    plane.kubectl_with(&["apply", "-f", "-"], &list.to_string())?;
    plane.kubectl(&["wait", "--for=condition=Established", "crd", "--all"])?;
    let bed = Bed::new(&plane).await?;
    let pool = Pool::new(&bed)?;
    let operator = bed.start("a").await?;
    pool.aims_at(20).await?;
    let certified = || async { Ok(pool.written().await.ok()) };
    let before = eventually("a certificate is told of", DEADLINE, certified).await?;
    operator.stop().await?;

    // It has looked at the Secret when the service's status is its own work.
    bed.api(SERVICE)?
        .patch_status(
            "scan",
            &PatchParams::default(),
            &Patch::Merge(json!({ "status": { "certificateNotAfter": null } })),
        )
        .await?;
    let operator = bed.start("b").await?;
    until(&bed, SERVICE, "scan", DEADLINE, |service| {
        service.data["status"]["certificateNotAfter"] == before.1
    })
    .await?;
    assert_eq!(pool.written().await?, before);
    operator.stop().await?;

    plane.kubectl(&["delete", "secret", "-n", &bed.namespace, "opes-scan-tls"])?;
    let operator = bed.start("c").await?;
    eventually("the new certificate is told of", DEADLINE, || async {
        let after = pool.written().await?;
        ensure!(after.0 > before.0 && after.1 > before.1, "{after:?}");
        Ok(Some(()))
    })
    .await?;
    operator.stop().await
}

/// Of a kind of KEDA's, that takes everything.
fn definition(kind: Kind) -> Value {
    let resource = kind.resource();
    let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{}.{}", resource.plural, resource.group) },
        "spec": {
            "group": resource.group, "scope": "Namespaced",
            "names": { "kind": resource.kind, "plural": resource.plural },
            "versions": [{ "name": resource.version, "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
        },
    })
}

/// All of KEDA's goes, and `replicas` decides.
async fn no_autoscaler(pool: &Pool<'_>) -> Result<()> {
    let none = "{ class: adapt, builtin: { name: normalizer, config: { domain: example.com } }, replicas: 2, pool: { engine: none } }";
    pool.bed.service("scan", none).await?;
    for kind in [
        Kind::ScaledObject,
        Kind::TriggerAuthentication,
        Kind::HorizontalPodAutoscaler,
    ] {
        let api = pool.bed.api(kind)?;
        let what = format!("no {}", kind.name());
        eventually(&what, DEADLINE, || async {
            let left = api.list(&ListParams::default()).await?.items;
            Ok(left.is_empty().then_some(()))
        })
        .await?;
    }
    pool.replicas(2).await
}
