//! Looks names up, again and again while the service is in use. The system's resolver does not tell how long an answer
//! holds, so the interval is fixed; its own cache, if it has one, decides how fresh an answer is.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use opes_host::Network;
use tokio::sync::Notify;

use super::Pool;
use crate::config::{Address, Source};

/// Between two look-ups of a name.
const INTERVAL: Duration = Duration::from_secs(5);

/// After one that failed while nothing is known.
const INTERVAL_UNKNOWN: Duration = Duration::from_secs(1);

/// A resolver that does not answer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers so far, by name and port.
type Known = HashMap<(String, u16), Vec<Address>>;

pub(super) async fn look_up(pool: Weak<Pool>, wake: Arc<Notify>) {
    let mut known = Known::new();
    let mut failing = false;
    loop {
        let Some((sources, scheme, network, active)) = pool.upgrade().map(|pool| {
            let active = pool.core().is_active(pool.now());
            let scheme = if pool.config.tls.is_some() {
                "https"
            } else {
                "http"
            };
            let network = pool.config.host.network.clone();
            (pool.sources(), scheme, network, active)
        }) else {
            return;
        };
        if !active || !has_names(&sources) {
            wake.notified().await;
            continue;
        }
        let errors = refresh(&network, &sources, scheme, &mut known).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.note_lookup(&errors, &mut failing);
        let complete = pool.use_known(&sources, &known, &errors);
        drop(pool);
        let pause = if complete { INTERVAL } else { INTERVAL_UNKNOWN };
        // Other names may have been handed over.
        let _woken = tokio::time::timeout(pause, wake.notified()).await;
    }
}

fn has_names(sources: &[Source]) -> bool {
    sources.iter().any(|s| matches!(s, Source::Name { .. }))
}

/// What cannot be looked up keeps its last answer.
async fn refresh(
    network: &Network,
    sources: &[Source],
    scheme: &str,
    known: &mut Known,
) -> Vec<String> {
    let mut errors = Vec::new();
    for source in sources {
        let Source::Name { host, port } = source else {
            continue;
        };
        match addresses(network, scheme, host, *port).await {
            Ok(found) => {
                known.insert((host.clone(), *port), found);
            }
            Err(reason) => errors.push(format!("{host}:{port} cannot be looked up: {reason}")),
        }
    }
    errors
}

async fn addresses(
    network: &Network,
    scheme: &str,
    host: &str,
    port: u16,
) -> Result<Vec<Address>, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let lookup = network.look_up(bare, port);
    let found = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await;
    let found = found.map_err(|_| "the resolver does not answer".to_owned())?;
    let mut found = found.map_err(|error| error.to_string())?;
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return Err("the name has no address".to_owned());
    }
    let address = |address| Address {
        target: format!("{scheme}://{address}"),
        host: Some(host.to_owned()),
    };
    Ok(found.into_iter().map(address).collect())
}

impl Pool {
    /// Whether all names are known.
    fn use_known(&self, sources: &[Source], known: &Known, errors: &[String]) -> bool {
        let mut all = Vec::new();
        let mut complete = true;
        for source in sources {
            match source {
                Source::Fixed(address) => all.push(address.clone()),
                Source::Name { host, port } => match known.get(&(host.clone(), *port)) {
                    Some(addresses) => all.extend(addresses.iter().cloned()),
                    None => complete = false,
                },
            }
        }
        // Handed over at run time meanwhile: the next round is for those.
        if *self.sources() != *sources {
            return false;
        }
        let mut core = self.core();
        if all.is_empty() {
            core.names_failed(errors.join("; "), self.now());
        } else {
            core.set_endpoints(all);
        }
        drop(core);
        self.keeper.notify_one();
        self.changed.notify_waiters();
        complete
    }

    /// One line when it begins to fail, one when it is over.
    fn note_lookup(&self, errors: &[String], failing: &mut bool) {
        let service = &self.config.name;
        if let (Some(error), false) = (errors.first(), *failing) {
            tracing::warn!(%service, %error, "callout endpoints cannot be looked up, the last known ones stay");
        }
        if errors.is_empty() && *failing {
            tracing::info!(%service, "callout endpoints are looked up again");
        }
        *failing = !errors.is_empty();
    }
}
