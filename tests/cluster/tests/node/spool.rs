//! Edges with a spool on volumes that outlive them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use opes_cluster::load::once_each;
use opes_cluster::node;
use opes_e2e::hop::{Hop, Manners};
use serde_json::json;

use super::life_cycle::helm;
use super::world::World;

/// StorageClass of the disks; nothing makes volumes of it.
const CLASS: &str = "spool-disk";
/// Next hop of these edges; nobody listens there at first.
const HOP: &str = "192.0.2.102:25";
/// Sessions are spread by chance: of so many not all go to one edge of two.
const CLIENTS: u32 = 24;

/// As docs/operate/kubernetes/disaster-drills.md has it, with times that fit a test.
fn values() -> [String; 6] {
    [
        "edge.mode=spool".to_owned(),
        format!("edge.spool.storageClassName={CLASS}"),
        "edge.spool.size=64Mi".into(),
        format!("edge.delivery.nextHop={HOP}"),
        "edge.drainSeconds=2".into(),
        "edge.preStopSeconds=1".into(),
    ]
}

fn upgrade(world: &World<'_>, more: &[&str]) -> Result<String> {
    let values = values();
    let mut arguments = Vec::new();
    for value in values
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
    {
        arguments.extend(["--set", value]);
    }
    helm(world, "upgrade", &arguments)
}

/// Checklist 30: edges accept mail that cannot be delivered, one of them goes for good, and what is in its volume is delivered by a
/// Job: all of it, and nothing twice.
pub(crate) async fn mail_of_an_edge_that_is_gone_is_delivered_from_its_volume(
    world: &World<'_>,
) -> Result<()> {
    disks(world, 2)?;
    upgrade(world, &["edge.replicas=2"])?;
    world
        .eventually("edges with volumes, and no others", |world| {
            Ok((world.pods("edge")? == ["opes-edge-0", "opes-edge-1"]).then_some(()))
        })
        .await?;
    let label = "spooled";
    let load = world.load(label, CLIENTS, Duration::from_secs(1)).await?;
    // Clients come again after some messages, so that the one gets some as well that the node learns of later.
    let (stays, goes) = world
        .eventually("each edge has some", |world| {
            let queued = |pod| world.metric(pod, "opes_messages_total{outcome=\"Queued\"}");
            let (stays, goes) = (queued("opes-edge-0")?, queued("opes-edge-1")?);
            Ok((stays > 0.0 && goes > 0.0).then_some((stays, goes)))
        })
        .await?;
    let sent = load.finish().await?;
    println!(
        "{} messages accepted, at first {stays} and {goes}",
        sent.len()
    );

    upgrade(world, &["edge.replicas=1"])?;
    world
        .eventually("one edge", |world| {
            Ok((world.pods("edge")? == ["opes-edge-0"]).then_some(()))
        })
        .await?;
    world.kubectl(&["get", "pvc", "spool-opes-edge-1"])?;
    let hop = Hop::start_at(HOP.parse()?, Manners::default());
    let hop = world.node.outside.run(hop).await??;
    upgrade(world, &["edge.replicas=1", "edge.spool.drainOrdinals={1}"])?;
    let jobs = ["job", "-l", "app.kubernetes.io/component=drain"];
    let wait = ["wait", "--for=condition=complete", "--timeout=240s"];
    world.kubectl(&[&wait[..], &jobs[..]].concat())?;
    let said = world.kubectl(&["logs", "-l", "app.kubernetes.io/component=drain"])?;
    ensure!(said.lines().any(|line| line == "empty"), "{said}");
    world
        .eventually("everything has arrived", |_| {
            Ok((hop.arrivals().len() >= sent.len()).then_some(()))
        })
        .await?;
    once_each(label, &sent, &hop)?;
    // A claim stays as long as there is a pod that names it, even one that has ended: first the Job goes.
    upgrade(world, &["edge.replicas=1"])?;
    world.kubectl(&["delete", "pvc", "spool-opes-edge-1", "--timeout=240s"])?;
    let left = world.get(&["pvc"])?;
    let left = left["items"].as_array().context("no list")?;
    ensure!(
        left.len() == 1 && left[0]["metadata"]["name"] == "spool-opes-edge-0",
        "{left:?}"
    );
    Ok(())
}

/// Local disks of the node, root's own: pods may write to them by `fsGroup` alone.
fn disks(world: &World<'_>, count: usize) -> Result<()> {
    let mut items = vec![json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": CLASS },
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
    })];
    for number in 0..count {
        let name = format!("{CLASS}-{number}");
        let path = world.node.folder().join("volumes").join(&name);
        std::fs::create_dir_all(&path)?;
        let here =
            json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [node::NAME] });
        items.push(json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
            "spec": {
                "capacity": { "storage": "64Mi" }, "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain", "storageClassName": CLASS,
                "local": { "path": path },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [here] }] } },
            },
        }));
    }
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    world
        .node
        .kubectl_with(&["create", "-f", "-"], &list.to_string())?;
    Ok(())
}
