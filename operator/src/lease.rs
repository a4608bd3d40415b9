//! The Lease `opes-operator`: who of the replicas writes.
//!
//! Whether another holder is alive is judged by whether its Lease changes while we look, by our clock alone: clocks of machines differ.
//! A holder that cannot renew stops writing before another one may begin. Losing the Lease, or the API server, ends nothing else.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Identity;

/// Name of the Lease.
pub const LEASE: &str = "opes-operator";
/// A Lease that was not renewed for this long is anybody's.
pub const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews it.
const RENEW: Duration = Duration::from_secs(5);
/// How often the others look at it.
const RETRY: Duration = Duration::from_secs(2);
/// A holder that has not renewed for this long stops writing.
const DEADLINE: Duration = Duration::from_secs(10);
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(4);

/// One replica's view of the Lease.
#[derive(Debug)]
pub struct Candidacy {
    api: Api<Lease>,
    identity: String,
    seen: Option<Observed>,
    renewed: Option<Instant>,
}

/// The Lease as it was when it last changed, and when that was.
#[derive(Debug)]
struct Observed {
    version: Option<String>,
    at: Instant,
}

/// What the Lease allows at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// It is ours.
    Renew,
    /// Nobody has it, or who has it is gone.
    Take,
    /// Somebody has it.
    Wait,
}

// === impl Candidacy ===

impl Candidacy {
    /// In the operator's own namespace.
    pub fn new(client: Client, identity: &Identity) -> Self {
        Self {
            api: Api::namespaced(client, &identity.namespace),
            identity: identity.name.clone(),
            seen: None,
            renewed: None,
        }
    }

    /// Stands until it is told to stop, and gives the Lease back then.
    pub async fn run(mut self, leading: watch::Sender<bool>, shutdown: CancellationToken) {
        loop {
            let attempt = tokio::time::timeout(TIMEOUT, self.attempt());
            let outcome = tokio::select! {
                outcome = attempt => outcome,
                () = shutdown.cancelled() => break,
            };
            match outcome {
                Ok(Ok(true)) => self.renewed = Some(Instant::now()),
                Ok(Ok(false)) => self.renewed = None,
                Ok(Err(error)) => tracing::warn!(%error, "lease could not be looked at"),
                Err(_) => tracing::warn!("lease could not be looked at in time"),
            }
            let holds = self.renewed.is_some_and(|at| at.elapsed() < DEADLINE);
            tell(&leading, holds);
            let pause = if holds { RENEW.min(self.left()) } else { RETRY };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => break,
            }
        }
        let held = *leading.borrow();
        tell(&leading, false);
        if held && tokio::time::timeout(TIMEOUT, self.release()).await.is_err() {
            tracing::warn!("lease could not be given back in time");
        }
    }

    /// After a failure the deadline is not slept over.
    fn left(&self) -> Duration {
        let elapsed = self.renewed.map_or(DEADLINE, |at| at.elapsed());
        if elapsed < TIMEOUT {
            RENEW
        } else {
            Duration::from_secs(1).min(DEADLINE.saturating_sub(elapsed))
        }
    }

    /// True: it is ours.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(LEASE).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(LEASE.into()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        match self.claim(&lease, Instant::now()) {
            Claim::Wait => Ok(false),
            Claim::Renew | Claim::Take => {
                let spec = Some(self.spec(lease.spec.as_ref()));
                let lease = Lease { spec, ..lease };
                won(self
                    .api
                    .replace(LEASE, &PostParams::default(), &lease)
                    .await)
            }
        }
    }

    fn claim(&mut self, lease: &Lease, now: Instant) -> Claim {
        let version = lease.metadata.resource_version.clone();
        if self
            .seen
            .as_ref()
            .is_none_or(|seen| seen.version != version)
        {
            self.seen = Some(Observed { version, at: now });
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        if holder == self.identity {
            return Claim::Renew;
        }
        let seconds = spec.lease_duration_seconds.unwrap_or_default();
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let expired = self
            .seen
            .as_ref()
            .is_some_and(|seen| now.duration_since(seen.at) >= duration);
        if holder.is_empty() || expired {
            Claim::Take
        } else {
            Claim::Wait
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours =
            before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before
            .and_then(|spec| spec.lease_transitions)
            .unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: before
                .filter(|_| ours)
                .and_then(|spec| spec.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(
                transitions.saturating_add(i32::from(!ours && before.is_some())),
            ),
            ..LeaseSpec::default()
        }
    }

    /// Another replica need not wait for the Lease to run out.
    async fn release(&self) {
        let released = async {
            let lease = self.api.get(LEASE).await?;
            let mut spec = lease.spec.clone().unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            let lease = Lease {
                spec: Some(spec),
                ..lease
            };
            self.api
                .replace(LEASE, &PostParams::default(), &lease)
                .await
                .map(|_| ())
        };
        let released: Result<(), kube::Error> = released.await;
        if let Err(error) = released {
            tracing::warn!(%error, "lease could not be given back");
        }
    }
}

/// A conflict means that somebody else was faster.
fn won(answer: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

fn tell(leading: &watch::Sender<bool>, holds: bool) {
    let changed = leading.send_if_modified(|leads| std::mem::replace(leads, holds) != holds);
    if changed {
        tracing::info!(leading = holds, "lease");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidacy() -> Candidacy {
        let service = tower::service_fn(|_: hyper::Request<kube::client::Body>| async {
            Err::<hyper::Response<kube::client::Body>, _>(std::io::Error::other(
                "no network in this test",
            ))
        });
        let identity = Identity {
            namespace: "opes".into(),
            name: "me".into(),
        };
        Candidacy::new(Client::new(service, "opes"), &identity)
    }

    fn lease(holder: &str, version: &str) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta {
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        };
        Lease {
            metadata,
            spec: Some(spec),
        }
    }

    #[tokio::test]
    async fn a_lease_is_taken_when_it_has_stood_still_for_its_duration() {
        let mut candidacy = candidacy();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(candidacy.claim(&lease("other", "1"), begin), Claim::Wait);
        assert_eq!(
            candidacy.claim(&lease("other", "1"), after(14)),
            Claim::Wait
        );
        assert_eq!(
            candidacy.claim(&lease("other", "2"), after(14)),
            Claim::Wait
        );
        assert_eq!(
            candidacy.claim(&lease("other", "2"), after(28)),
            Claim::Wait
        );
        assert_eq!(
            candidacy.claim(&lease("other", "2"), after(29)),
            Claim::Take
        );
    }

    #[tokio::test]
    async fn a_lease_that_was_given_back_is_taken_at_once() {
        let mut candidacy = candidacy();
        let now = Instant::now();
        assert_eq!(candidacy.claim(&lease("", "1"), now), Claim::Take);
        assert_eq!(candidacy.claim(&lease("me", "1"), now), Claim::Renew);
    }

    #[tokio::test]
    async fn taking_it_over_counts_and_renewing_does_not() {
        let candidacy = candidacy();
        let other = lease("other", "1").spec;
        let taken = candidacy.spec(other.as_ref());
        assert_eq!(taken.lease_transitions, Some(1));
        let renewed = candidacy.spec(Some(&taken));
        assert_eq!(renewed.lease_transitions, Some(1));
        assert_eq!(renewed.acquire_time, taken.acquire_time);
    }
}
