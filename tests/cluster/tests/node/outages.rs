//! What mail must not notice.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use opes_cluster::is_long;

use super::observing;
use super::world::World;

const AWAY: Duration = Duration::from_mins(1);
/// In the long form.
const AWAY_LONG: Duration = Duration::from_mins(10);

/// Checklist 24, 39: no operator for a minute, and the alert for it fires; mail flows, an edge that is started anew in its pod comes up from the table on its disk,
/// and rules applied meanwhile are in force soon after the operator is back.
pub(crate) async fn a_minute_without_operator_and_mail_flows(world: &World<'_>) -> Result<()> {
    world.kubectl(&["scale", "deployment/opes-operator", "--replicas=0"])?;
    world
        .eventually("no operator", |world| {
            Ok(world.pods("operator")?.is_empty().then_some(()))
        })
        .await?;
    let load = world
        .load("orphans", 10, Duration::from_millis(500))
        .await?;
    let began = load.elapsed();
    let away = if is_long() { AWAY_LONG } else { AWAY };
    tokio::time::sleep(away / 4).await;
    let pods = world.pods("edge")?;
    let pod = pods.first().context("no edge")?;
    let age = world.metric(pod, "opes_edge_routing_age_seconds")?;
    ensure!(age > 5.0, "the table's age is {age}");
    observing::fires(world, "OpesOperatorGone").await?;
    let object = format!("pod/{pod}");
    let status = |world: &World<'_>| -> Result<(Option<u64>, bool)> {
        let object = world.get(&[&object])?;
        let status = &object["status"]["containerStatuses"][0];
        Ok((status["restartCount"].as_u64(), status["ready"] == true))
    };
    let (restarts, _) = status(world)?;
    world.kill_container(pod)?;
    world
        .eventually("the edge came up from its disk", |world| {
            let (now, ready) = status(world)?;
            Ok((now > restarts && ready).then_some(()))
        })
        .await?;
    let late = "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: late }\nspec: { at: [content], action: { addHeader: { name: X-Late, value: 'yes' } } }\n";
    world.apply(late)?;
    tokio::time::sleep(away.saturating_sub(load.elapsed().saturating_sub(began))).await;
    // The connections of the container that was killed broke; what had no reply was sent again, and may have arrived twice.
    let sent = load.finish().await?;
    println!("{} messages in {away:?} without an operator", sent.len());
    ensure!(sent.len() > 500, "only {} messages", sent.len());
    world.at_least_once("orphans", &sent)?;
    world.kubectl(&["scale", "deployment/opes-operator", "--replicas=2"])?;
    // `Programmed` is said of the edges that are there; one that is slow to come back would be asked for mail before it has the rule.
    world
        .eventually("all edges follow again", |world| {
            for pod in world.pods("edge")? {
                let operators = world.metric(&pod, "opes_edge_routing_operators")?;
                ensure!(operators > 0.5, "{pod} follows nobody");
            }
            Ok(Some(()))
        })
        .await?;
    world.wait_for("condition=Programmed", "opesrule/late")?;
    let arrival = world.mail(&[]).await?;
    ensure!(
        String::from_utf8_lossy(&arrival.content).contains("X-Late: yes"),
        "not in force"
    );
    world.kubectl(&["delete", "opesrule", "late"])?;
    observing::is_over(world, "OpesOperatorGone").await
}
