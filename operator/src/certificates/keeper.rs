//! The Secret of the authority: read by every replica, made and changed by the one that leads.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;

use super::metrics::{Metrics, gauge};
use super::own::LOOK_INTERVAL;
use super::state::{Authorities, Step};
use super::{AuthorityConfig, MANAGER};
use crate::shared::Leading;

/// After a write that failed; doubled each time, up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(5);

pub(super) struct Keeper {
    api: Api<Secret>,
    config: Arc<AuthorityConfig>,
    authorities: watch::Sender<Option<Arc<Authorities>>>,
    metrics: Metrics,
    /// As the API server has it.
    stored: Stored,
    retry: Duration,
}

enum Stored {
    /// Nothing was heard yet.
    Unknown,
    Missing,
    Present(Box<Secret>),
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(
        client: Client,
        config: Arc<AuthorityConfig>,
        authorities: watch::Sender<Option<Arc<Authorities>>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            api: Api::namespaced(client, &config.namespace),
            config,
            authorities,
            metrics,
            stored: Stored::Unknown,
            retry: RETRY_MIN,
        }
    }

    pub(super) async fn run(mut self, mut leading: Leading, mut written: watch::Receiver<String>) {
        let events = watch_object(self.api.clone(), &self.config.secret).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut wait = LOOK_INTERVAL;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(secret)) => self.heard(secret),
                    Some(Err(error)) => tracing::warn!(
                        %error, secret = %self.config.secret,
                        "the authority's Secret cannot be watched; the last one stays in force"
                    ),
                    None => return,
                },
                changed = leading.changed() => if changed.is_err() { return },
                changed = written.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
            wait = LOOK_INTERVAL;
            if *leading.borrow_and_update() {
                let all_written = self.all_written(&written.borrow_and_update());
                wait = self.act(all_written).await;
            }
        }
    }

    fn heard(&mut self, secret: Option<Secret>) {
        let Some(secret) = secret else {
            self.stored = Stored::Missing;
            return;
        };
        match Authorities::read(&secret) {
            Ok(authorities) => self.publish(authorities),
            // Whatever it is, it is somebody's; it is not overwritten.
            Err(error) => tracing::error!(
                %error, secret = %self.config.secret,
                "the authority's Secret cannot be used; the last one stays in force. Put it right, or delete it and another is made"
            ),
        }
        self.stored = Stored::Present(Box::new(secret));
    }

    fn publish(&self, authorities: Authorities) {
        let metrics = &self.metrics;
        metrics
            .authority_expiry
            .set(gauge(authorities.issuer.not_after));
        metrics.authorities.set(gauge(authorities.trusted.len()));
        self.authorities.send_if_modified(|current| {
            let differs = current.as_deref() != Some(&authorities);
            if differs {
                *current = Some(Arc::new(authorities));
            }
            differs
        });
    }

    fn all_written(&self, written: &str) -> bool {
        let current = self.authorities.borrow();
        current
            .as_ref()
            .is_some_and(|authorities| authorities.fingerprint() == written)
    }

    /// Takes the step that is due, if one is. Says when to look again.
    async fn act(&mut self, all_written: bool) -> Duration {
        let now = self.config.clock.since_epoch().as_secs();
        let done = match &self.stored {
            Stored::Unknown => return LOOK_INTERVAL,
            Stored::Missing => self.create(now).await,
            Stored::Present(secret) => self.advance(secret, now, all_written).await,
        };
        match done {
            Ok(wait) => {
                self.retry = RETRY_MIN;
                wait.min(LOOK_INTERVAL)
            }
            Err(error) => {
                tracing::error!(
                    error = %format!("{error:#}"), secret = %self.config.secret,
                    "the authority's Secret was not written; it is tried again"
                );
                let wait = self.retry;
                self.retry = (wait * 2).min(RETRY_MAX);
                wait
            }
        }
    }

    async fn create(&self, now: u64) -> anyhow::Result<Duration> {
        // Who deleted the Secret did not want every connection to fail: the authority is still known.
        let last = self.authorities.borrow().as_deref().cloned();
        let authorities = match last {
            Some(last) => last,
            None => Authorities::begin(now, &self.config.lifetimes)?,
        };
        let mut secret = Secret {
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        };
        secret.metadata.name = Some(self.config.secret.clone());
        secret.metadata.labels = Some(
            [
                ("app.kubernetes.io/name", "opes-operator"),
                ("app.kubernetes.io/managed-by", MANAGER),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        );
        authorities.write(&mut secret);
        match self.api.create(&params(), &secret).await {
            Ok(_) => {
                tracing::info!(authority = %authorities.issuer.id, secret = %self.config.secret, "authority made");
                Ok(LOOK_INTERVAL)
            }
            Err(error) if is_conflict(&error) => Ok(RETRY_MIN),
            Err(error) => Err(error.into()),
        }
    }

    async fn advance(
        &self,
        secret: &Secret,
        now: u64,
        all_written: bool,
    ) -> anyhow::Result<Duration> {
        // One that cannot be used was told of when it came.
        let Ok(current) = Authorities::read(secret) else {
            return Ok(LOOK_INTERVAL);
        };
        let lifetimes = &self.config.lifetimes;
        let Some(next) = current.next_step(now, lifetimes, all_written)? else {
            let due = current.due(now, lifetimes, all_written);
            return Ok(Duration::from_secs(due.saturating_sub(now).max(1)));
        };
        let mut changed = secret.clone();
        next.write(&mut changed);
        match self
            .api
            .replace(&secret.name_any(), &params(), &changed)
            .await
        {
            Ok(_) => {
                let step = match next.step {
                    Step::Announced(_) => "another one is believed beside it",
                    Step::Switched(_) => "the new one signs",
                    Step::Steady => "the old one is believed no more",
                };
                tracing::info!(authority = %next.issuer.id, step, "authority in rotation");
                // The watch brings it.
                Ok(LOOK_INTERVAL)
            }
            // Changed by somebody else: the watch brings that.
            Err(error) if is_conflict(&error) => Ok(RETRY_MIN),
            Err(error) => Err(error.into()),
        }
    }
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// Somebody was faster: it exists, or has changed.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
