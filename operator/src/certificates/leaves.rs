//! Certificates of others, each in a Secret where it is needed. Written by the replica that leads, into namespaces whose Secrets it may
//! not read.
//!
//! What is there already is learned from the answer to an empty patch in dry-run mode, of which only metadata is asked for: an
//! annotation says what the certificate was made of and when it ends. So a restarted operator writes nothing that is as it should
//! be, and needs no right to read Secrets. The same look, once in [`LOOK_AGAIN_S`] each, finds what somebody deleted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams};

use kube::{Api, Client};
use tokio::sync::watch;

use super::metrics::{Metrics, Written, gauge};
use super::own::LOOK_INTERVAL;
use super::state::Authorities;
use super::{AuthorityConfig, MANAGER};
use crate::certificates::authority::{AuthorityError, short_hash};
use crate::shared::{CertificateEnds, CertificateWanted, CertificatesWanted, Leading};

/// What a certificate was made of; another one is made when this differs.
const MADE_OF: &str = "opes.dev/certificate";
/// When it ends, in seconds since 1970.
const NOT_AFTER: &str = "opes.dev/not-after";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Most certificates; those beyond are told of and not made.
const WANTED_MAX: usize = 20_000;
/// Writes at once.
const AT_ONCE: usize = 8;
/// How often each Secret is looked for, in seconds.
const LOOK_AGAIN_S: u64 = 3_600;
/// After a failure, in seconds; doubled each time, up to [`RETRY_MAX_S`].
const RETRY_MIN_S: u64 = 2;
const RETRY_MAX_S: u64 = 300;

type Key = (String, String);

pub(super) struct Leaves {
    client: Client,
    config: Arc<AuthorityConfig>,
    metrics: Metrics,
    known: HashMap<Key, Known>,
    ends: watch::Sender<Arc<CertificateEnds>>,
}

/// What is known of one Secret; times in seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    made_of: String,
    not_after: u64,
    /// When it is looked at again, or tried again.
    look_at: u64,
    /// Attempts that failed since the last that did not.
    failures: u32,
}

/// What is to be done about one certificate.
struct Job {
    key: Key,
    wanted: CertificateWanted,
    made_of: String,
    known: Known,
}

/// Why a certificate is not in its Secret.
#[derive(Debug, thiserror::Error)]
enum LeafError {
    #[error("there is a Secret of this name that is not the operator's: rename or delete it")]
    Foreign,
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Api(#[from] kube::Error),
}

// === impl Leaves ===

impl Leaves {
    pub(super) fn new(
        client: Client,
        config: Arc<AuthorityConfig>,
        metrics: Metrics,
        ends: watch::Sender<Arc<CertificateEnds>>,
    ) -> Self {
        Self {
            client,
            config,
            metrics,
            known: HashMap::new(),
            ends,
        }
    }

    /// Says to `written` for which authorities all certificates are there.
    pub(super) async fn run(
        mut self,
        mut wanted: CertificatesWanted,
        mut authorities: watch::Receiver<Option<Arc<Authorities>>>,
        mut leading: Leading,
        written: watch::Sender<String>,
    ) {
        loop {
            let mut wait = LOOK_INTERVAL;
            let current = authorities.borrow_and_update().clone();
            let all = Arc::clone(&wanted.borrow_and_update());
            match current {
                Some(current) if *leading.borrow_and_update() => {
                    wait = self.round(&all, &current, &written).await;
                }
                // Another one may write meanwhile: what was known then no longer is.
                _ => {
                    self.known.clear();
                    self.tell();
                }
            }
            let changed = tokio::select! {
                changed = wanted.changed() => changed,
                changed = authorities.changed() => changed,
                changed = leading.changed() => changed,
                () = tokio::time::sleep(wait) => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Does what is due, and says when to look again.
    async fn round(
        &mut self,
        all: &[CertificateWanted],
        authorities: &Authorities,
        written: &watch::Sender<String>,
    ) -> Duration {
        let now = self.config.clock.since_epoch().as_secs();
        if all.len() > WANTED_MAX {
            tracing::error!(
                wanted = all.len(),
                limit = WANTED_MAX,
                "too many certificates; those beyond are not made"
            );
        }
        let all = all.get(..WANTED_MAX).unwrap_or(all);
        let (mut jobs, mut keep) = (Vec::new(), HashMap::with_capacity(all.len()));
        for wanted in all {
            let key = (wanted.namespace.clone(), wanted.secret.clone());
            let known = self.known.remove(&key).unwrap_or_default();
            let made_of = made_of(wanted, authorities);
            if now >= known.look_at || (known.made_of != made_of && known.failures == 0) {
                jobs.push(Job {
                    key,
                    wanted: wanted.clone(),
                    made_of,
                    known,
                });
            } else {
                keep.insert(key, known);
            }
        }
        self.known = keep;
        let done: Vec<_> = futures_util::stream::iter(jobs)
            .map(|job| self.attempt(job, authorities, now))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        self.known.extend(done);
        self.tell();
        let current = |wanted: &CertificateWanted| {
            let key = (wanted.namespace.clone(), wanted.secret.clone());
            let known = self.known.get(&key);
            known.is_some_and(|known| known.made_of == made_of(wanted, authorities))
        };
        if all.iter().all(current) {
            written.send_if_modified(|before| {
                let now = authorities.fingerprint();
                let differs = *before != now;
                *before = now;
                differs
            });
        }
        let next = self.known.values().map(|known| known.look_at).min();
        let next = next.unwrap_or(u64::MAX).saturating_sub(now).max(1);
        Duration::from_secs(next).min(LOOK_INTERVAL)
    }

    async fn attempt(&self, job: Job, authorities: &Authorities, now: u64) -> (Key, Known) {
        let Job {
            key,
            wanted,
            made_of,
            known,
        } = job;
        let done = self
            .bring_about(&wanted, &made_of, &known, authorities, now)
            .await;
        let known = match done {
            Ok(not_after) => Known {
                made_of,
                not_after,
                look_at: self.renew_at(&key, not_after).min(now + LOOK_AGAIN_S),
                failures: 0,
            },
            Err(error) => {
                let result = match &error {
                    LeafError::Foreign => Written::Foreign,
                    _ => Written::Failed,
                };
                self.metrics.wrote(result);
                let wait = RETRY_MIN_S << known.failures.min(10);
                let wait = wait.min(RETRY_MAX_S);
                if is_leaving(&error) {
                    tracing::debug!(namespace = %key.0, secret = %key.1, "no certificate: the namespace is going");
                } else {
                    tracing::error!(
                        error = %format!("{:#}", anyhow::Error::new(error)), namespace = %key.0, secret = %key.1, wait_s = wait,
                        "certificate not written; it is tried again"
                    );
                }
                Known {
                    look_at: now + wait,
                    failures: known.failures.saturating_add(1),
                    ..known
                }
            }
        };
        (key, known)
    }

    /// The certificate is there and good; says when it ends.
    async fn bring_about(
        &self,
        wanted: &CertificateWanted,
        made_of: &str,
        known: &Known,
        authorities: &Authorities,
        now: u64,
    ) -> Result<u64, LeafError> {
        let key = (wanted.namespace.clone(), wanted.secret.clone());
        let good = |made: &str, not_after| made == made_of && now < self.renew_at(&key, not_after);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &wanted.namespace);
        // What we wrote ourselves and is to be replaced need not be looked at.
        let may_be_there = known.made_of.is_empty() || good(&known.made_of, known.not_after);
        if may_be_there
            && let Some((made, not_after)) = look(&api, &wanted.secret).await?
            && good(&made, not_after)
        {
            return Ok(not_after);
        }
        let lifetime = self.config.lifetimes.leaf;
        let leaf = authorities.issuer.issue(&wanted.dns_names, now, lifetime)?;
        let mut annotations = BTreeMap::new();
        annotations.insert(MADE_OF.to_owned(), made_of.to_owned());
        annotations.insert(NOT_AFTER.to_owned(), leaf.not_after.to_string());
        let bytes = |text: String| ByteString(text.into_bytes());
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(wanted.secret.clone()),
                namespace: Some(wanted.namespace.clone()),
                labels: Some(labels(wanted)),
                annotations: Some(annotations),
                owner_references: wanted.owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(BTreeMap::from([
                ("tls.crt".to_owned(), bytes(leaf.certificate)),
                ("tls.key".to_owned(), bytes(leaf.key)),
                ("ca.crt".to_owned(), bytes(authorities.bundle())),
            ])),
            ..Secret::default()
        };
        let apply = PatchParams::apply(MANAGER).force();
        api.patch_metadata(&wanted.secret, &apply, &Patch::Apply(&secret))
            .await?;
        self.metrics.wrote(Written::Done);
        tracing::info!(namespace = %wanted.namespace, secret = %wanted.secret, "certificate written");
        Ok(leaf.not_after)
    }

    /// When a third of its time is left, and a little earlier for some than for others: what was made at once is not renewed at once.
    fn renew_at(&self, key: &Key, not_after: u64) -> u64 {
        let lifetime = self.config.lifetimes.leaf.as_secs();
        let spread = key.0.bytes().chain(key.1.bytes());
        let spread = spread.fold(0_u64, |sum, octet| {
            sum.wrapping_mul(31).wrapping_add(octet.into())
        });
        let earlier = lifetime / 3 + lifetime / 20 * (spread % 100) / 100;
        not_after.saturating_sub(earlier)
    }

    fn tell(&self) {
        let failing = self.known.values().filter(|known| known.failures > 0);
        self.metrics.failing.set(gauge(failing.count()));
        let there = self.known.iter().filter(|(_, known)| known.not_after > 0);
        let ends: CertificateEnds = there
            .map(|(key, known)| (key.clone(), known.not_after))
            .collect();
        self.metrics
            .others_end(ends.values().min().copied().unwrap_or(0));
        self.ends.send_if_modified(|told| {
            let differs = **told != ends;
            if differs {
                *told = Arc::new(ends);
            }
            differs
        });
    }
}

/// What the Secret says of itself; none: there is no such Secret.
async fn look(api: &Api<Secret>, name: &str) -> Result<Option<(String, u64)>, LeafError> {
    let params = PatchParams {
        dry_run: true,
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let nothing = Patch::Merge(serde_json::json!({}));
    let found = match api.patch_metadata(name, &params, &nothing).await {
        Ok(found) => found.metadata,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let label = found
        .labels
        .as_ref()
        .and_then(|labels| labels.get(MANAGED_BY));
    if label.map(String::as_str) != Some(MANAGER) {
        return Err(LeafError::Foreign);
    }
    let annotation = |name| found.annotations.as_ref().and_then(|all| all.get(name));
    let made = annotation(MADE_OF).cloned().unwrap_or_default();
    let not_after = annotation(NOT_AFTER).and_then(|text| text.parse().ok());
    Ok(Some((made, not_after.unwrap_or(0))))
}

fn labels(wanted: &CertificateWanted) -> BTreeMap<String, String> {
    let mut labels = wanted.labels.clone();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// Changes with whatever the Secret is made of, and with nothing else.
fn made_of(wanted: &CertificateWanted, authorities: &Authorities) -> String {
    let owner = wanted.owner.as_ref().map(|owner| &owner.uid);
    let all = format!(
        "{} {:?} {owner:?} {:?}",
        authorities.fingerprint(),
        wanted.dns_names,
        labels(wanted)
    );
    short_hash(all.as_bytes())
}

/// The namespace is gone or going, and its Secrets with it: nobody's fault.
fn is_leaving(error: &LeafError) -> bool {
    match error {
        LeafError::Api(kube::Error::Api(status)) => {
            status.code == 404
                || (status.code == 403 && status.message.contains("because it is being terminated"))
        }
        _ => false,
    }
}
