//! Pools that follow the load.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::world::{PATIENCE, World};

/// A service that takes half a second for each message, in pods of an image that is not ours.
const STAMPER: &str = "apiVersion: opes.dev/v1alpha1
kind: CalloutService
metadata: { name: stamper }
spec:
  class: adapt
  idempotent: true
  image:
    reference: registry.example.com/opes/opes-slow-stamp:0.1.0
    args: [--work, '500']
  pool: { min: 1, max: 3, targetInFlight: 4, targetCpuPercent: 0, scaleDownAfter: 10s, pdb: { minAvailable: 0 } }
  pod: { resources: { requests: { cpu: 20m, memory: 32Mi } } }
---
apiVersion: opes.dev/v1alpha1
kind: OpesRule
metadata: { name: stamp }
spec:
  at: [content]
  priority: 50
  callout: { serviceRef: { name: stamper }, allow: [header], timeout: 30s, onFailure: tempfail }
";

/// Messages by which shares are judged, the last ones.
const ENOUGH: usize = 120;

/// Checklist 14, 28: twelve to sixteen transactions in flight at a target of four are three pods or more; all of them work; without
/// load one is left. Nothing is lost on either way.
pub(crate) async fn a_pool_scales_out_under_load_by_a_real_hpa_and_back(
    world: &World<'_>,
) -> Result<()> {
    world.apply(STAMPER)?;
    world.wait_for("condition=Programmed", "opesrule/stamp")?;
    world.wait_for("condition=Ready", "calloutservice/stamper")?;
    world.is_ready("deployment/opes-stamper", 1).await?;
    let label = "scale";
    let load = world.load(label, 24, Duration::from_secs(1)).await?;
    world
        .eventually("three pods", |world| {
            Ok((world.ready("deployment/opes-stamper")? == 3).then_some(()))
        })
        .await?;
    let scaled = load.elapsed();
    let before = world.hop.arrivals().len();
    // From then on, as soon as edges know of all of them and there is enough to compare.
    world
        .eventually("three pods that work, each its share", |world| {
            let arrived = world.hop.arrivals().len();
            let stamps = world.stamps(label, before.max(arrived.saturating_sub(ENOUGH)));
            let total: usize = stamps.values().sum();
            ensure!(
                stamps.len() == 3 && arrived >= before + ENOUGH,
                "pods that work: {stamps:?}"
            );
            ensure!(
                stamps.values().all(|count| count * 6 >= total),
                "shares of pods: {stamps:?}"
            );
            Ok(Some(()))
        })
        .await?;
    let shared = load.elapsed();
    world.finish(label, load).await?;
    println!("three pods {scaled:?} after the load began, and each its share {shared:?} after");
    world
        .eventually("one pod again", |world| {
            Ok((world.ready("deployment/opes-stamper")? == 1).then_some(()))
        })
        .await?;
    println!("one pod again within {PATIENCE:?}");
    let deployment = world.get(&["deployment/opes-stamper", "--show-managed-fields"])?;
    for manager in deployment["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let owns = !manager["fieldsV1"]["f:spec"]["f:replicas"].is_null();
        ensure!(
            !(owns && manager["manager"] == "opes-operator"),
            "the operator owns replicas: {manager}"
        );
    }
    Ok(())
}
