//! The gRPC server around a service: OCP, health (grpc.health.v1), reflection, drain.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::{Fuse, FusedFuture as _};
use opes_proto::ocp::Frame;
use opes_proto::ocp::callout_server::{Callout, CalloutServer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::config::ServerConfig;
use crate::connection::{self, Shutdown};
use crate::host;
use crate::listener::Listener;
use crate::service::Service;
use crate::tls::{self, Generation};

/// HTTP/2 windows: wide, because credit per transaction is what slows a sender down.
const STREAM_WINDOW_OCTETS: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_OCTETS: u32 = 8 * 1024 * 1024;

/// Largest HTTP/2 frame we accept; fewer, larger ones are cheaper.
const HTTP2_FRAME_OCTETS: u32 = 256 * 1024;

/// OCP connections on one transport connection, health checks included.
const STREAMS_MAX: u32 = 64;

/// A peer that is gone without a word is noticed after these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Frames between a connection's task and the transport.
const FRAMES_QUEUED: usize = 4;

/// Callers whose handshake is done and whom the transport has not taken yet.
const CALLERS_QUEUED: usize = 16;

/// The last second of the year 9999: later ones have no HTTP date.
const DATE_MAX: Duration = Duration::from_secs(253_402_300_799);

/// A connection under TLS is drained after this, whatever the processor does: who got in with a certificate that has
/// expired since has to show another one.
const TLS_CONNECTION_AGE_MAX: Duration = Duration::from_hours(2);

/// For the last frames to get out once all connections were told to close.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// For [`Service::stop`].
pub const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Serves until `shutdown`, then drains: running transactions and what runs beside finish (for at most [`ServerConfig::drain`]), new
/// ones are refused, health says `NOT_SERVING`. Ends after [`Service::stop`].
pub async fn serve<S: Service>(
    service: Arc<S>,
    listener: Listener,
    config: ServerConfig,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let served = transactions(Arc::clone(&service), listener, config, shutdown).await;
    if tokio::time::timeout(STOP_TIMEOUT, service.stop())
        .await
        .is_err()
    {
        tracing::warn!("the service was not done {STOP_TIMEOUT:?} after its last transaction");
    }
    served
}

async fn transactions<S: Service>(
    service: Arc<S>,
    listener: Listener,
    config: ServerConfig,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<CalloutServer<Harness<S>>>().await;
    let hard = CancellationToken::new();
    let orders = Shutdown {
        drain: shutdown.clone(),
        now: hard.clone(),
    };
    let beside = Arc::clone(&service).background(shutdown.clone());
    let mut beside = AbortOnDropHandle::new(tokio::spawn(beside)).fuse();
    let (frame_octets_max, drain) = (config.frame_octets_max, config.drain);
    let callout = CalloutServer::new(Harness {
        service,
        config,
        shutdown: orders,
    })
    .max_decoding_message_size(frame_octets_max)
    .max_encoding_message_size(usize::MAX);
    let router = transport()
        .add_service(health_service)
        .add_service(reflection()?)
        .add_service(callout);
    let watch = shutdown.clone();
    let serving = accept(router, listener, async move {
        watch.cancelled().await;
        health.set_not_serving::<CalloutServer<Harness<S>>>().await;
        health
            .set_service_status("", tonic_health::ServingStatus::NotServing)
            .await;
    });
    let time_is_up = time_is_up(&shutdown, drain);
    tokio::pin!(serving, time_is_up);
    tokio::select! {
        result = &mut serving => {
            result?;
            return tokio::select! {
                result = end(&mut beside) => result,
                () = time_is_up => Ok(()),
            };
        }
        error = failure(&mut beside) => return Err(error),
        () = &mut time_is_up => hard.cancel(),
    }
    tracing::warn!(
        "connections still open at the end of the drain time were cut, with the transactions on them"
    );
    tokio::time::timeout(CLOSE_GRACE, serving)
        .await
        .unwrap_or(Ok(()))
}

/// What runs beside the service.
type Beside = Fuse<AbortOnDropHandle<anyhow::Result<()>>>;

/// Waits for what runs beside to fail; its end alone is no reason to end.
async fn failure(beside: &mut Beside) -> anyhow::Error {
    match end(beside).await {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}

/// Waits for its end, unless that was seen already.
async fn end(beside: &mut Beside) -> anyhow::Result<()> {
    if beside.is_terminated() {
        return Ok(());
    }
    beside
        .await
        .unwrap_or_else(|panic| Err(panic).context("what runs beside the service broke"))
}

async fn time_is_up(shutdown: &CancellationToken, drain: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(drain).await;
}

fn transport() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_OCTETS)
        .initial_connection_window_size(CONNECTION_WINDOW_OCTETS)
        .max_frame_size(HTTP2_FRAME_OCTETS)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
}

fn reflection() -> anyhow::Result<
    tonic_reflection::server::v1::ServerReflectionServer<
        impl tonic_reflection::server::v1::ServerReflection,
    >,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(opes_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("the protocol's descriptors do not fit together: a fault of the build")
}

async fn accept(
    router: Router,
    listener: Listener,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let address = listener.address();
    let result = match listener {
        Listener::Tcp(listener) => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            router
                .serve_with_incoming_shutdown(incoming, shutdown)
                .await
        }
        Listener::Tls(listener, material) => {
            let (callers, incoming) = mpsc::channel(CALLERS_QUEUED);
            tokio::spawn(tls::accept(listener, material, callers));
            let incoming = ReceiverStream::new(incoming);
            router
                .serve_with_incoming_shutdown(incoming, shutdown)
                .await
        }
        Listener::Host(listener) => {
            router
                .serve_with_incoming_shutdown(host::incoming(listener), shutdown)
                .await
        }
        Listener::Unix(listener) => {
            let incoming = UnixListenerStream::new(listener);
            router
                .serve_with_incoming_shutdown(incoming, shutdown)
                .await
        }
    };
    result.with_context(|| format!("serving on {address} ended"))
}

/// The gRPC face of a service.
struct Harness<S> {
    service: Arc<S>,
    config: ServerConfig,
    shutdown: Shutdown,
}

#[async_trait]
impl<S: Service> Callout for Harness<S> {
    type ConnectStream = ReceiverStream<Result<Frame, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (frames, outbound) = mpsc::channel(FRAMES_QUEUED);
        let (service, config) = (Arc::clone(&self.service), self.config.clone());
        let generation = request.extensions().get::<Generation>().cloned();
        let orders = Shutdown {
            drain: self.shutdown.drain.child_token(),
            now: self.shutdown.now.clone(),
        };
        let drain = orders.drain.clone();
        let connection = connection::run(service, config, request.into_inner(), frames, orders);
        tokio::spawn(until_renewed(connection, generation, drain));
        let mut response = Response::new(ReceiverStream::new(outbound));
        // The transport would put the system's; with another clock a simulation could not be repeated.
        let since_epoch = self.config.clock.since_epoch().min(DATE_MAX);
        if let Ok(date) = httpdate::fmt_http_date(UNIX_EPOCH + since_epoch).parse() {
            response.metadata_mut().insert("date", date);
        }
        Ok(response)
    }
}

/// A connection that is old, or whose certificates are no longer in force, finishes what runs on it and takes nothing new; the processor
/// opens another one, if it still may.
async fn until_renewed(
    connection: impl Future<Output = ()>,
    generation: Option<Generation>,
    drain: CancellationToken,
) {
    tokio::pin!(connection);
    if let Some(Generation(over)) = generation {
        tokio::select! {
            () = &mut connection => return,
            () = over.cancelled() => drain.cancel(),
            () = tokio::time::sleep(TLS_CONNECTION_AGE_MAX) => drain.cancel(),
        }
    }
    connection.await;
}
