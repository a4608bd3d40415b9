//! Opens one OCP connection: transport, stream, negotiation. What comes out is a [`Handle`] to its task.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use opes_ocp::{Extensions, Limits, Processor, ProcessorConfig};
use opes_proto::ocp::callout_client::CalloutClient;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::ask::Ask;
use crate::availability::Availability;
use crate::balance::{Condition, Loss, NotOpened};
use crate::config::{ServiceClientConfig, Target};
use crate::error::CalloutError;
use crate::naming::Naming;
use crate::negotiated::{self, ADAPTED_CREDIT, Negotiated};
use crate::task::{self, Parts, describe};
use crate::tls;

/// HTTP/2 windows: wide, because credit per transaction is what slows a sender down.
const STREAM_WINDOW_OCTETS: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_OCTETS: u32 = 8 * 1024 * 1024;

/// Largest HTTP/2 frame we accept; fewer, larger ones are cheaper.
const HTTP2_FRAME_OCTETS: u32 = 256 * 1024;

/// A peer that is gone without a word is noticed after this and [`KEEP_ALIVE_TIMEOUT`].
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Frames between the connection's task and the transport.
const FRAMES_QUEUED: usize = 4;

/// A live connection. When the last one that holds it lets go, it ends with its last transaction.
#[derive(Debug)]
pub(crate) struct Handle {
    asks: mpsc::UnboundedSender<Ask>,
    availability: Arc<Availability>,
    tls: Option<tls::Link>,
    capacity: u32,
    pub(crate) naming: Arc<Naming>,
    pub(crate) negotiated: Negotiated,
}

impl Handle {
    /// Replaced certificates count at once, not when the connection's task has heard of it.
    pub(crate) fn condition(&self) -> Condition {
        match &self.tls {
            Some(link) if link.is_replaced() => Condition::Closed,
            _ => self.availability.condition(),
        }
    }

    pub(crate) fn loss(&self) -> Loss {
        self.availability.loss()
    }

    /// Transactions open at once.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Gives the ask back if the connection is over.
    pub(crate) fn ask(&self, ask: Ask) -> Result<(), Box<Ask>> {
        self.asks.send(ask).map_err(|error| Box::new(error.0))
    }

    pub(crate) fn asks(&self) -> mpsc::UnboundedSender<Ask> {
        self.asks.clone()
    }
}

/// Connects and negotiates. The caller sets the time limit. `changes` is told when the connection's availability changes.
pub(crate) async fn open(
    config: &ServiceClientConfig,
    naming: &Arc<Naming>,
    changes: &Arc<Notify>,
) -> Result<Arc<Handle>, NotOpened> {
    let (channel, tls) = connect(config, naming).await?;
    let mut client = CalloutClient::new(channel)
        .max_decoding_message_size(config.frame_octets_max)
        .max_encoding_message_size(usize::MAX);
    let (frames, outbound) = mpsc::channel(FRAMES_QUEUED);
    let epoch = Instant::now();
    let inbound = client
        .connect(ReceiverStream::new(outbound))
        .await
        .map_err(|status| refused(naming, &status, tls.as_ref()))?
        .into_inner();
    let (asks, queue) = mpsc::unbounded_channel();
    let (ready, negotiated) = oneshot::channel();
    let availability = Arc::new(Availability::new(Arc::clone(changes)));
    let parts = Parts {
        core: Processor::new(processor_config(config), 0),
        asks: queue,
        frames,
        inbound,
        ready,
        availability: Arc::clone(&availability),
        naming: Arc::clone(naming),
        idle_timeout: config.idle_timeout,
        epoch,
        tls: tls.clone(),
    };
    tokio::spawn(task::run(parts));
    let negotiated = negotiated
        .await
        .unwrap_or_else(|_| Err(naming.unavailable("the connection was lost").into()))?;
    tracing::info!(
        service = %naming.service, target = %naming.target, product = %negotiated.selection.product,
        "callout connection open"
    );
    let ours = config.max_transactions_per_connection.max(1);
    let capacity = match negotiated.selection.max_transactions {
        0 => ours,
        theirs => ours.min(theirs),
    };
    Ok(Arc::new(Handle {
        asks,
        availability,
        tls,
        capacity,
        naming: Arc::clone(naming),
        negotiated,
    }))
}

fn processor_config(config: &ServiceClientConfig) -> ProcessorConfig {
    let transactions_max = config.max_transactions_per_connection.max(1);
    ProcessorConfig {
        offer: negotiated::offer(&config.system, transactions_max),
        accept: Box::new(negotiated::terms),
        adapted_credit: ADAPTED_CREDIT,
        extensions: Extensions::ALL,
        limits: Limits {
            transactions_max,
            ..Limits::default()
        },
    }
}

async fn connect(
    config: &ServiceClientConfig,
    naming: &Naming,
) -> Result<(Channel, Option<tls::Link>), CalloutError> {
    let target = Target::parse(&naming.target).map_err(|form| naming.unavailable(form))?;
    let result = match target {
        Target::Tcp(uri) if config.host.network.is_system() => {
            endpoint(Endpoint::from(uri), config).connect().await
        }
        Target::Tcp(uri) => {
            let network = config.host.network.clone();
            let connector = tower::service_fn(move |uri: Uri| {
                let network = network.clone();
                async move {
                    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16());
                    let stream = network.connect(host, port.unwrap_or_default()).await;
                    stream.map(TokioIo::new)
                }
            });
            endpoint(Endpoint::from(uri), config)
                .connect_with_connector(connector)
                .await
        }
        Target::Tls { host, port } => {
            let (channel, link) = connect_tls(config, &host, port, naming).await?;
            return Ok((channel, Some(link)));
        }
        Target::Unix(path) => {
            // The authority of HTTP/2 means nothing on a Unix socket.
            let endpoint = endpoint(Endpoint::from_static("http://localhost"), config);
            let connector = tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await
        }
    };
    let channel = result.map_err(|error| naming.unreachable(&innermost(&error)))?;
    Ok((channel, None))
}

/// The handshake before the channel: its errors keep their type, and a channel of one stream never reconnects by itself.
async fn connect_tls(
    config: &ServiceClientConfig,
    host: &str,
    port: u16,
    naming: &Naming,
) -> Result<(Channel, tls::Link), CalloutError> {
    let Some(material) = &config.tls else {
        let remedy = "configure certificate, key and ca for callouts, or write http:// with transport: { tls: none }";
        return Err(naming.untrusted("we have no certificate to show", remedy));
    };
    let name = config.server_name.as_deref();
    let name = name.or(naming.host.as_deref()).unwrap_or(host);
    let unreachable = |error: io::Error| naming.unreachable(&error.to_string());
    let connected = config.host.network.connect(host, port).await;
    let stream = connected.map_err(unreachable)?;
    stream.set_nodelay().map_err(unreachable)?;
    let target = format!("{host}:{port}");
    let (stream, link) = tls::connect(material, stream, &target, name, naming).await?;
    let uri = Endpoint::from_shared(naming.target.clone())
        .map_err(|error| naming.unreachable(&innermost(&error)))?;
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = once.take();
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let connected = endpoint(uri, config)
        .connect_with_connector(connector)
        .await;
    match connected {
        Ok(channel) => Ok((channel, link)),
        Err(error) => Err(link
            .refusal(naming)
            .unwrap_or_else(|| naming.unreachable(&innermost(&error)))),
    }
}

fn endpoint(endpoint: Endpoint, config: &ServiceClientConfig) -> Endpoint {
    endpoint
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_OCTETS)
        .initial_connection_window_size(CONNECTION_WINDOW_OCTETS)
        .max_frame_size(HTTP2_FRAME_OCTETS)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// "Transport error" helps nobody; its innermost cause does.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// It went away: gRPC has no code for that while a stream is opened, and a service that stops is no stranger.
fn is_network(error: &(dyn Error + 'static)) -> bool {
    error.is::<io::Error>() || error.downcast_ref().is_some_and(h2::Error::is_io)
}

/// The transport has ended and does not say why: whoever is there went away, or does not speak HTTP/2.
fn is_closed(error: &(dyn Error + 'static)) -> bool {
    let ended = |error: &hyper::Error| error.is_closed() || error.is_canceled();
    error.downcast_ref().is_some_and(ended)
}

fn any_cause(error: &dyn Error, is: fn(&(dyn Error + 'static)) -> bool) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if is(error) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The stream was not opened: not there, or something else than a callout service.
fn refused(naming: &Naming, status: &Status, tls: Option<&tls::Link>) -> CalloutError {
    if let Some(refusal) = tls.and_then(|link| link.refusal(naming)) {
        return refusal;
    }
    let said = match status.source() {
        Some(source) => innermost(source),
        None => describe(status),
    };
    match status.code() {
        Code::Unavailable => naming.unreachable(&said),
        _ if any_cause(status, is_network) => naming.unreachable(&said),
        _ if any_cause(status, is_closed) => naming.unavailable(
            "the connection was closed at once; is a callout service listening there?",
        ),
        Code::Unimplemented => naming.protocol("it is a gRPC server without the OCP service"),
        _ => naming.protocol(said),
    }
}
