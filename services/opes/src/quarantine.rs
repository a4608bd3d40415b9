//! The quarantine of one edge: its store, wired to the edge, and the API of operators.

mod client;
mod table;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use opes_edge::config::{EdgeConfig, QuarantineConfig, S3Config};
use opes_edge::{Fate, Held, Outcome, Quarantine, Release, Releases};
use opes_quarantine::api::{Api, Released, Releaser, serve_tcp, serve_unix, unix_socket};
use opes_quarantine::{
    Backend, Filter, Metrics, PostgresConfig, ReleaseRequest, Store, StoreConfig, StoreError,
};
use opes_telemetry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use client::run;

/// The socket of the API in the spool folder.
const SOCKET: &str = "quarantine.sock";

/// Index and octets in the spool folder, without PostgreSQL and S3.
const FOLDER: &str = "quarantine-store";

/// A store that is open, before its edge runs.
pub(crate) struct Opened {
    store: Store,
    config: QuarantineConfig,
    socket: std::path::PathBuf,
}

/// Opens the store that the configuration names. A database that is away is no error: the edge keeps held messages until it is back.
pub(crate) fn open(config: &EdgeConfig, registry: &Registry) -> Result<Opened> {
    let quarantine = &config.quarantine;
    let backend = match (&quarantine.postgres, &quarantine.s3) {
        (Some(postgres), Some(s3)) => Backend::Shared {
            postgres: PostgresConfig {
                url: postgres.url.clone(),
                password: postgres.password_file.as_deref().map(secret).transpose()?,
            },
            s3: bucket(s3)?,
        },
        _ => Backend::Folder(config.spool.join(FOLDER)),
    };
    let store = StoreConfig {
        backend,
        keep: quarantine.keep,
    };
    let metrics = registry.with(Metrics::register);
    Ok(Opened {
        store: Store::open(&store, metrics).context("quarantine")?,
        config: quarantine.clone(),
        socket: config.spool.join(SOCKET),
    })
}

fn bucket(s3: &S3Config) -> Result<opes_quarantine::S3Config> {
    let credentials = match (&s3.access_key_id_file, &s3.secret_access_key_file) {
        (Some(id), Some(key)) => Some((secret(id)?, secret(key)?)),
        _ => None,
    };
    Ok(opes_quarantine::S3Config {
        endpoint: s3.endpoint.clone(),
        bucket: s3.bucket.clone(),
        region: s3.region.clone(),
        prefix: s3.prefix.clone(),
        credentials,
    })
}

fn secret(path: &Path) -> Result<secrecy::SecretString> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned().into())
}

impl Opened {
    /// For the edge's hooks.
    pub(crate) fn hook(&self) -> Arc<dyn Quarantine> {
        Arc::new(ForEdge(self.store.clone()))
    }

    /// Held messages that are on this machine only: at least one, or none.
    pub(crate) async fn held_here(&self) -> Result<u64> {
        if self.config.postgres.is_some() {
            return Ok(0);
        }
        let page = self.store.list(&Filter::default()).await?;
        Ok(page.entries.len() as u64)
    }

    /// Removes what is kept long enough, until `stop`.
    pub(crate) fn sweep(self, stop: &CancellationToken) {
        let (store, stop) = (self.store, stop.clone());
        tokio::spawn(async move { store.sweep(stop).await });
    }

    /// Serves operators and sweeps until `stop`.
    pub(crate) async fn serve(self, releases: &Releases, stop: &CancellationToken) -> Result<()> {
        let api = Api {
            store: self.store.clone(),
            releaser: Arc::new(ForOperators {
                store: self.store.clone(),
                releases: releases.clone(),
            }),
        };
        match unix_socket(&self.socket) {
            Ok(local) => {
                println!("listening quarantine http {}", self.socket.display());
                let serve = serve_unix(local, api.clone());
                tokio::spawn(stop.clone().run_until_cancelled_owned(serve));
            }
            // Mail goes on; the operator finds out why the command does not reach the edge.
            Err(error) => tracing::error!(
                %error,
                "no socket for `opes quarantine`: its path may have 90 octets, choose a shorter `spool` or set `quarantine.api`"
            ),
        }
        if let Some(remote) = &self.config.api {
            let listener = TcpListener::bind(remote.address).await.with_context(|| {
                format!(
                    "cannot listen on {}\n  help: choose another `quarantine.api.address`",
                    remote.address
                )
            })?;
            println!("listening quarantine-api http {}", listener.local_addr()?);
            let serve = serve_tcp(listener, api, remote.token_file.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(serve));
        }
        self.sweep(stop);
        Ok(())
    }
}

/// The store as an edge wants it.
struct ForEdge(Store);

impl Quarantine for ForEdge {
    fn hold<'a>(
        &'a self,
        edge: &'a str,
        held: &'a Held,
        content: &'a Path,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let held = opes_quarantine::Held {
                id: held.id.clone(),
                edge: edge.into(),
                queue: held.queue.clone(),
                reason: held.reason.clone(),
                rule: held.rule.clone(),
                service: held.service.clone(),
                held_at_ms: held.held_at_ms,
                envelope: held.envelope.clone(),
            };
            Ok(self.0.hold(&held, content).await?)
        })
    }

    fn unfinished<'a>(&'a self, edge: &'a str) -> BoxFuture<'a, Result<Vec<Release>>> {
        Box::pin(async move {
            let unfinished = self.0.unfinished_releases(edge).await?;
            Ok(unfinished
                .into_iter()
                .map(|release| for_edge(&self.0, release))
                .collect())
        })
    }

    fn finish<'a>(&'a self, release: &'a str) -> BoxFuture<'a, Result<Fate>> {
        Box::pin(async move {
            Ok(match self.0.finish_release(release).await? {
                opes_quarantine::Fate::Deliver => Fate::Deliver,
                opes_quarantine::Fate::Withdraw => Fate::Withdraw,
            })
        })
    }
}

fn for_edge(store: &Store, release: opes_quarantine::Release) -> Release {
    let (id, envelope) = (release.id.clone(), release.envelope.clone());
    let (store, release) = (store.clone(), Arc::new(release));
    Release {
        id,
        envelope,
        content: Box::new(move |offset| {
            let (store, release) = (store.clone(), Arc::clone(&release));
            Box::pin(async move { Ok(store.read_release(&release, offset).await?) })
        }),
    }
}

/// Releases on behalf of operators.
struct ForOperators {
    store: Store,
    releases: Releases,
}

impl Releaser for ForOperators {
    fn release<'a>(
        &'a self,
        id: &'a str,
        request: &'a ReleaseRequest,
        by: &'a str,
    ) -> BoxFuture<'a, Result<Released, StoreError>> {
        Box::pin(async move {
            let (tell, told) = tokio::sync::oneshot::channel();
            let (store, edge) = (self.store.clone(), self.releases.edge().to_owned());
            let (id, request, by) = (id.to_owned(), request.clone(), by.to_owned());
            let begin = async move {
                let release = store.begin_release(&id, &request, &edge, &by).await?;
                let recipients = release.envelope.recipients.iter();
                let released = Released {
                    release: release.id.clone(),
                    recipients: recipients
                        .map(|recipient| recipient.address.clone())
                        .collect(),
                };
                // Nobody waits for it when the operator has gone.
                let _ = tell.send(released);
                Ok::<_, StoreError>(for_edge(&store, release))
            };
            match self.releases.release(begin).await? {
                Outcome::Released => told.await.map_err(|_| {
                    StoreError::Pending("its end was not told; `opes quarantine show` does".into())
                }),
                Outcome::Cancelled => Err(StoreError::Request(
                    "another operator cancelled the release meanwhile".into(),
                )),
                Outcome::Pending(reason) => Err(StoreError::Pending(reason)),
            }
        })
    }
}
