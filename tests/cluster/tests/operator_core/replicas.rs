//! Who writes, and what happens when somebody goes.

use std::time::Duration;

use anyhow::{Result, ensure};
use opes_cluster::{ControlPlane, DEADLINE, eventually};
use opes_operator::kinds::Kind;

use super::{ACCEPTS, POOL, RULE, until};
use crate::bed::Bed;

/// What is left of it at least when its holder is killed: it lasts 15 s and is renewed every 5 s.
const LEASE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_leader_is_killed_and_another_takes_over() -> Result<()> {
    let bed = Bed::new(ControlPlane::shared().await?).await?;
    let mut first = bed.process("first").await?;
    bed.wait_for_leader("first").await?;
    let second = bed.start("second").await?;
    bed.announce(&[("first", first.routing), ("second", second.routing)])
        .await?;
    let mut edge = bed.edge("edge-1", first.routing).await?;
    bed.rule("before", ACCEPTS).await?;
    let before = bed
        .expect(RULE, "before", "Programmed", "True", "Programmed")
        .await?;
    first.kill()?;
    let killed = std::time::Instant::now();
    // Served by the one that is left while nobody writes.
    let revision = edge.running.borrow().clone();
    bed.rule("during", "{ at: [rcptTo], match: { recipientDomains: [during.example.com] }, action: { accept: {} } }").await?;
    bed.service("pool", POOL).await?;
    edge.runs_other_than(&revision).await?;
    // Nobody has taken the lease so far, unless this took as long as it lasts.
    let leader = bed.leader().await?;
    ensure!(leader == "first" || killed.elapsed() > LEASE, "{leader}");
    // What came in the dead time is written by the new leader, once.
    bed.expect(RULE, "during", "Accepted", "True", "Accepted")
        .await?;
    let taken = killed.elapsed();
    println!("written by the other replica {taken:.1?} after the kill");
    ensure!(taken < LEASE * 5, "{taken:?}");
    assert_eq!(bed.leader().await?, "second");
    until(&bed, Kind::Deployment, "opes-pool", DEADLINE, |_| true).await?;
    bed.expect(RULE, "during", "Programmed", "True", "Programmed")
        .await?;
    assert_eq!(
        bed.condition(RULE, "before", "Programmed").await?,
        Some(before),
        "nothing has moved"
    );
    // SIGTERM gives the lease back: the next one need not wait.
    let third = bed.start("third").await?;
    second.stop().await?;
    let leader = bed.leader().await?;
    ensure!(leader != "second", "it was kept");
    let stopped = std::time::Instant::now();
    bed.wait_for_leader("third").await?;
    println!("taken over {:.1?} after a graceful stop", stopped.elapsed());
    third.stop().await
}

#[tokio::test]
async fn the_api_server_may_go_and_edges_are_served() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let bed = Bed::new(&plane).await?;
    let operator = bed.start("a").await?;
    bed.rule("r", ACCEPTS).await?;
    let mut edge = bed.edge("edge-1", operator.routing).await?;
    let before = bed
        .expect(RULE, "r", "Programmed", "True", "Programmed")
        .await?;
    let revision = edge.runs_other_than("").await?;
    let late = bed.edge_tls().await?;
    plane.kill_apiserver()?;
    // Long enough for the lease to be lost.
    let metric = "opes_operator_leading 0";
    eventually("it stops to lead", DEADLINE, || async {
        Ok(operator.metrics().await?.contains(metric).then_some(()))
    })
    .await?;
    assert!(operator.is_running());
    let mut newcomer = bed.edge_with("edge-2", operator.routing, late)?;
    assert_eq!(
        newcomer.runs_other_than("").await?,
        revision,
        "a new edge is served without an API server"
    );
    plane.start_apiserver().await?;
    bed.rule("after", "{ at: [rcptTo], match: { recipientDomains: [after.example.com] }, action: { accept: {} } }").await?;
    bed.expect(RULE, "after", "Programmed", "True", "Programmed")
        .await?;
    assert_eq!(
        bed.condition(RULE, "r", "Programmed").await?,
        Some(before),
        "nothing has moved"
    );
    operator.stop().await
}
