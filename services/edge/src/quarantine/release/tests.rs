//! Killed at any point, once or twice: every release that was begun is delivered, and once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{anyhow, bail};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use opes_spool::{Envelope, Recipient, SpoolConfig};
use tokio::sync::Notify;

use super::*;
use crate::quarantine::Held;

const EDGE: &str = "edge1";
const OCTETS: &[u8] = b"Subject: a\r\n\r\nx\r\n";

/// Points of one release at which the process can be killed: before and after each step of the store.
const POINTS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Releasing,
    Released,
    Cancelled,
}

/// The store, which survives the edge; the counter does not.
#[derive(Default)]
struct Store {
    releases: Mutex<BTreeMap<String, State>>,
    passed: AtomicUsize,
    /// Passing this many points kills.
    kill_at: AtomicUsize,
    killed: Notify,
    away: AtomicUsize,
}

impl Store {
    fn killing_at(self: &Arc<Self>, point: usize) {
        self.passed.store(0, Ordering::SeqCst);
        self.kill_at.store(point, Ordering::SeqCst);
    }

    /// A dead process does nothing more.
    async fn point(&self) {
        if self.passed.fetch_add(1, Ordering::SeqCst) == self.kill_at.load(Ordering::SeqCst) {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
    }

    fn set(&self, id: &str, state: State) {
        let mut releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        releases.insert(id.into(), state);
    }

    fn state(&self, id: &str) -> Option<State> {
        let releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        releases.get(id).copied()
    }

    fn release(self: &Arc<Self>, id: &str) -> Release {
        let store = Arc::clone(self);
        Release {
            id: id.into(),
            envelope: Envelope {
                recipients: vec![Recipient {
                    address: "paul@example.com".into(),
                    ..Recipient::default()
                }],
                ..Envelope::default()
            },
            content: Box::new(move |offset| {
                let store = Arc::clone(&store);
                Box::pin(async move {
                    store.point().await;
                    let from = usize::try_from(offset)?;
                    // In small parts, so that a kill can come between two.
                    let to = OCTETS.len().min(from + 8);
                    Ok(Bytes::from_static(&OCTETS[from..to]))
                })
            }),
        }
    }

    async fn begin(self: Arc<Self>, id: &str) -> Result<Release, std::convert::Infallible> {
        self.point().await;
        self.set(id, State::Releasing);
        self.point().await;
        Ok(self.release(id))
    }
}

struct Handle(Arc<Store>);

impl Quarantine for Handle {
    fn hold<'a>(&'a self, _: &'a str, _: &'a Held, _: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { bail!("not asked for here") })
    }

    fn unfinished<'a>(&'a self, edge: &'a str) -> BoxFuture<'a, Result<Vec<Release>>> {
        assert_eq!(edge, EDGE);
        Box::pin(async {
            let releases = self
                .0
                .releases
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let unfinished = releases
                .iter()
                .filter(|(_, state)| **state == State::Releasing);
            Ok(unfinished.map(|(id, _)| self.0.release(id)).collect())
        })
    }

    fn finish<'a>(&'a self, release: &'a str) -> BoxFuture<'a, Result<Fate>> {
        Box::pin(async move {
            if self.0.away.load(Ordering::SeqCst) > 0 {
                return Err(anyhow!("the database is away"));
            }
            self.0.point().await;
            let fate = match self.0.state(release) {
                Some(State::Cancelled) => Fate::Withdraw,
                Some(State::Releasing | State::Released) | None => {
                    self.0.set(release, State::Released);
                    Fate::Deliver
                }
            };
            self.0.point().await;
            Ok(fate)
        })
    }
}

/// One life of an edge.
struct Life {
    releases: Releases,
    spool: Spool,
    delivered: Arc<Mutex<Vec<Queued>>>,
    _dir: tempfile::TempDir,
}

impl Life {
    fn start(folder: &Path, store: &Arc<Store>) -> Self {
        let (spool, recovered) =
            Spool::open(&folder.join("spool"), SpoolConfig::default()).unwrap();
        let delivered = Arc::<Mutex<Vec<Queued>>>::default();
        let (kept, dir) = (Arc::clone(&delivered), tempfile::tempdir().unwrap());
        let parts = Parts {
            edge: EDGE.into(),
            store: Arc::new(Handle(Arc::clone(store))),
            spool: spool.clone(),
            budget: Budget::new(1 << 20),
            limits: Arc::new(Limits::in_dir(dir.path())),
            clock: Clock::default(),
            deliver: Box::new(move |queued| kept.lock().unwrap().push(queued)),
            metrics: QuarantineMetrics::default(),
        };
        Self {
            releases: Releases::new(parts, recovered),
            spool,
            delivered,
            _dir: dir,
        }
    }

    /// The relay's part: everything that it was given goes out. Gives the ids of the releases.
    async fn deliver(&self) -> Vec<String> {
        let queued: Vec<_> = std::mem::take(&mut *self.delivered.lock().unwrap());
        let mut ids = Vec::new();
        for queued in queued {
            let octets = queued.content.read_at(0, OCTETS.len() + 1).await.unwrap();
            assert_eq!(octets, OCTETS);
            let done = [(0, Settlement::Delivered)];
            self.spool.settle(&queued.id, &done).await.unwrap();
            ids.push(queued.envelope.release.clone());
        }
        ids
    }
}

/// Runs one life until it has done its work or is killed, and gives what it delivered.
fn live(folder: &Path, store: &Arc<Store>, kill_at: usize, begin: bool) -> Vec<String> {
    store.killing_at(kill_at);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let delivered = runtime.block_on(async {
        let life = Life::start(folder, store);
        let work = async {
            if begin {
                let begin = Arc::clone(store).begin("r1");
                life.releases.release(begin).await.unwrap();
            }
            life.releases.retry().await.unwrap();
            life.deliver().await
        };
        tokio::select! {
            delivered = work => delivered,
            () = store.killed.notified() => Vec::new(),
        }
    });
    drop(runtime);
    delivered
}

#[test]
fn a_kill_at_any_two_points_neither_loses_nor_doubles() {
    let mut kills = 0;
    for first in 0..POINTS {
        for second in 0..=POINTS {
            let folder = tempfile::tempdir().unwrap();
            let store = Arc::<Store>::default();
            let mut delivered = live(folder.path(), &store, first, true);
            kills += usize::from(delivered.is_empty());
            delivered.extend(live(folder.path(), &store, second, false));
            delivered.extend(live(folder.path(), &store, usize::MAX, false));
            let begun = store.state("r1").is_some();
            let expected = if begun { vec!["r1"] } else { Vec::new() };
            assert_eq!(delivered, expected, "killed at {first} and {second}");
            assert!(live(folder.path(), &store, usize::MAX, false).is_empty());
        }
    }
    // The points are where the work is.
    assert!(kills >= (POINTS - 1) * POINTS, "{kills} kills");
}

#[tokio::test]
async fn a_cancelled_release_is_withdrawn_from_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::<Store>::default();
    store.killing_at(usize::MAX);
    let life = Life::start(folder.path(), &store);
    store.away.store(1, Ordering::SeqCst);
    let begin = Arc::clone(&store).begin("r1");
    let outcome = life.releases.release(begin).await.unwrap();
    assert!(matches!(outcome, Outcome::Pending(reason) if reason.contains("away")));
    assert_eq!(life.spool.stats().live_messages, 1);
    assert!(life.deliver().await.is_empty());
    // Another operator takes it over meanwhile.
    store.set("r1", State::Cancelled);
    store.away.store(0, Ordering::SeqCst);
    life.releases.retry().await.unwrap();
    assert!(life.deliver().await.is_empty());
    assert_eq!(life.spool.stats().live_messages, 0);
}

#[tokio::test]
async fn a_release_that_waits_is_delivered_when_the_store_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::<Store>::default();
    store.killing_at(usize::MAX);
    let life = Life::start(folder.path(), &store);
    store.away.store(1, Ordering::SeqCst);
    let begin = Arc::clone(&store).begin("r1");
    life.releases.release(begin).await.unwrap();
    for _ in 0..3 {
        assert!(life.releases.retry().await.is_err());
    }
    store.away.store(0, Ordering::SeqCst);
    life.releases.retry().await.unwrap();
    life.releases.retry().await.unwrap();
    assert_eq!(life.deliver().await, ["r1"]);
}

#[tokio::test]
async fn an_operator_who_goes_away_does_not_stop_the_release() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::<Store>::default();
    store.killing_at(usize::MAX);
    let life = Life::start(folder.path(), &store);
    let begin = Arc::clone(&store).begin("r1");
    // Polled once: the task runs, nobody waits for it.
    assert!(futures_util::FutureExt::now_or_never(life.releases.release(begin)).is_none());
    while store.state("r1") != Some(State::Released) {
        tokio::task::yield_now().await;
    }
    life.releases.retry().await.unwrap();
    assert_eq!(life.deliver().await, ["r1"]);
}
