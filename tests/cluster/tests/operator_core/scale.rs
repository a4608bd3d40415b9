//! What a thousand rules cost.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use opes_cluster::{ControlPlane, eventually, is_long};
use opes_operator::kinds::Kind;
use serde_json::json;

use super::{RULE, SERVICE};
use crate::bed::{self, Bed};

/// Requests that write, leases excluded: those are a heartbeat, of the operator's one every 5 s, and the API server has its own.
async fn writes(plane: &ControlPlane) -> Result<f64> {
    let text = plane.metrics().await?;
    let counters = text
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{"));
    let writing = counters.filter(|line| {
        [
            "POST",
            "PUT",
            "PATCH",
            "APPLY",
            "DELETE",
            "DELETECOLLECTION",
        ]
        .iter()
        .any(|verb| line.contains(&format!("verb=\"{verb}\"")))
    });
    let counted = writing.filter(|line| !line.contains("resource=\"leases\""));
    Ok(counted
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .fold(0.0, |sum, count| sum + count))
}

/// Name, generation, resource version of all objects of ours.
async fn versions(bed: &Bed<'_>) -> Result<BTreeSet<(String, String)>> {
    let mut found = BTreeSet::new();
    for kind in [
        RULE,
        SERVICE,
        Kind::Deployment,
        Kind::Service,
        Kind::ConfigMap,
        Kind::PodDisruptionBudget,
    ] {
        for object in bed
            .api(kind)?
            .list(&kube::api::ListParams::default())
            .await?
        {
            found.insert((
                format!("{} {}", kind.name(), object.name_any()),
                object.resource_version().unwrap_or_default(),
            ));
        }
    }
    Ok(found)
}

const MANY: usize = 1_000;
const POOLS: usize = 20;
const INSTANCES: usize = 10;
const IDLE: Duration = Duration::from_secs(20);
/// In the long form.
const IDLE_LONG: Duration = Duration::from_mins(10);
const RESIDENT_MAX: u64 = 150 << 20;
/// Two edges compile all of it without optimisation.
const PATIENCE: Duration = Duration::from_mins(10);

async fn make_many(bed: &Bed<'_>) -> Result<()> {
    let names: Vec<usize> = (0..MANY).collect();
    let made = futures_util::stream::iter(names).map(|number| async move {
        let spec = format!("{{ at: [rcptTo], match: {{ recipientDomains: [d{number}.example.com] }}, action: {{ accept: {{}} }} }}");
        bed.rule(&format!("rule-{number}"), &spec).await.map(|_| ())
    });
    let failed: Vec<_> = made
        .buffer_unordered(16)
        .filter_map(|made| async move { made.err() })
        .collect()
        .await;
    ensure!(failed.is_empty(), "{failed:?}");
    for pool in 0..POOLS {
        bed.service(
            &format!("s{pool}"),
            "{ class: adapt, builtin: { name: normalizer, config: {} }, pool: { engine: none } }",
        )
        .await?;
        let addresses = (0..INSTANCES).map(|instance| json!({ "addresses": [format!("198.51.100.{}", pool * INSTANCES + instance + 1)], "conditions": { "ready": true } }));
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": format!("s{pool}"), "labels": { "kubernetes.io/service-name": format!("opes-s{pool}"), "opes.dev/callout-service": format!("s{pool}") } },
            "addressType": "IPv4", "endpoints": addresses.collect::<Vec<_>>(),
            "ports": [{ "name": "ocp", "port": 9000, "protocol": "TCP" }],
        });
        bed.api(Kind::EndpointSlice)?
            .patch(
                &format!("s{pool}"),
                &PatchParams::apply("people").force(),
                &Patch::Apply(&slice),
            )
            .await?;
    }
    Ok(())
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one story, told in order")]
async fn a_thousand_rules_cost_no_write_at_rest_and_little_memory() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let bed = Bed::cluster_wide(&plane).await?;
    let mut operator = bed.process("a").await?;
    let begun = std::time::Instant::now();
    make_many(&bed).await?;
    println!("{MANY} rules made in {:.1?}", begun.elapsed());
    let mut edges = [
        bed.edge("edge-1", operator.routing).await?,
        bed.edge("edge-2", operator.routing).await?,
    ];
    let rules = bed.api(RULE)?;
    eventually("every rule is programmed", PATIENCE, || async {
        let all = rules.list(&kube::api::ListParams::default()).await?;
        let programmed = all.iter().filter(|rule| {
            bed::condition(rule, "Programmed").is_some_and(|said| said.status == "True")
        });
        Ok((programmed.count() == MANY).then_some(()))
    })
    .await?;
    println!(
        "all of them programmed {:.1?} after the first was made",
        begun.elapsed()
    );

    // One bad rule among them changes no other, before and after an edge restarts.
    let revision = edges[0].running.borrow().clone();
    bed.rule(
        "bad",
        "{ at: [rcptTo], match: { cel: 'nonsense(rcpt)' }, action: { reject: {} } }",
    )
    .await?;
    bed.expect(RULE, "bad", "Accepted", "False", "Invalid")
        .await?;
    let mut restarted = bed.edge("edge-1", operator.routing).await?;
    assert_eq!(restarted.runs_other_than("").await?, revision);
    assert_eq!(*edges[1].running.borrow(), revision);
    assert_eq!(*restarted.objects.borrow(), MANY + POOLS);
    drop(restarted);

    // A rule that changes is active everywhere before anybody notices.
    let mut slowest = Duration::ZERO;
    for number in 0..10 {
        let before = edges[0].running.borrow().clone();
        let spec = format!(
            "{{ at: [rcptTo], priority: {}, match: {{ recipientDomains: [d0.example.com] }}, action: {{ accept: {{}} }} }}",
            number + 1
        );
        let begun = std::time::Instant::now();
        bed.rule("rule-0", &spec).await?;
        for edge in &mut edges {
            edge.runs_other_than(&before).await?;
        }
        slowest = slowest.max(begun.elapsed());
    }
    println!(
        "slowest of 10 changes was active on both edges after {slowest:.1?} (unoptimised build)"
    );
    bed.expect(RULE, "rule-0", "Programmed", "True", "Programmed")
        .await?;

    // At rest nothing is written and nothing moves.
    eventually("it comes to rest", PATIENCE, || {
        let plane = &plane;
        async move {
            let first = writes(plane).await?;
            tokio::time::sleep(Duration::from_secs(6)).await;
            Ok((writes(plane).await? <= first).then_some(()))
        }
    })
    .await?;
    let (before, objects) = (writes(&plane).await?, versions(&bed).await?);
    let idle = if is_long() { IDLE_LONG } else { IDLE };
    tokio::time::sleep(idle).await;
    let written = writes(&plane).await? - before;
    assert!(written < 0.5, "{written} writes within {idle:?} of rest");
    assert_eq!(versions(&bed).await?, objects);
    println!("no write and no change within {idle:?}");
    let resident = operator.resident()?;
    println!(
        "RSS {} MiB with {MANY} rules and {} instances (unoptimised build)",
        resident >> 20,
        POOLS * INSTANCES
    );
    assert!(resident < RESIDENT_MAX, "{resident}");
    operator.kill()
}
