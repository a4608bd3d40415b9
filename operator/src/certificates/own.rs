//! This replica's own certificate: made in memory by the authority, or followed in a folder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use opes_reload::{OpenError, POLL_INTERVAL, Reloaded};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::authority::AuthorityError;
use super::metrics::Metrics;
use super::state::Authorities;
use super::{AuthorityConfig, OwnCertificate, OwnCertificates};

/// Longest wait before the clock is looked at again: it may have been set.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_mins(1);

/// Makes one whenever others sign or are believed, and when a third of the last one's time is left.
pub(super) async fn make(
    config: &AuthorityConfig,
    mut authorities: watch::Receiver<Option<Arc<Authorities>>>,
    own: &watch::Sender<Option<Arc<OwnCertificate>>>,
    metrics: &Metrics,
) {
    let (mut made_by, mut renew_at) = (String::new(), 0);
    loop {
        let now = config.clock.since_epoch().as_secs();
        let current = authorities.borrow_and_update().clone();
        if let Some(current) = current.filter(|c| c.fingerprint() != made_by || now >= renew_at) {
            match issue(config, &current, now) {
                Ok((certificate, not_after)) => {
                    made_by = current.fingerprint();
                    renew_at = not_after.saturating_sub(config.lifetimes.leaf.as_secs() / 3);
                    metrics.own_ends(not_after);
                    own.send_replace(Some(Arc::new(certificate)));
                    tracing::info!(authority = %current.issuer.id, "own certificate made");
                }
                // What cannot be made now is tried again at the next look.
                Err(error) => tracing::error!(%error, "own certificate not made"),
            }
        }
        let wait = Duration::from_secs(renew_at.saturating_sub(now).max(1)).min(LOOK_INTERVAL);
        tokio::select! {
            changed = authorities.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn issue(
    config: &AuthorityConfig,
    authorities: &Authorities,
    now: u64,
) -> Result<(OwnCertificate, u64), AuthorityError> {
    let leaf = authorities
        .issuer
        .issue(&config.own_names, now, config.lifetimes.leaf)?;
    let certificate = OwnCertificate {
        certificate: leaf.certificate,
        key: leaf.key,
        ca: authorities.bundle(),
    };
    Ok((certificate, leaf.not_after))
}

/// Follows `tls.crt`, `tls.key` and `ca.crt` in `folder`, a mounted Secret, until `shutdown`.
pub fn follow_folder(
    folder: &Path,
    shutdown: CancellationToken,
) -> Result<OwnCertificates, OpenError> {
    let paths = ["tls.crt", "tls.key", "ca.crt"].map(|name| folder.join(name));
    let files = Reloaded::open_all(paths, |_: [&Path; 3], [certificate, key, ca]| {
        Ok::<_, std::convert::Infallible>(OwnCertificate {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            ca: ca.to_owned(),
        })
    })?;
    let (own, followed) = watch::channel(Some(files.current()));
    tokio::spawn(async move {
        let mut sent = files.current();
        while !shutdown.is_cancelled() && !own.is_closed() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            let current = files.current();
            if !Arc::ptr_eq(&sent, &current) {
                sent = Arc::clone(&current);
                own.send_replace(Some(current));
            }
        }
    });
    Ok(followed)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use opes_host::Clock;
    use tokio::time::Instant;

    use super::*;
    use crate::certificates::authority::Facts;
    use crate::certificates::state::Lifetimes;

    #[tokio::test(start_paused = true)]
    async fn ours_is_made_anew_when_a_third_is_left_and_when_another_one_signs() {
        let (start, epoch) = (Instant::now(), 1_800_000_000);
        let clock = move || UNIX_EPOCH + Duration::from_secs(epoch) + start.elapsed();
        let config = AuthorityConfig {
            namespace: "opes".into(),
            secret: "opes-ca".into(),
            own_names: vec!["opes-operator.opes.svc".into()],
            lifetimes: Lifetimes::default(),
            clock: Clock::Other(Arc::new(clock)),
        };
        let (own, mut made_for_us) = watch::channel(None);
        let (authorities, followed) = watch::channel(None);
        tokio::spawn(async move { make(&config, followed, &own, &Metrics::default()).await });
        let mut next = async || {
            made_for_us.changed().await.unwrap();
            let made = made_for_us.borrow_and_update().clone().unwrap();
            (
                made.ca.clone(),
                Facts::of(&made.certificate).unwrap().not_after,
            )
        };
        let first = Authorities::begin(epoch, &Lifetimes::default()).unwrap();
        authorities.send_replace(Some(Arc::new(first.clone())));
        let leaf = Lifetimes::default().leaf.as_secs();
        assert_eq!(next().await, (first.bundle(), epoch + leaf));
        // The next one comes by itself, not before its time and at most one look after it.
        let (_, not_after) = next().await;
        let made_at = not_after - leaf - epoch;
        let due = leaf - leaf / 3;
        assert!(
            (due..=due + LOOK_INTERVAL.as_secs()).contains(&made_at),
            "{made_at}"
        );

        let second = Authorities::begin(epoch, &Lifetimes::default()).unwrap();
        authorities.send_replace(Some(Arc::new(second.clone())));
        assert_eq!(next().await.0, second.bundle());
    }

    #[tokio::test]
    async fn a_folder_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            assert!(follow_folder(folder.path(), CancellationToken::new()).is_err());
            put(name, "1");
        }
        let mut followed = follow_folder(folder.path(), CancellationToken::new()).unwrap();
        put("ca.crt", "22");
        followed
            .wait_for(|own| own.as_ref().is_some_and(|own| own.ca == "22"))
            .await
            .unwrap();
    }
}
