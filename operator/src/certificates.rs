//! Certificates: an authority of the operator's own, what it signs, and its replacement without a failed call
//! (docs/adr/0026-certificates.md). Or none of that, where cert-manager issues: then a mounted folder is followed.
//!
//! The Secret of the authority is the only one that is read, by every replica: each makes its own serving certificate in memory.
//! The holder of the Lease makes the authority, takes the steps of its rotation, and writes the certificates of others
//! ([`CertificateWanted`](crate::shared::CertificateWanted)) into their Secrets, which it need not be allowed to read. At rest nothing is
//! written. What cannot be written is tried again, ever more slowly, and holds up nothing else. Keys are never logged.

pub mod authority;
mod keeper;
mod leaves;
mod metrics;
mod own;
pub mod state;

use std::sync::Arc;

use kube::Client;
use opes_host::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::metrics::Metrics;
pub use self::own::follow_folder;
pub use self::state::Lifetimes;
use crate::shared::{CertificateEnds, CertificatesWanted, Leading};

/// Field manager of what we apply.
const MANAGER: &str = "opes-operator";

/// What this replica shows to those that connect, and whom it believes.
pub type OwnCertificate = opes_tls::MutualTexts;
/// The newest [`OwnCertificate`]; none until there is an authority.
pub type OwnCertificates = watch::Receiver<Option<Arc<OwnCertificate>>>;

/// Where the authority is kept, and what this replica calls itself.
#[derive(Debug, Clone)]
pub struct AuthorityConfig {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret: `opes-ca`.
    pub secret: String,
    /// Names of our Service: `SERVICE.NAMESPACE.svc` and whatever else it is called by.
    pub own_names: Vec<String>,
    /// How long things last.
    pub lifetimes: Lifetimes,
    /// The system's, except in tests.
    pub clock: Clock,
}

/// The name that the certificate of the edges in `namespace` is for. Who shows it may follow the routing table.
pub fn edge_name(namespace: &str) -> String {
    // `.internal` is reserved for private use: nobody else's name can be this one.
    format!("edge.{namespace}.opes.internal")
}

/// The name that the certificate of the callout service `namespace/name` is for.
pub fn service_name(namespace: &str, name: &str) -> String {
    format!("opes-{name}.{namespace}.svc")
}

/// Who is told.
pub struct Tell {
    /// Of this replica's own certificate.
    pub own: watch::Sender<Option<Arc<OwnCertificate>>>,
    /// Of when the others end. Empty while another replica leads.
    pub ends: watch::Sender<Arc<CertificateEnds>>,
}

/// Keeps authority and certificates until `shutdown`.
pub async fn run(
    client: Client,
    config: AuthorityConfig,
    wanted: CertificatesWanted,
    leading: Leading,
    tell: Tell,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let config = Arc::new(config);
    let authorities = watch::Sender::new(None);
    let written = watch::Sender::new(String::new());
    let keeper = keeper::Keeper::new(
        client.clone(),
        Arc::clone(&config),
        authorities.clone(),
        metrics.clone(),
    );
    let leaves = leaves::Leaves::new(client, Arc::clone(&config), metrics.clone(), tell.ends);
    let all = async {
        tokio::join!(
            keeper.run(leading.clone(), written.subscribe()),
            leaves.run(wanted, authorities.subscribe(), leading, written),
            own::make(&config, authorities.subscribe(), &tell.own, &metrics),
        )
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        ((), (), ()) = all => {}
    }
}
