//! One edge's stream: what it was sent, what it is behind of, what it says.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use opes_proto::routing::{FromEdge, FromOperator, Hello, Peers, from_edge, from_operator};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::metrics::{Metrics, Refused, Sent};
use super::{Served, Waits};
use crate::edges::EdgeHandle;
use crate::shared::Snapshot;

/// A stream ends after this, or up to a quarter earlier, whatever its edge does: who got in with a certificate that has expired since
/// has to show another one.
const AGE_MAX: Duration = Duration::from_hours(2);
/// For the reason of an end to get out.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest name of a pod or namespace (RFC 1123).
const NAME_OCTETS_MAX: usize = 253;

type Out = mpsc::Sender<Result<FromOperator, Status>>;

pub(super) struct Follower {
    pub(super) served: Served,
    pub(super) metrics: Metrics,
    pub(super) waits: Waits,
    pub(super) over: CancellationToken,
    pub(super) out: Out,
    pub(super) sent: SentSoFar,
}

/// What the edge has been sent.
#[derive(Default)]
pub(super) struct SentSoFar {
    peers: Option<Arc<Peers>>,
    snapshot: Option<Arc<Snapshot>>,
}

// === impl Follower ===

impl Follower {
    /// Until either side goes.
    pub(super) async fn run(
        mut self,
        mut inbound: Streaming<FromEdge>,
        shutdown: CancellationToken,
    ) {
        let edge = match self.greet(&mut inbound).await {
            Ok(Some(edge)) => edge,
            Ok(None) => return,
            Err(status) => return self.end(status).await,
        };
        let (end, name) = (self.end_of(edge.name()), edge.name().to_owned());
        self.metrics.streams.inc();
        tracing::info!(edge = %name, "edge follows");
        let result = tokio::select! {
            result = self.follow(&edge, &mut inbound) => result,
            // Both are clean ends: the edge comes again, here or at another replica.
            () = shutdown.cancelled() => Ok(()),
            () = end => Ok(()),
        };
        drop(edge);
        self.metrics.streams.dec();
        tracing::info!(edge = %name, reason = ?result.as_ref().err().map(Status::message), "edge gone");
        if let Err(status) = result {
            self.end(status).await;
        }
    }

    async fn end(&self, status: Status) {
        // An edge that does not read learns nothing; its connection is closed all the same.
        let said = self.out.send(Err(status));
        let _elapsed = tokio::time::timeout(END_TIMEOUT, said).await;
    }

    /// The edge says who it is.
    async fn greet(&self, inbound: &mut Streaming<FromEdge>) -> Result<Option<EdgeHandle>, Status> {
        let refuse = |text: &'static str| {
            self.metrics.refused(Refused::Hello);
            Status::invalid_argument(text)
        };
        let first = tokio::time::timeout(self.waits.hello, inbound.message()).await;
        let Some(first) = first.map_err(|_elapsed| refuse("no Hello in time"))?? else {
            return Ok(None);
        };
        let Some(from_edge::Kind::Hello(hello)) = first.kind else {
            return Err(refuse("the first message has to be a Hello"));
        };
        if !makes_sense(&hello) {
            return Err(refuse(
                "Hello: edge and namespace have to be names of Kubernetes objects",
            ));
        }
        let joined = self.served.edges.join(&hello).map_err(|error| {
            self.metrics.refused(Refused::Full);
            tracing::error!(edge = %hello.edge, %error, "edge not let in");
            Status::resource_exhausted(error.to_string())
        })?;
        Ok(Some(joined))
    }

    async fn follow(
        &mut self,
        edge: &EdgeHandle,
        inbound: &mut Streaming<FromEdge>,
    ) -> Result<(), Status> {
        loop {
            let peers = Arc::clone(&self.served.peers.borrow_and_update());
            let snapshot = self.served.snapshots.borrow_and_update().clone();
            let next = self.sent.next(&peers, snapshot.as_ref());
            tokio::select! {
                message = inbound.message() => match message? {
                    Some(message) => self.hear(edge, message)?,
                    None => return Ok(()),
                },
                permit = self.out.reserve(), if next.is_some() => {
                    let (Ok(permit), Some(kind)) = (permit, next) else { return Ok(()) };
                    permit.send(Ok(self.sent.take(kind, &peers, snapshot.as_ref())));
                    self.metrics.sent(kind);
                }
                () = changed(&mut self.served.peers) => {}
                () = changed(&mut self.served.snapshots) => {}
                () = self.out.closed() => return Ok(()),
            }
        }
    }

    fn hear(&self, edge: &EdgeHandle, message: FromEdge) -> Result<(), Status> {
        match message.kind {
            Some(from_edge::Kind::Hello(_)) => {
                return Err(Status::invalid_argument("a second Hello"));
            }
            Some(from_edge::Kind::Ack(ack)) => {
                self.metrics.acks.inc();
                edge.ack(&ack.revision);
            }
            Some(from_edge::Kind::Nack(nack)) => {
                self.metrics.nacks.inc();
                let first = nack.faults.first();
                tracing::warn!(
                    edge = edge.name(), revision = %nack.revision, faults = nack.faults.len(),
                    object = first.map(|fault| fault.name.as_str()), reason = first.map(|fault| fault.message.as_str()),
                    "edge refused a table and keeps the one before"
                );
                edge.nack(&nack);
            }
            Some(from_edge::Kind::Load(load)) => edge.load(&load.pools),
            // Of a newer edge, which says what we need by what we know, too.
            None => {}
        }
        Ok(())
    }

    /// When certificates change, or with age; for each edge at another moment.
    fn end_of(&self, edge: &str) -> impl Future<Output = ()> + Send + 'static {
        let mut hasher = DefaultHasher::new();
        edge.hash(&mut hasher);
        let share = u32::try_from(hasher.finish() % 1_000).unwrap_or(0);
        let (over, spread) = (self.over.clone(), self.waits.renewal);
        async move {
            tokio::select! {
                () = tokio::time::sleep(AGE_MAX.saturating_sub(AGE_MAX / 4 * share / 1_000)) => {}
                () = over.cancelled() => tokio::time::sleep(spread * share / 1_000).await,
            }
        }
    }
}

/// A watch whose sender is gone never changes any more.
async fn changed<T>(watched: &mut watch::Receiver<T>) {
    if watched.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn makes_sense(hello: &Hello) -> bool {
    let name = |text: &str| {
        let letter = |octet: u8| {
            octet.is_ascii_lowercase() || octet.is_ascii_digit() || matches!(octet, b'-' | b'.')
        };
        (1..=NAME_OCTETS_MAX).contains(&text.len()) && text.bytes().all(letter)
    };
    name(&hello.edge) && name(&hello.namespace)
}

// === impl SentSoFar ===

impl SentSoFar {
    /// What is to be sent next, so that the edge is at `peers` and `snapshot`.
    fn next(&self, peers: &Arc<Peers>, snapshot: Option<&Arc<Snapshot>>) -> Option<Sent> {
        // Without any there is nothing to say: an edge that hears of none would forget us.
        if !peers.addresses.is_empty() && self.peers.as_ref() != Some(peers) {
            return Some(Sent::Peers);
        }
        let (now, before) = (snapshot?, self.snapshot.as_ref());
        if before.map(|before| &before.table.revision) != Some(&now.table.revision) {
            return Some(Sent::Table);
        }
        let endpoints = before.map(|before| &before.table.endpoints);
        (endpoints != Some(&now.table.endpoints)).then_some(Sent::Endpoints)
    }

    fn take(
        &mut self,
        kind: Sent,
        peers: &Arc<Peers>,
        snapshot: Option<&Arc<Snapshot>>,
    ) -> FromOperator {
        let table = || snapshot.map(|snapshot| &snapshot.table);
        let kind = match kind {
            Sent::Peers => {
                self.peers = Some(Arc::clone(peers));
                from_operator::Kind::Peers(Peers::clone(peers))
            }
            Sent::Table => {
                self.snapshot = snapshot.cloned();
                from_operator::Kind::Table(table().cloned().unwrap_or_default())
            }
            Sent::Endpoints => {
                self.snapshot = snapshot.cloned();
                let endpoints = table().and_then(|table| table.endpoints.clone());
                from_operator::Kind::Endpoints(endpoints.unwrap_or_default())
            }
        };
        FromOperator { kind: Some(kind) }
    }
}
