//! Pods are replaced while mail comes in.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::world::{PATIENCE, World};

/// Clients and the time between two messages of each: twenty a second.
const LOAD: (u32, Duration) = (10, Duration::from_millis(500));
/// Before and after what happens.
const CALM: Duration = Duration::from_secs(4);

fn rollout(world: &World<'_>, workload: &str) -> Result<()> {
    world.kubectl(&["rollout", "restart", workload])?;
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    world.kubectl(&["rollout", "status", workload, &timeout])?;
    Ok(())
}

async fn under_load(world: &World<'_>, label: &'static str, workload: &str) -> Result<()> {
    let load = world.load(label, LOAD.0, LOAD.1).await?;
    tokio::time::sleep(CALM).await;
    rollout(world, workload)?;
    tokio::time::sleep(CALM).await;
    let sent = world.finish(label, load).await?;
    let other: Vec<_> = sent
        .iter()
        .flat_map(|message| &message.again)
        .filter(|why| !why.contains("421"))
        .collect();
    ensure!(other.is_empty(), "not told to come again by 421: {other:?}");
    Ok(())
}

/// Checklist 27, 30: pods of two services, one after the other.
pub(crate) async fn a_rolling_update_of_services_under_load_loses_nothing(
    world: &World<'_>,
) -> Result<()> {
    under_load(world, "services", "deployment/opes-security-filter").await?;
    under_load(world, "stampers", "deployment/opes-stamper").await
}

/// Checklist 27, 30: a client whose edge goes is told 421 between messages, and nothing else.
pub(crate) async fn a_rolling_update_of_edges_under_load_loses_nothing(
    world: &World<'_>,
) -> Result<()> {
    under_load(world, "edges", "deployment/opes-edge").await
}

/// Checklist 26: rules change all the time, and each message is judged by one revision.
pub(crate) async fn changed_rules_under_load_lose_nothing(world: &World<'_>) -> Result<()> {
    let label = "changes";
    let load = world.load(label, LOAD.0, LOAD.1).await?;
    for round in 0..20 {
        let mark = format!(
            "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: mark }}\nspec: {{ at: [content], action: {{ addHeader: {{ name: X-Round, value: '{round}' }} }} }}\n\
             ---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: mark-again }}\nspec: {{ at: [content], action: {{ addHeader: {{ name: X-Round-Again, value: '{round}' }} }} }}\n"
        );
        world.apply(&mark)?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    world.finish(label, load).await?;
    world.kubectl(&["delete", "opesrule", "mark", "mark-again"])?;
    Ok(())
}
