//! What a service does by and by: it removes what has expired, and waits for its address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use opes_host::Clock;
use tokio::net::TcpListener;

use crate::metrics::Metrics;
use crate::store::Store;

/// Between two rounds.
const INTERVAL: Duration = Duration::from_mins(5);
/// Most names removed in one round, so that a store with much to remove is not kept from its work; the next round goes on.
const REMOVED_MAX: usize = 2000;

/// An address that is taken may become free: rules are replaced while an older service finishes its work.
const BIND_RETRY: Duration = Duration::from_secs(1);
const BIND_TRIES: u32 = 300;

/// Removes what has expired, round after round.
pub(crate) async fn run(store: Store, metrics: Metrics, clock: Clock) {
    loop {
        match store
            .sweep(clock.since_epoch().as_secs(), REMOVED_MAX)
            .await
        {
            Ok(removed) => {
                metrics.swept.inc_by(removed as u64);
            }
            Err(error) => {
                metrics.sweep_failures.inc();
                tracing::warn!(%error, "expired attachments were not removed; tried again later");
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Waits for an address that is taken.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let mut tries = 0;
    loop {
        tries += 1;
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES => {
                if tries == 1 {
                    tracing::warn!(%address, "the web address is taken: waiting for it");
                }
                tokio::time::sleep(BIND_RETRY).await;
            }
            other => return other.with_context(|| format!("web: cannot listen on {address}")),
        }
    }
}
