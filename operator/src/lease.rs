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
/// For one attempt.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Attempts to give it back that somebody may cross.
const RELEASES_MAX: u32 = 3;

/// One replica's view of the Lease.
#[derive(Debug)]
pub struct Candidacy {
    api: Api<Lease>,
    identity: String,
    seen: Option<Observed>,
    /// When the last renewal that succeeded was asked for.
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
        while !shutdown.is_cancelled() {
            // Others may count from the moment in which the API server writes, which is after this one.
            let asked = Instant::now();
            let end = self.renewed.map(|at| at + DEADLINE);
            // Not given up at shutdown: what is half written could be neither kept nor given back.
            let outcome = {
                let attempt = tokio::time::timeout(TIMEOUT, self.attempt());
                let mut attempt = std::pin::pin!(attempt);
                tokio::select! {
                    outcome = &mut attempt => outcome,
                    () = reached(end) => {
                        tell(&leading, false);
                        attempt.await
                    }
                }
            };
            match outcome {
                Ok(Ok(true)) => self.renewed = Some(asked),
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
        tell(&leading, false);
        // Whatever we believe: a request whose answer we did not wait for may have made it ours.
        if tokio::time::timeout(TIMEOUT, self.release()).await.is_err() {
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
        for _ in 0..RELEASES_MAX {
            match self.give_back().await {
                Ok(()) => return,
                // A request that was given up has arrived in between.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => {
                    tracing::warn!(%error, "lease could not be given back");
                    return;
                }
            }
        }
        tracing::warn!("lease could not be given back: it changes all the time");
    }

    /// Nothing if it is somebody else's.
    async fn give_back(&self) -> Result<(), kube::Error> {
        let Some(lease) = self.api.get_opt(LEASE).await? else {
            return Ok(());
        };
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
            .await?;
        Ok(())
    }
}

/// Never, if there is no such moment.
async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
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
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use hyper::Method;
    use kube::client::Body;

    use super::*;

    type Request = hyper::Request<Body>;
    type Response = hyper::Response<Body>;

    fn candidacy() -> Candidacy {
        with_server(|_| async { Err(std::io::Error::other("no network in this test")) })
    }

    fn with_server<F>(serve: impl Fn(Request) -> F + Send + 'static) -> Candidacy
    where
        F: Future<Output = std::io::Result<Response>> + Send + 'static,
    {
        let identity = Identity {
            namespace: "opes".into(),
            name: "me".into(),
        };
        Candidacy::new(Client::new(tower::service_fn(serve), "opes"), &identity)
    }

    fn answer(status: u16, body: &impl serde::Serialize) -> std::io::Result<Response> {
        let body = Body::from(serde_json::to_vec(body)?);
        let response = hyper::Response::builder().status(status).body(body);
        response.map_err(std::io::Error::other)
    }

    fn refusal(code: u16, reason: &str) -> std::io::Result<Response> {
        let status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "",
        });
        answer(code, &status)
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

    #[tokio::test(start_paused = true)]
    async fn who_cannot_renew_leads_no_longer_than_others_wait() {
        let requests = Arc::new(AtomicU32::new(0));
        let candidacy = with_server(move |_| {
            let number = requests.fetch_add(1, Ordering::Relaxed);
            async move {
                match number {
                    0 => refusal(404, "NotFound"),
                    1 => answer(201, &lease("me", "1")),
                    // From here on the API server says nothing.
                    _ => std::future::pending().await,
                }
            }
        });
        let (leading, mut leads) = watch::channel(false);
        let begun = Instant::now();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(candidacy.run(leading, shutdown.clone()));
        leads.wait_for(|leads| *leads).await.unwrap();
        assert!(begun.elapsed() < RENEW);
        leads.wait_for(|leads| !*leads).await.unwrap();
        let led = begun.elapsed();
        assert!(
            led >= RENEW && led < DEADLINE + Duration::from_millis(10),
            "{led:?}"
        );
        shutdown.cancel();
        running.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_arrives_late_is_given_back_too() {
        // The Lease as the server has it; a renewal that nobody waited for is written between two requests of the release.
        let stored = Arc::new(Mutex::new((String::new(), 1)));
        let (kept, crossed) = (Arc::clone(&stored), AtomicU32::new(0));
        let candidacy = with_server(move |request: Request| {
            let mut stored = kept.lock().unwrap();
            let response = match *request.method() {
                Method::GET => answer(200, &lease(&stored.0, &stored.1.to_string())),
                _ if stored.0.is_empty() => {
                    *stored = ("me".into(), stored.1 + 1);
                    answer(200, &lease("me", &stored.1.to_string()))
                }
                _ if crossed.fetch_add(1, Ordering::Relaxed) == 0 => {
                    stored.1 += 1;
                    refusal(409, "Conflict")
                }
                _ => {
                    *stored = (String::new(), stored.1 + 1);
                    answer(200, &lease("", &stored.1.to_string()))
                }
            };
            async move { response }
        });
        let (leading, mut leads) = watch::channel(false);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(candidacy.run(leading, shutdown.clone()));
        leads.wait_for(|leads| *leads).await.unwrap();
        shutdown.cancel();
        running.await.unwrap();
        assert_eq!(stored.lock().unwrap().0, "", "it was kept");
    }
}
