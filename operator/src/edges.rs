//! Which edges are connected to this replica, what each of them runs, and how busy its pools are.
//!
//! Filled by the routing server, one [`EdgeHandle`] a stream; read by status (who acknowledged what), by metrics and by whatever
//! scales pools. Every edge is connected to every replica, so each replica can answer for all of them. Bounded in edges, in pools
//! an edge, and in faults and their text. Nothing in here fails: what is too much is refused at the door or left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opes_proto::routing::{Fault, Hello, Nack, PoolLoad};
use tokio::sync::watch;
use tokio::time::Instant;

/// Most edges at once.
pub const EDGES_MAX: usize = 1_000;
/// Most pools that one edge may report.
const POOLS_MAX: usize = 10_000;
/// Most faults kept of one NACK; a person reads the first ones.
const FAULTS_MAX: usize = 16;
/// Most octets kept of a text that an edge sends.
const TEXT_OCTETS_MAX: usize = 1_024;
/// A load that was not said again for this long is no longer believed: an edge says it at least every 5 s.
const LOAD_STALE: Duration = Duration::from_secs(15);
/// An edge that is gone counts as running what it ran for this long: mostly it is back at once.
pub const GONE_KEPT: Duration = Duration::from_secs(5);

/// All connected edges. Made once, shared by everything.
#[derive(Debug)]
pub struct Edges {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    loaded: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    edges: BTreeMap<String, Edge>,
    streams: u64,
}

#[derive(Debug)]
struct Edge {
    /// More than one for a moment, when it has come over the Service and then learns of this replica's own address.
    streams: BTreeSet<u64>,
    state: EdgeState,
    load: BTreeMap<String, (u32, u32)>,
    load_at: Option<Instant>,
}

/// What is known of one edge.
#[derive(Debug, Clone)]
pub struct EdgeState {
    /// `NAMESPACE/NAME` of its pod.
    pub edge: String,
    /// Version of its program.
    pub version: String,
    /// When it came.
    pub since: Instant,
    /// Revision in force; empty: none yet.
    pub running: String,
    /// The last table that it refused, if it took none since.
    pub refused: Option<Refusal>,
    /// When its stream ended; none: it is connected.
    pub left: Option<Instant>,
}

/// A table that an edge refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Revision of the table.
    pub revision: String,
    /// Why, object by object. One with an empty name is about the table.
    pub faults: Vec<Fault>,
}

/// What all edges together have open and waiting for one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceLoad {
    /// Transactions open.
    pub in_flight: u64,
    /// Transactions that wait.
    pub queued: u64,
}

/// One stream of an edge. Dropping it says that the stream has ended.
#[derive(Debug)]
pub struct EdgeHandle {
    edges: Arc<Edges>,
    name: String,
    stream: u64,
}

/// There are too many edges.
#[derive(Debug, thiserror::Error)]
#[error("{EDGES_MAX} edges are connected already")]
pub struct TooMany;

// === impl Edges ===

impl Default for Edges {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
            loaded: watch::Sender::new(0),
        }
    }
}

impl Edges {
    /// Nobody is connected.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// An edge has said Hello on a stream. It may have several streams: what it says on any of them counts, the last word most, and
    /// it has left when the last one ends.
    pub fn join(self: &Arc<Self>, hello: &Hello) -> Result<EdgeHandle, TooMany> {
        let name = format!("{}/{}", cut(&hello.namespace), cut(&hello.edge));
        let mut inner = self.lock();
        inner.forget_gone();
        if inner.edges.len() >= EDGES_MAX && !inner.edges.contains_key(&name) {
            return Err(TooMany);
        }
        inner.streams += 1;
        let stream = inner.streams;
        let edge = inner
            .edges
            .entry(name.clone())
            .or_insert_with(|| Edge::new(&name));
        edge.streams.insert(stream);
        edge.state.version = cut(&hello.version);
        edge.state.running = cut(&hello.running);
        edge.state.left = None;
        drop(inner);
        self.touch();
        Ok(EdgeHandle {
            edges: Arc::clone(self),
            name,
            stream,
        })
    }

    /// Changes whenever an edge joins, leaves, acknowledges or refuses.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Changes whenever an edge reports a load, or one with a load leaves.
    pub fn loaded(&self) -> watch::Receiver<u64> {
        self.loaded.subscribe()
    }

    /// All edges, by name: those connected, and those that left less than [`GONE_KEPT`] ago.
    pub fn states(&self) -> Vec<EdgeState> {
        let mut inner = self.lock();
        inner.forget_gone();
        let states = inner.edges.values();
        states.map(|edge| edge.state.clone()).collect()
    }

    /// How busy all connected edges say that `service` (`NAMESPACE/NAME`) is. Nothing said is zero, so that scaling has a figure.
    pub fn load(&self, service: &str) -> ServiceLoad {
        let inner = self.lock();
        let mut sum = ServiceLoad::default();
        let fresh = inner
            .edges
            .values()
            .filter(|edge| edge.state.left.is_none())
            .filter(|edge| edge.load_at.is_some_and(|at| at.elapsed() < LOAD_STALE));
        for (in_flight, queued) in fresh.filter_map(|edge| edge.load.get(service)) {
            sum.in_flight += u64::from(*in_flight);
            sum.queued += u64::from(*queued);
        }
        sum
    }

    fn touch(&self) {
        self.changed
            .send_modify(|version| *version = version.wrapping_add(1));
    }

    // Each change of the map is complete in itself, so a panic elsewhere cannot leave it half-done.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Edge {
    fn new(name: &str) -> Self {
        Self {
            streams: BTreeSet::new(),
            state: EdgeState {
                edge: name.to_owned(),
                version: String::new(),
                since: Instant::now(),
                running: String::new(),
                refused: None,
                left: None,
            },
            load: BTreeMap::new(),
            load_at: None,
        }
    }
}

impl Inner {
    fn forget_gone(&mut self) {
        let kept = |left: Option<Instant>| left.is_none_or(|at| at.elapsed() < GONE_KEPT);
        self.edges.retain(|_, edge| kept(edge.state.left));
    }
}

// === impl EdgeHandle ===

impl EdgeHandle {
    /// `NAMESPACE/NAME` of the edge.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The table with this revision is in force.
    pub fn ack(&self, revision: &str) {
        self.update(|edge| {
            edge.state.running = cut(revision);
            edge.state.refused = None;
        });
        self.edges.touch();
    }

    /// The table with this revision is not, and the one before stays.
    pub fn nack(&self, nack: &Nack) {
        let faults = nack.faults.iter().take(FAULTS_MAX);
        let refusal = Refusal {
            revision: cut(&nack.revision),
            faults: faults.map(cut_fault).collect(),
        };
        self.update(|edge| edge.state.refused = Some(refusal));
        self.edges.touch();
    }

    /// How busy its pools are; replaces what it said before.
    pub fn load(&self, pools: &[PoolLoad]) {
        let load = pools
            .iter()
            .take(POOLS_MAX)
            .map(|pool| (cut(&pool.service), (pool.in_flight, pool.queued)))
            .collect();
        self.update(|edge| {
            edge.load = load;
            edge.load_at = Some(Instant::now());
        });
        self.edges
            .loaded
            .send_modify(|version| *version = version.wrapping_add(1));
    }

    fn update(&self, change: impl FnOnce(&mut Edge)) {
        let mut inner = self.edges.lock();
        let edge = inner.edges.get_mut(&self.name);
        if let Some(edge) = edge.filter(|edge| edge.streams.contains(&self.stream)) {
            change(edge);
        }
    }
}

impl Drop for EdgeHandle {
    fn drop(&mut self) {
        self.update(|edge| {
            edge.streams.remove(&self.stream);
            if edge.streams.is_empty() {
                edge.state.left = Some(Instant::now());
            }
        });
        self.edges.touch();
        self.edges
            .loaded
            .send_modify(|version| *version = version.wrapping_add(1));
    }
}

fn cut_fault(fault: &Fault) -> Fault {
    Fault {
        kind: cut(&fault.kind),
        name: cut(&fault.name),
        message: cut(&fault.message),
    }
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_OCTETS_MAX.min(text.len()));
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(edge: &str) -> Hello {
        Hello {
            edge: edge.into(),
            namespace: "opes".into(),
            version: "1".into(),
            running: String::new(),
        }
    }

    fn pool(in_flight: u32, queued: u32) -> PoolLoad {
        PoolLoad {
            service: "mail/scan".into(),
            in_flight,
            queued,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_edge_has_left_when_its_last_stream_ends() {
        let edges = Edges::new();
        let first = edges.join(&hello("a")).unwrap();
        first.ack("1111");
        let mut again = hello("a");
        again.running = "1111".into();
        let second = edges.join(&again).unwrap();
        drop(first);
        second.ack("2222");
        let states = edges.states();
        assert_eq!(states.len(), 1);
        assert_eq!(states[0].running, "2222");
        assert!(states[0].left.is_none());
        drop(second);
        assert!(edges.states()[0].left.is_some());
        tokio::time::advance(GONE_KEPT).await;
        assert!(edges.states().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn load_is_summed_over_edges_and_goes_stale() {
        let edges = Edges::new();
        let (a, b) = (
            edges.join(&hello("a")).unwrap(),
            edges.join(&hello("b")).unwrap(),
        );
        a.load(&[pool(3, 1)]);
        b.load(&[pool(4, 0)]);
        let sum = |in_flight, queued| ServiceLoad { in_flight, queued };
        assert_eq!(edges.load("mail/scan"), sum(7, 1));
        assert_eq!(edges.load("mail/other"), sum(0, 0));
        drop(b);
        assert_eq!(edges.load("mail/scan"), sum(3, 1));
        tokio::time::advance(LOAD_STALE).await;
        assert_eq!(edges.load("mail/scan"), sum(0, 0));
    }

    #[tokio::test]
    async fn what_an_edge_says_is_bounded() {
        let edges = Edges::new();
        let edge = edges.join(&hello("a")).unwrap();
        let fault = Fault {
            kind: "OpesRule".into(),
            name: "mail/r".into(),
            message: "é".repeat(5_000),
        };
        edge.nack(&Nack {
            revision: "1".into(),
            faults: vec![fault; 100],
        });
        let refused = edges.states()[0].refused.clone().unwrap();
        assert_eq!(refused.faults.len(), FAULTS_MAX);
        assert!(refused.faults[0].message.len() <= TEXT_OCTETS_MAX);
        edge.ack("1");
        assert!(edges.states()[0].refused.is_none());
    }
}
