//! A routing port on loopback with certificates of its own, and callers of every kind.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use opes_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use opes_proto::routing::routing_client::RoutingClient;
use opes_proto::routing::{
    Ack, Endpoints, FromEdge, FromOperator, Hello, Load, Nack, Peers, Pool, PoolLoad, Table,
    from_edge, from_operator,
};
use opes_tls::{ClientTls, MutualTexts};
use rustls_pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::certificates::authority::Authority;
use crate::certificates::state::Authorities;
use crate::certificates::{Lifetimes, OwnCertificate, edge_name, service_name};
use crate::edges::Edges;
use crate::serve::{Metrics, Served, Waits, run_with};
use crate::shared::{PoolFacts, Snapshot};

pub(crate) const NAMESPACE: &str = "opes";
pub(crate) const SERVER: &str = "opes-operator.opes.svc";
/// Nothing takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Bed {
    pub(crate) address: SocketAddr,
    pub(crate) edges: Arc<Edges>,
    pub(crate) own: watch::Sender<Option<Arc<OwnCertificate>>>,
    pub(crate) snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub(crate) peers: watch::Sender<Arc<Peers>>,
    pub(crate) registry: opes_telemetry::Registry,
    pub(crate) shutdown: CancellationToken,
    pub(crate) authorities: Authorities,
    pub(crate) running: JoinHandle<anyhow::Result<()>>,
}

/// An edge's end of a stream.
pub(crate) struct EdgeEnd {
    pub(crate) say: mpsc::Sender<FromEdge>,
    pub(crate) hear: Streaming<FromOperator>,
}

impl Bed {
    /// Without a warm-up.
    pub(crate) async fn start() -> Self {
        Self::start_with(Waits {
            hello: PATIENCE,
            renewal: Duration::from_millis(200),
            warm_up: Duration::ZERO,
        })
        .await
    }

    pub(crate) async fn start_with(waits: Waits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authorities = Authorities::begin(now(), &Lifetimes::default()).unwrap();
        let own = watch::Sender::new(Some(Arc::new(texts(&authorities, SERVER))));
        let snapshots = watch::Sender::new(None);
        let peers = watch::Sender::new(Arc::default());
        let edges = Edges::new();
        let served = Served {
            snapshots: snapshots.subscribe(),
            peers: peers.subscribe(),
            edges: Arc::clone(&edges),
        };
        let registry = opes_telemetry::Registry::new();
        let (metrics, shutdown) = (Metrics::register(&registry), CancellationToken::new());
        let running = tokio::spawn(run_with(
            listener,
            own.subscribe(),
            edge_name(NAMESPACE),
            served,
            metrics,
            shutdown.clone(),
            waits,
        ));
        Self {
            address,
            edges,
            own,
            snapshots,
            peers,
            registry,
            shutdown,
            authorities,
            running,
        }
    }

    /// What somebody with a certificate for `name` has.
    pub(crate) fn texts(&self, name: &str) -> MutualTexts {
        texts(&self.authorities, name)
    }

    pub(crate) async fn channel(&self, texts: &MutualTexts) -> Result<Channel, String> {
        channel(self.address, &ClientTls::client_in_memory(texts).unwrap()).await
    }

    /// An edge that has said Hello.
    pub(crate) async fn edge(&self, name: &str) -> EdgeEnd {
        let channel = self.channel(&self.texts(&edge_name(NAMESPACE))).await;
        let mut end = follow(channel.unwrap()).await.unwrap();
        end.hello(name).await;
        end
    }

    /// KEDA with the certificate of a service.
    pub(crate) async fn keda(&self, namespace: &str, name: &str) -> ExternalScalerClient<Channel> {
        let texts = self.texts(&service_name(namespace, name));
        ExternalScalerClient::new(self.channel(&texts).await.unwrap())
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.snapshots.send_replace(Some(Arc::new(snapshot)));
    }

    /// A figure of `/metrics`; a line that is not there is 0.
    pub(crate) fn figure(&self, line: &str) -> f64 {
        let text = self.registry.encode().unwrap();
        let found = text.lines().find_map(|all| all.strip_prefix(line));
        found.map_or(0.0, |value| value.trim().parse().unwrap())
    }
}

impl EdgeEnd {
    pub(crate) async fn say(&self, kind: from_edge::Kind) {
        self.say.send(FromEdge { kind: Some(kind) }).await.unwrap();
    }

    pub(crate) async fn hello(&mut self, edge: &str) {
        self.say(from_edge::Kind::Hello(Hello {
            edge: edge.into(),
            namespace: NAMESPACE.into(),
            version: "0".into(),
            running: String::new(),
        }))
        .await;
    }

    pub(crate) async fn ack(&self, revision: &str) {
        let revision = revision.into();
        self.say(from_edge::Kind::Ack(Ack { revision })).await;
    }

    pub(crate) async fn nack(&self, nack: Nack) {
        self.say(from_edge::Kind::Nack(nack)).await;
    }

    pub(crate) async fn load(&self, service: &str, in_flight: u32, queued: u32) {
        let pools = vec![PoolLoad {
            service: service.into(),
            in_flight,
            queued,
        }];
        self.say(from_edge::Kind::Load(Load { pools })).await;
    }

    /// The next message; none: the stream has ended well.
    pub(crate) async fn next(&mut self) -> Result<Option<from_operator::Kind>, Status> {
        let message = tokio::time::timeout(PATIENCE, self.hear.message());
        let message = message.await.expect("nothing comes")?;
        Ok(message.map(|message| message.kind.expect("an empty message")))
    }

    pub(crate) async fn table(&mut self) -> Table {
        match self.next().await.unwrap() {
            Some(from_operator::Kind::Table(table)) => table,
            other => panic!("no table but {other:?}"),
        }
    }
}

/// An open stream on which nothing was said yet.
pub(crate) async fn follow(channel: Channel) -> Result<EdgeEnd, Status> {
    let (say, said) = mpsc::channel(16);
    let mut client = RoutingClient::new(channel)
        .max_decoding_message_size(opes_proto::routing::TABLE_OCTETS_MAX);
    let hear = client.follow(ReceiverStream::new(said)).await?.into_inner();
    Ok(EdgeEnd { say, hear })
}

pub(crate) async fn channel(address: SocketAddr, tls: &ClientTls) -> Result<Channel, String> {
    let tls = tls.clone();
    let connector = tower::service_fn(move |_| {
        let (config, _) = tls.current();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from(SERVER).expect("a name");
            let secured = TlsConnector::from(config).connect(name, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(secured))
        }
    });
    let endpoint = Endpoint::from_static("http://operator");
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| format!("{error:?}"))
}

pub(crate) fn texts(authorities: &Authorities, name: &str) -> MutualTexts {
    texts_by(&authorities.issuer, authorities.bundle(), name)
}

pub(crate) fn texts_by(authority: &Authority, ca: String, name: &str) -> MutualTexts {
    let leaf = authority.issue(&[name.into()], now(), Duration::from_hours(1));
    let leaf = leaf.unwrap();
    MutualTexts {
        certificate: leaf.certificate,
        key: leaf.key,
        ca,
    }
}

pub(crate) fn now() -> u64 {
    opes_host::Clock::System.since_epoch().as_secs()
}

/// A snapshot with one service, `mail/scan`, and these endpoints of it.
pub(crate) fn snapshot(revision: &str, objects: &[&str], endpoints: &[&str]) -> Snapshot {
    let pool = Pool {
        service: "mail/scan".into(),
        endpoints: endpoints.iter().map(|&e| e.to_owned()).collect(),
        server_name: "opes-scan.mail.svc".into(),
    };
    let facts = PoolFacts {
        target_in_flight: 20,
        ready: 1,
    };
    Snapshot {
        table: Table {
            revision: revision.into(),
            objects: objects.iter().map(|&object| object.to_owned()).collect(),
            endpoints: Some(Endpoints { pools: vec![pool] }),
        },
        generations: BTreeMap::new(),
        pools: BTreeMap::from([("mail/scan".to_owned(), facts)]),
    }
}

/// Waits until `done`.
pub(crate) async fn until(mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it never comes about");
}
