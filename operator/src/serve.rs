//! The routing port: edges follow the table (`proto/opes/routing/v1`), and KEDA asks how busy pools are
//! ([`crate::scaler`]), both over mutual TLS.
//!
//! Every certificate of the authority is let in at the door; what its holder may do is asked in each method: only an edge's
//! certificate may follow. Connections, handshakes, streams and what waits for a slow edge are bounded: of tables and endpoints only
//! the newest is kept. A table beyond the largest message is held back, and said so. Nothing in here ends the process.

pub(crate) mod accept;
mod follow;
mod metrics;

use std::sync::Arc;
use std::time::Duration;

use opes_proto::externalscaler::external_scaler_server::ExternalScalerServer;
use opes_proto::routing::routing_server::{Routing, RoutingServer};
use opes_proto::routing::{FromEdge, FromOperator, TABLE_OCTETS_MAX};
use opes_tls::ServerTls;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming, async_trait};

use self::accept::Caller;
use self::follow::Follower;
pub use self::metrics::Metrics;
use self::metrics::Refused;
use crate::certificates::OwnCertificates;
use crate::edges::{EDGES_MAX, Edges};
use crate::scaler::{Busy, Scaler, WARM_UP};
use crate::shared::{PeersNow, Snapshot, Snapshots};

/// Connections at once: of all edges, of their successors while certificates change, and of KEDA.
const CONNECTIONS_MAX: usize = 2 * EDGES_MAX + 64;
/// Streams on one connection: an edge has one, KEDA one for each pool.
const STREAMS_MAX: u32 = 1_024;
/// A peer that is gone without a word is noticed after these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What an edge says is small; the largest are faults and loads of many pools.
const FROM_EDGE_OCTETS_MAX: usize = 4 << 20;
/// HTTP/2 frames that we take.
const HTTP2_FRAME_OCTETS: u32 = 256 * 1024;
/// For streams to end once all were told.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// Callers whose handshake is done and whom the transport has not taken yet.
const CALLERS_QUEUED: usize = 16;

/// What is served, and to whom.
#[derive(Debug, Clone)]
pub struct Served {
    /// Tables and endpoints.
    pub snapshots: Snapshots,
    /// Where the replicas are.
    pub peers: PeersNow,
    /// Who follows.
    pub edges: Arc<Edges>,
}

/// Waits that tests cannot afford.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// For the first message of an edge.
    hello: Duration,
    /// Over this time streams end when certificates change, so that not all edges come at once.
    renewal: Duration,
    /// For edges to say how busy they are, before nothing said means nothing.
    warm_up: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(10),
            renewal: Duration::from_secs(20),
            warm_up: WARM_UP,
        }
    }
}

/// Serves until `shutdown`, and then ends all streams. Nothing is accepted before there is a certificate.
///
/// `edge_name`: the name that an edge's certificate is for ([`crate::certificates::edge_name`]).
pub async fn run(
    listener: TcpListener,
    own: OwnCertificates,
    edge_name: String,
    served: Served,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let waits = Waits::default();
    run_with(listener, own, edge_name, served, metrics, shutdown, waits).await
}

async fn run_with(
    listener: TcpListener,
    mut own: OwnCertificates,
    edge_name: String,
    served: Served,
    metrics: Metrics,
    shutdown: CancellationToken,
    waits: Waits,
) -> anyhow::Result<()> {
    let Some(tls) = first_material(&mut own, &shutdown).await else {
        return Ok(());
    };
    let _renewing = AbortOnDropHandle::new(tokio::spawn(renew(own, tls.clone())));
    let (ready, snapshots) = watch::channel(None);
    let holding = hold_back(served.snapshots.clone(), ready, metrics.clone());
    let _holding = AbortOnDropHandle::new(tokio::spawn(holding));
    let scaler = Scaler::new(Busy::new(&served, waits.warm_up), shutdown.clone());
    let routing = Server {
        edge_name,
        served: Served {
            snapshots,
            ..served
        },
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
        waits,
    };
    let routing = RoutingServer::new(routing)
        .max_decoding_message_size(FROM_EDGE_OCTETS_MAX)
        .max_encoding_message_size(TABLE_OCTETS_MAX);
    let (callers, incoming) = mpsc::channel(CALLERS_QUEUED);
    let material = move || tls.current();
    let refused = move || metrics.refused(Refused::Handshake);
    let door = accept::accept(listener, CONNECTIONS_MAX, material, callers, refused);
    let _door = AbortOnDropHandle::new(tokio::spawn(door));
    let serving = tonic::transport::Server::builder()
        .max_frame_size(HTTP2_FRAME_OCTETS)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_service(routing)
        .add_service(ExternalScalerServer::new(scaler))
        .serve_with_incoming_shutdown(
            ReceiverStream::new(incoming),
            shutdown.clone().cancelled_owned(),
        );
    let time_is_up = async {
        shutdown.cancelled().await;
        tokio::time::sleep(CLOSE_GRACE).await;
    };
    tokio::select! {
        result = serving => result.map_err(Into::into),
        () = time_is_up => Ok(()),
    }
}

/// Waits for a certificate that can be used. None: the end came first.
async fn first_material(
    own: &mut OwnCertificates,
    shutdown: &CancellationToken,
) -> Option<ServerTls> {
    loop {
        let first = own.borrow_and_update().clone();
        if let Some(first) = first {
            match ServerTls::server_in_memory(&first) {
                Ok(tls) => return Some(tls),
                Err(error) => {
                    tracing::error!(%error, "own certificate cannot be used; edges are not served");
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            changed = own.changed() => if changed.is_err() {
                shutdown.cancelled().await;
                return None;
            },
        }
    }
}

/// Puts each new certificate in force.
async fn renew(mut own: OwnCertificates, tls: ServerTls) {
    while own.changed().await.is_ok() {
        let fresh = own.borrow_and_update().clone();
        if let Some(Err(error)) = fresh.map(|fresh| tls.replace(&fresh)) {
            tracing::error!(%error, "own certificate cannot be used; the last one stays in force");
        }
    }
}

/// Passes on what fits into a message. A table that does not is held back as a whole: edges go on with the one before.
async fn hold_back(
    mut snapshots: Snapshots,
    ready: watch::Sender<Option<Arc<Snapshot>>>,
    metrics: Metrics,
) {
    loop {
        let fresh = snapshots.borrow_and_update().clone();
        if let Some(fresh) = fresh {
            let octets = fresh.table.encoded_len();
            // The message around it needs a few octets more.
            if octets < TABLE_OCTETS_MAX - 64 {
                ready.send_replace(Some(fresh));
            } else {
                metrics.held_back.inc();
                tracing::error!(
                    octets, limit = TABLE_OCTETS_MAX, revision = %fresh.table.revision,
                    "the table is larger than a message may be and is not sent; edges go on with the one before. Split the installation, or shorten the rules"
                );
            }
        }
        if snapshots.changed().await.is_err() {
            // Whoever made them is gone; what was made stays good.
            ready.closed().await;
            return;
        }
    }
}

struct Server {
    edge_name: String,
    served: Served,
    metrics: Metrics,
    shutdown: CancellationToken,
    waits: Waits,
}

#[async_trait]
impl Routing for Server {
    type FollowStream = ReceiverStream<Result<FromOperator, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<FromEdge>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.filter(|caller| caller.is(&self.edge_name));
        let Some(caller) = caller else {
            self.metrics.refused(Refused::NoEdge);
            let name = &self.edge_name;
            return Err(Status::permission_denied(format!(
                "only an edge may follow: its certificate is for {name}"
            )));
        };
        // One: while an edge takes a message the newest state waits, not a queue of old ones.
        let (out, outbound) = mpsc::channel(1);
        let follower = Follower {
            served: self.served.clone(),
            metrics: self.metrics.clone(),
            waits: self.waits,
            over: caller.over,
            out,
            sent: follow::SentSoFar::default(),
        };
        tokio::spawn(follower.run(request.into_inner(), self.shutdown.clone()));
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

#[cfg(test)]
pub(crate) mod tests;
