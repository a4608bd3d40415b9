//! What this cluster has that not every cluster has: KEDA, cert-manager, CPU metrics.

use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::kinds::Kind;
use crate::metrics_api::Standing;

/// How often the cluster is asked: it may get them while the operator runs.
const PERIOD: Duration = Duration::from_mins(1);

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is there or not, whatever the others"
)]
pub struct Features {
    /// `keda.sh/v1alpha1`.
    pub keda: bool,
    /// `cert-manager.io/v1`.
    pub cert_manager: bool,
    /// `metrics.k8s.io/v1beta1`: HPAs can look at CPU.
    pub cpu_metrics: bool,
    /// `external.metrics.k8s.io` is somebody else's: HPAs cannot ask the operator for load.
    pub foreign_metrics: bool,
    /// The cluster has been asked.
    pub known: bool,
}

// === impl Features ===

impl Features {
    /// Does the cluster have this kind?
    pub const fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::ScaledObject | Kind::TriggerAuthentication => self.keda,
            Kind::Certificate => self.cert_manager,
            _ => true,
        }
    }
}

/// Asks the cluster until it is told to stop. What cannot be found out stays as it was.
pub async fn run(
    client: Client,
    mut standing: watch::Receiver<Standing>,
    found: watch::Sender<Features>,
    shutdown: CancellationToken,
) {
    loop {
        let before = *found.borrow();
        let foreign = matches!(*standing.borrow_and_update(), Standing::Foreign(_));
        let now = look(&client, before, foreign).await;
        found.send_if_modified(|features| std::mem::replace(features, now) != now);
        let registered = async {
            // Nobody registers anything where the API is off.
            if standing.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = registered => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn look(client: &Client, before: Features, foreign_metrics: bool) -> Features {
    Features {
        foreign_metrics,
        keda: has(client, "keda.sh/v1alpha1", before.keda).await,
        cert_manager: has(client, "cert-manager.io/v1", before.cert_manager).await,
        cpu_metrics: has(client, "metrics.k8s.io/v1beta1", before.cpu_metrics).await,
        known: true,
    }
}

async fn has(client: &Client, group_version: &str, before: bool) -> bool {
    match client.list_api_group_resources(group_version).await {
        Ok(list) => !list.resources.is_empty(),
        Err(kube::Error::Api(status)) if status.code == 404 => false,
        Err(error) => {
            tracing::debug!(group_version, %error, "cannot be asked for");
            before
        }
    }
}
