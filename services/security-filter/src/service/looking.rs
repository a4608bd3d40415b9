//! Everything that is found in a message, by us and by ClamAV, for each sub-policy.
//!
//! Most mail has no archives and is looked at on the spot. Opening archives waits for one of a few places and goes to a thread that may
//! block; the places stay taken until that thread is done, also if nobody waits for it any more.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use opes_mime::Encoding;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;

use super::SecurityFilter;
use crate::archive::Budget;
use crate::config::{Config, WholeMessage};
use crate::inspect::{Finding, Leaf, Looked, covers, look, outermost};

/// Messages up to this size are inspected on the spot; larger ones on a thread that may block, octets.
const INLINE_OCTETS_MAX: usize = 256 * 1024;

/// Places in memory that a message takes.
type Places = Vec<OwnedSemaphorePermit>;

impl SecurityFilter {
    /// For each configuration.
    pub(super) async fn findings(
        &self,
        octets: &Bytes,
        place: Option<OwnedSemaphorePermit>,
        configs: Vec<Arc<Config>>,
    ) -> anyhow::Result<Vec<Vec<Finding>>> {
        let places = place.into_iter().collect();
        let (looked, _places) = self.look(octets, configs.clone(), places).await?;
        let viruses = self.viruses(octets, &looked, &configs).await?;
        let findings = looked.into_iter().zip(configs).map(|(looked, config)| {
            let mut findings = looked.findings;
            if config.settings.virus_scan {
                findings.extend(viruses.iter().cloned());
            }
            outermost(findings)
        });
        Ok(findings.collect())
    }

    async fn look(
        &self,
        octets: &Bytes,
        configs: Vec<Arc<Config>>,
        places: Places,
    ) -> anyhow::Result<(Vec<Looked>, Places)> {
        let message = octets.clone();
        let (configs, looked, mut places) = if octets.len() <= INLINE_OCTETS_MAX {
            let looked = for_each(&message, &configs, None);
            (configs, looked, places)
        } else {
            spawn_blocking(move || {
                let looked = for_each(&message, &configs, None);
                (configs, looked, places)
            })
            .await?
        };
        if !looked.iter().any(|looked| looked.has_archives) {
            return Ok((looked, places));
        }
        places.push(Arc::clone(&self.opening).acquire_owned().await?);
        let message = octets.clone();
        let opened = spawn_blocking(move || {
            let deadline = configs
                .first()
                .map(|config| Instant::now() + config.settings.archives.time());
            (for_each(&message, &configs, deadline), places)
        });
        let (looked, mut places) = opened.await?;
        // What was unpacked is gone.
        places.pop();
        Ok((looked, places))
    }

    /// What ClamAV finds in what is not forbidden anyway.
    async fn viruses(
        &self,
        octets: &Bytes,
        looked: &[Looked],
        configs: &[Arc<Config>],
    ) -> anyhow::Result<Vec<Finding>> {
        let wanting: Vec<_> = looked
            .iter()
            .zip(configs)
            .filter(|(_, config)| config.settings.virus_scan)
            .map(|(looked, _)| looked)
            .collect();
        let (Some(clamd), Some(first)) = (&self.clamd, wanting.first()) else {
            return Ok(Vec::new());
        };
        let passes = |path: &str| wanting.iter().any(|looked| !is_forbidden(looked, path));
        let mut leaves: Vec<Leaf> = first
            .leaves
            .iter()
            .filter(|leaf| passes(&leaf.path))
            .cloned()
            .collect();
        let is_whole_wanted = first.is_odd || clamd.whole_message == WholeMessage::Always;
        if is_whole_wanted && passes("") {
            leaves.push(Leaf {
                path: String::new(),
                name: String::new(),
                body: 0..octets.len(),
                encoding: Encoding::Binary,
            });
        }
        clamd.scan(octets, leaves).await.context("virus scan")
    }
}

fn for_each(message: &[u8], configs: &[Arc<Config>], deadline: Option<Instant>) -> Vec<Looked> {
    let looked = configs.iter().map(|config| {
        let limits = config.settings.archives;
        let budget = deadline.map(|deadline| Budget::until(limits, deadline));
        look(message, config, budget.as_ref())
    });
    looked.collect()
}

fn is_forbidden(looked: &Looked, path: &str) -> bool {
    let mut forbidden = looked
        .findings
        .iter()
        .filter(|finding| !finding.cause.is_doubt());
    forbidden.any(|finding| covers(&finding.path, path))
}
