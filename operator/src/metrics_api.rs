//! Load of pools for HorizontalPodAutoscalers: `external.metrics.k8s.io`, as the API server's aggregation layer asks for it.
//!
//! Only the API server may connect: its front proxy's certificate is asked for, of the authority and the names that the cluster keeps in
//! ConfigMap `kube-system/extension-apiserver-authentication`, which is followed. So there is no SubjectAccessReview here: the API
//! server has authenticated and authorised each request before it passes it on, and nobody else gets through the handshake.
//! `X-Remote-User` is not even looked at.
//!
//! Every replica serves; the one that leads registers the API, unless somebody else has ([`Standing`]). What
//! edges do not speak of is zero. There is no figure (503), and HPAs do nothing, before edges had the time to say anything and while there
//! are none.

mod answers;
mod front_proxy;
mod metrics;
mod registration;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use kube::Client;
use opes_tls::{MutualTexts, ServerTls};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::front_proxy::FrontProxy;
pub use self::metrics::Metrics;
pub use self::registration::{Standing, remove};
use crate::certificates::OwnCertificates;
use crate::scaler::{Busy, WARM_UP};
use crate::serve::Served;
use crate::serve::accept::{self, Secured};
use crate::shared::Leading;

/// Port of our Service that leads here.
pub const PORT: u16 = 443;
/// Connections of API servers at once; each has one, and asks on it.
const CONNECTIONS_MAX: usize = 64;
/// Requests on one connection at once.
const STREAMS_MAX: u32 = 256;
/// For the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// An API server that is gone without a word is noticed after these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// For running requests to end.
const CLOSE_GRACE: Duration = Duration::from_secs(3);
/// HTTP/2 where the API server speaks it, and it may have been told not to.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How the API is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsApiConfig {
    /// Namespace of our Service.
    pub namespace: String,
    /// Our Service.
    pub service: String,
    /// Its port that leads here: [`PORT`].
    pub port: u16,
    /// Our ClusterRole: owns the registration, so that it goes with it. None: nobody does.
    pub cluster_role: Option<String>,
}

/// Serves until `shutdown`, and keeps the registration. Says to `standing` whose the API is.
#[allow(clippy::too_many_arguments)] // Each is another part of the program's; wiring is in `main`.
pub async fn run(
    client: Client,
    listener: TcpListener,
    own: OwnCertificates,
    config: MetricsApiConfig,
    served: Served,
    leading: Leading,
    standing: watch::Sender<Standing>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let registering = registration::keep(
        client.clone(),
        config,
        own.clone(),
        leading,
        standing,
        metrics.clone(),
    );
    let busy = Busy::new(&served, WARM_UP);
    let serving = serve(client, listener, own, busy, metrics, &shutdown);
    tokio::select! {
        result = serving => result,
        () = registering => {
            shutdown.cancelled().await;
            Ok(())
        }
    }
}

async fn serve(
    client: Client,
    listener: TcpListener,
    mut own: OwnCertificates,
    busy: Busy,
    metrics: Metrics,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let (sender, mut proxy) = watch::channel(None);
    let _following = AbortOnDropHandle::new(tokio::spawn(front_proxy::follow(client, sender)));
    let tls = loop {
        if let Some(texts) = texts(&mut own, &mut proxy) {
            match ServerTls::server_in_memory(&texts) {
                Ok(tls) => break tls,
                Err(error) => tracing::error!(%error, "the metrics API is not served"),
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = either(&mut own, &mut proxy) => {}
        }
    };
    let _renewing = AbortOnDropHandle::new(tokio::spawn(renew(own, proxy.clone(), tls.clone())));
    let (callers, mut incoming) = mpsc::channel(CONNECTIONS_MAX);
    let material = move || {
        let (config, over) = tls.current();
        let mut config = ServerConfig::clone(&config);
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        (Arc::new(config), over)
    };
    let refused = metrics.refused.clone();
    let refused = move || {
        refused.inc();
    };
    let door = accept::accept(listener, CONNECTIONS_MAX, material, callers, refused);
    let _door = AbortOnDropHandle::new(tokio::spawn(door));
    let connections = TaskTracker::new();
    loop {
        let secured = tokio::select! {
            () = shutdown.cancelled() => break,
            secured = incoming.recv() => secured,
        };
        let Some(Ok(secured)) = secured else { break };
        let names = proxy.borrow().as_ref().map(Arc::clone);
        if names.is_some_and(|proxy| proxy.admits(secured.caller().certificate.as_ref())) {
            connections.spawn(connection(
                secured,
                busy.clone(),
                metrics.clone(),
                shutdown.clone(),
            ));
        } else {
            metrics.refused.inc();
            tracing::warn!(
                "a caller of the metrics API has a certificate of the front proxy's authority, but not its name"
            );
        }
    }
    connections.close();
    let _elapsed = tokio::time::timeout(CLOSE_GRACE, connections.wait()).await;
    Ok(())
}

/// Ours, and whom to let in; none: one of both is not known yet.
fn texts(
    own: &mut OwnCertificates,
    proxy: &mut watch::Receiver<Option<Arc<FrontProxy>>>,
) -> Option<MutualTexts> {
    let own = own.borrow_and_update().clone()?;
    let proxy = proxy.borrow_and_update().clone()?;
    Some(MutualTexts {
        ca: proxy.ca.clone(),
        ..MutualTexts::clone(&own)
    })
}

async fn renew(
    mut own: OwnCertificates,
    mut proxy: watch::Receiver<Option<Arc<FrontProxy>>>,
    tls: ServerTls,
) {
    loop {
        either(&mut own, &mut proxy).await;
        let fresh = texts(&mut own, &mut proxy);
        if let Some(Err(error)) = fresh.map(|fresh| tls.replace(&fresh)) {
            tracing::error!(%error, "the metrics API goes on with the certificates that it has");
        }
    }
}

/// One of both has changed. A sender that is gone changes nothing any more.
async fn either(own: &mut OwnCertificates, proxy: &mut watch::Receiver<Option<Arc<FrontProxy>>>) {
    tokio::select! {
        Ok(()) = own.changed() => {}
        Ok(()) = proxy.changed() => {}
        else => std::future::pending().await,
    }
}

async fn connection(secured: Secured, busy: Busy, metrics: Metrics, shutdown: CancellationToken) {
    let over = secured.caller().over.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = respond(&request, &busy, &metrics);
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let serving = builder.serve_connection(TokioIo::new(secured), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = async { tokio::select! { () = over.cancelled() => {}, () = shutdown.cancelled() => {} } } => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection of an API server ended");
    }
}

fn respond(request: &Request<Incoming>, busy: &Busy, metrics: &Metrics) -> Response<Full<Bytes>> {
    let uri = request.uri();
    let answer = answers::answer(busy, request.method(), uri.path(), uri.query());
    metrics.answered(answer.status);
    let mut response = Response::new(Full::new(Bytes::from(answer.body.to_string())));
    *response.status_mut() = answer.status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, json);
    response
}
