//! The loop around the index: waits for changes, lets more of them come, evaluates, hands out.

use std::sync::Arc;
use std::time::Duration;

use opes_telemetry::Health;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Evaluation, Index, place};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::shared::Snapshot;
use crate::world::World;

/// Changes that come within this time are looked at together: `kubectl apply -f DIR` is many.
const COALESCE: Duration = Duration::from_millis(30);
/// How often what is still missing at the start is looked for.
const SYNC_POLL: Duration = Duration::from_millis(50);
/// Part of [`Health`] that says whether a table is served.
const HEALTH: &str = "rules";

/// Where what was found goes.
#[derive(Debug)]
pub struct Outputs {
    /// What is served.
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    /// What is written about.
    pub evaluations: watch::Sender<Option<Arc<Evaluation>>>,
    /// Whether anything is served.
    pub health: Health,
    /// How long it takes.
    pub metrics: Metrics,
}

/// Evaluates until it is told to stop. Nothing is handed out before all rules, services and instances have been listed: half a table
/// would be a wrong one.
pub async fn run(
    config: Arc<Config>,
    world: Arc<World>,
    out: Outputs,
    shutdown: CancellationToken,
) {
    let mut index = Index::new(&config);
    let mut specs = world.specs_changed();
    let mut endpoints = world.endpoints_changed();
    if !synced(&world, &out.health, &shutdown).await {
        return;
    }
    loop {
        specs.borrow_and_update();
        endpoints.borrow_and_update();
        let begun = Instant::now();
        let (objects, slices) = (world.objects(), world.slices(false));
        let task = tokio::task::spawn_blocking(move || {
            let evaluation = index.evaluate(&objects, &slices);
            (index, evaluation)
        });
        let Ok((returned, evaluation)) = task.await else {
            // A panic in the compiler. What is served goes on being served, and the next change is looked at afresh.
            tracing::error!("the rules could not be evaluated; what was served before stays");
            out.metrics.panicked();
            index = Index::new(&config);
            tokio::select! {
                changed = specs.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
            tokio::time::sleep(COALESCE).await;
            continue;
        };
        index = returned;
        out.metrics.evaluated(&evaluation, begun.elapsed());
        let evaluation = Arc::new(evaluation);
        hand_out(&out.snapshots, &evaluation.snapshot);
        out.evaluations.send_replace(Some(Arc::clone(&evaluation)));
        out.health.ready(HEALTH);
        let changed = async {
            loop {
                tokio::select! {
                    biased;
                    changed = specs.changed() => return changed.is_ok(),
                    changed = endpoints.changed() => if changed.is_err() { return false },
                }
                tokio::time::sleep(COALESCE).await;
                endpoints.borrow_and_update();
                move_endpoints(&evaluation, &world, &out.snapshots);
            }
        };
        tokio::select! {
            changed = changed => if !changed { return },
            () = shutdown.cancelled() => return,
        }
        tokio::time::sleep(COALESCE).await;
    }
}

/// Where pools are moves no rules.
fn move_endpoints(
    evaluation: &Evaluation,
    world: &World,
    snapshots: &watch::Sender<Option<Arc<Snapshot>>>,
) {
    let mut snapshot = evaluation.snapshot.as_ref().clone();
    place(&mut snapshot, &evaluation.services, &world.slices(false));
    hand_out(snapshots, &Arc::new(snapshot));
}

/// Who waits for a change is not woken for none.
fn hand_out(snapshots: &watch::Sender<Option<Arc<Snapshot>>>, new: &Arc<Snapshot>) {
    snapshots.send_if_modified(|current| {
        let same = current.as_ref().is_some_and(|current| {
            current.table == new.table
                && current.generations == new.generations
                && current.pools == new.pools
        });
        if !same {
            *current = Some(Arc::clone(new));
        }
        !same
    });
}

async fn synced(world: &World, health: &Health, shutdown: &CancellationToken) -> bool {
    while let Some(missing) = world.unsynced_for_serving() {
        health.not_ready(HEALTH, missing);
        tokio::select! {
            () = tokio::time::sleep(SYNC_POLL) => {}
            () = shutdown.cancelled() => return false,
        }
    }
    true
}
