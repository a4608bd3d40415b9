//! An operator as edges see it: the routing stream over mutual TLS, with tables that the test writes.
//!
//! It has a runtime of its own, so that killing it is what the end of a process is: every connection is gone at once.

use std::fs;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use anyhow::Result;
use opes_proto::routing::from_edge::Kind as Heard;
use opes_proto::routing::from_operator::Kind;
use opes_proto::routing::routing_server::{Routing, RoutingServer};
use opes_proto::routing::{
    Endpoints, FromEdge, FromOperator, Nack, Peers, PoolLoad, TABLE_OCTETS_MAX, Table,
};
use opes_tls::{MutualFiles, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

/// Name that operators' certificates are for in these tests.
pub const NAME: &str = "localhost";

/// Makes certificates for both ends.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(
            params,
            KeyPair::generate()?,
        )?))
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes `END.crt`, `END.key` for `name` and `END.ca` with the authorities `trusted` into `folder`, each by rename.
    pub fn issue(
        &self,
        folder: &Path,
        end: &str,
        name: &str,
        trusted: &[&Self],
    ) -> Result<MutualFiles> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.0)?;
        let files = MutualFiles {
            certificate: folder.join(format!("{end}.crt")),
            key: folder.join(format!("{end}.key")),
            ca: folder.join(format!("{end}.ca")),
        };
        let authorities: String = trusted.iter().map(|authority| authority.pem()).collect();
        for (path, text) in [
            (&files.certificate, certificate.pem()),
            (&files.key, key.serialize_pem()),
            (&files.ca, authorities),
        ] {
            let aside = path.with_extension("new");
            fs::write(&aside, text)?;
            fs::rename(aside, path)?;
        }
        Ok(files)
    }
}

/// See the module. Killed when dropped.
pub struct Operator {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

type Outgoing = mpsc::UnboundedSender<Result<FromOperator, Status>>;

#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    peers: Option<Peers>,
    table: Option<Table>,
    streams: Vec<Outgoing>,
    /// Name of the edge, and what it said, in order.
    heard: Vec<(String, Heard)>,
}

impl Operator {
    /// On a free port, with these certificates.
    pub fn start(files: MutualFiles) -> Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), files)
    }

    /// Where another one was.
    pub fn start_at(address: SocketAddr, files: MutualFiles) -> Result<Self> {
        let tls = ServerTls::server(files)?;
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let service = RoutingServer::new(Service(Arc::clone(&shared)))
            .max_encoding_message_size(usize::MAX)
            .max_decoding_message_size(TABLE_OCTETS_MAX);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener)?;
            let (callers, incoming) = mpsc::channel(16);
            tokio::spawn(accept(listener, tls, callers));
            let serving = Server::builder()
                .add_service(service)
                .serve_with_incoming(ReceiverStream::new(incoming));
            serving.await.map_err(std::io::Error::other)
        });
        Ok(Self {
            address,
            shared,
            runtime: Some(runtime),
        })
    }

    /// `https://localhost:PORT`.
    pub fn url(&self) -> String {
        format!("https://{NAME}:{}", self.address.port())
    }

    /// All connections are gone at once, and nobody listens.
    pub fn kill(mut self) -> SocketAddr {
        self.end();
        self.address
    }

    fn end(&mut self) {
        self.state().streams.clear();
        if let Some(runtime) = self.runtime.take() {
            crate::end(runtime);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// To all edges now, and to each that comes.
    pub fn send_table(&self, table: Table) {
        let mut state = self.state();
        state.table = Some(table.clone());
        state.tell(Kind::Table(table));
    }

    /// Where services are from now on, without another table.
    pub fn send_endpoints(&self, endpoints: Endpoints) {
        let mut state = self.state();
        if let Some(table) = &mut state.table {
            table.endpoints = Some(endpoints.clone());
        }
        state.tell(Kind::Endpoints(endpoints));
    }

    /// Which replicas there are.
    pub fn send_peers(&self, replicas: &[&Self]) {
        let mut addresses: Vec<String> = replicas
            .iter()
            .map(|replica| format!("https://{}", replica.address))
            .collect();
        addresses.sort();
        let peers = Peers {
            addresses,
            server_name: NAME.to_owned(),
        };
        let mut state = self.state();
        state.peers = Some(peers.clone());
        state.tell(Kind::Peers(peers));
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        let mut state = self.state();
        state.streams.retain(|stream| !stream.is_closed());
        state.streams.len()
    }

    /// Edges that said Hello, with the revision that they ran, in order.
    pub fn hellos(&self) -> Vec<(String, String)> {
        self.heard(|edge, heard| match heard {
            Heard::Hello(hello) => Some((edge.to_owned(), hello.running.clone())),
            _ => None,
        })
    }

    /// Revisions that were acknowledged, in order.
    pub fn acks(&self) -> Vec<String> {
        self.heard(|_, heard| match heard {
            Heard::Ack(ack) => Some(ack.revision.clone()),
            _ => None,
        })
    }

    /// What was refused, in order.
    pub fn nacks(&self) -> Vec<Nack> {
        self.heard(|_, heard| match heard {
            Heard::Nack(nack) => Some(nack.clone()),
            _ => None,
        })
    }

    /// Loads, in order.
    pub fn loads(&self) -> Vec<Vec<PoolLoad>> {
        self.heard(|_, heard| match heard {
            Heard::Load(load) => Some(load.pools.clone()),
            _ => None,
        })
    }

    fn heard<T>(&self, pick: impl Fn(&str, &Heard) -> Option<T>) -> Vec<T> {
        let state = self.state();
        let heard = state.heard.iter();
        heard
            .filter_map(|(edge, heard)| pick(edge, heard))
            .collect()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, kind: Kind) {
        let said = FromOperator { kind: Some(kind) };
        self.streams
            .retain(|stream| stream.send(Ok(said.clone())).is_ok());
    }
}

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl Routing for Service {
    type FollowStream = UnboundedReceiverStream<Result<FromOperator, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<FromEdge>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let mut incoming = request.into_inner();
        let (outgoing, stream) = mpsc::unbounded_channel();
        {
            let mut state = self.0.state();
            let peers = state.peers.clone().map(Kind::Peers);
            let table = state.table.clone().map(Kind::Table);
            for kind in peers.into_iter().chain(table) {
                let _greeted = outgoing.send(Ok(FromOperator { kind: Some(kind) }));
            }
            state.streams.push(outgoing.clone());
        }
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut edge = String::new();
            while let Some(Ok(FromEdge { kind: Some(kind) })) = incoming.next().await {
                if let Heard::Hello(hello) = &kind {
                    edge.clone_from(&hello.edge);
                }
                shared.state().heard.push((edge.clone(), kind));
            }
            let gone = |stream: &Outgoing| stream.same_channel(&outgoing);
            shared.state().streams.retain(|stream| !gone(stream));
        });
        Ok(Response::new(UnboundedReceiverStream::new(stream)))
    }
}

async fn accept(
    listener: TcpListener,
    tls: ServerTls,
    callers: mpsc::Sender<std::io::Result<Secured>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (config, _over) = tls.current();
        let callers = callers.clone();
        tokio::spawn(async move {
            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                let _gone = callers.send(Ok(Secured(stream))).await;
            }
        });
    }
}

struct Secured(TlsStream<TcpStream>);

impl Connected for Secured {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Secured {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
