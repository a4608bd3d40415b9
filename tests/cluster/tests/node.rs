//! The whole thing on a whole node: `helm install`, `kubectl apply`, mail through a NodePort, load, rollouts, an operator that is
//! gone, upgrade, uninstall. One cluster and one story, step by step, because a cluster takes half a minute to make; each step
//! is a function that says what it promises.

mod node {
    pub(crate) mod autoscaling;
    pub(crate) mod certificates;
    pub(crate) mod conformance;
    pub(crate) mod first_mail;
    pub(crate) mod life_cycle;
    pub(crate) mod observing;
    pub(crate) mod outages;
    pub(crate) mod rollouts;
    pub(crate) mod spool;
    pub(crate) mod world;
}

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use opes_cluster::{Node, programs};

use node::world::World;
use node::{
    autoscaling, certificates, conformance, first_mail, life_cycle, observing, outages, rollouts,
    spool,
};

/// `short`: the steps in which versions of Kubernetes may differ. Not set: all of them.
const STORY: &str = "OPES_NODE_STORY";

/// Runs a step and says what it took; a failure names it.
macro_rules! step {
    ($world:expr, $step:path) => {{
        let started = Instant::now();
        let name = stringify!($step);
        $step($world).await.with_context(|| name.to_owned())?;
        println!("step {name}: {:.1} s", started.elapsed().as_secs_f64());
    }};
}

/// From an empty cluster to mail that was adapted.
async fn begin(world: &World<'_>) -> Result<()> {
    step!(
        world,
        life_cycle::helm_install_succeeds_on_an_empty_cluster_in_a_restricted_namespace
    );
    step!(
        world,
        life_cycle::helm_test_sends_a_mail_through_the_pipeline
    );
    step!(
        world,
        conformance::a_service_in_a_pod_passes_the_conformance_kit
    );
    step!(
        world,
        observing::a_prometheus_finds_every_pod_by_the_monitors
    );
    step!(
        world,
        first_mail::example_rules_are_programmed_and_adapt_mail
    );
    step!(
        world,
        first_mail::the_clients_address_is_kept_by_the_local_policy
    );
    step!(
        world,
        first_mail::a_bad_rule_is_refused_or_isolated_and_changes_nothing_else
    );
    Ok(())
}

async fn whole(world: &World<'_>) -> Result<()> {
    begin(world).await?;
    step!(
        world,
        autoscaling::a_pool_scales_out_under_load_by_a_real_hpa_and_back
    );
    // Before the rollouts, whose new pods meet the others with new certificates.
    step!(
        world,
        certificates::the_authority_is_replaced_under_load_and_nothing_starts_anew
    );
    step!(
        world,
        rollouts::a_rolling_update_of_services_under_load_loses_nothing
    );
    step!(
        world,
        rollouts::a_rolling_update_of_edges_under_load_loses_nothing
    );
    step!(world, rollouts::changed_rules_under_load_lose_nothing);
    step!(
        world,
        observing::every_query_returns_data_and_no_alert_fires_after_load
    );
    step!(world, outages::a_minute_without_operator_and_mail_flows);
    step!(world, life_cycle::helm_upgrade_changes_what_it_should);
    step!(
        world,
        spool::mail_of_an_edge_that_is_gone_is_delivered_from_its_volume
    );
    step!(
        world,
        life_cycle::helm_uninstall_keeps_the_rules_and_a_new_install_adopts_them
    );
    step!(
        world,
        life_cycle::helm_uninstall_leaves_nothing_when_told_so
    );
    Ok(())
}

async fn short(world: &World<'_>) -> Result<()> {
    begin(world).await?;
    step!(world, life_cycle::helm_upgrade_changes_what_it_should);
    step!(
        world,
        life_cycle::helm_uninstall_leaves_nothing_when_told_so
    );
    Ok(())
}

async fn tell(world: &World<'_>) -> Result<()> {
    match std::env::var(STORY).ok().as_deref() {
        None | Some("") => whole(world).await,
        Some("short") => short(world).await,
        Some(other) => bail!("{STORY} is `{other}`: it may be `short`"),
    }
}

mod whole_node {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn story() -> Result<()> {
        let started = Instant::now();
        let node = Node::start().await?;
        let version = node.client()?.apiserver_version().await?.git_version;
        ensure!(version == programs::version()?, "Kubernetes is {version}");
        println!(
            "node Ready: {:.1} s, Kubernetes {version}",
            started.elapsed().as_secs_f64()
        );
        let world = World::new(&node).await?;
        let outcome = tell(&world).await;
        if outcome.is_err() {
            let place = std::env::temp_dir().join("opes-node-story");
            world.node.dump(Path::new(&place)).await?;
            eprintln!("what the cluster looked like: {}", place.display());
        }
        outcome
    }
}
