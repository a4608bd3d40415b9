//! Nothing waits for ever, nothing is given up.

use std::path::Path;
use std::sync::Mutex;

use anyhow::bail;
use futures_util::future::BoxFuture;
use opes_content::{Budget, Limits};
use opes_spool::{Envelope, SystemDisk};

use super::*;
use crate::quarantine::{Fate, Release};

/// Takes everything but what it is told not to.
#[derive(Default)]
struct Store {
    taken: Mutex<Vec<String>>,
    refuses: Mutex<Vec<String>>,
}

impl Quarantine for Store {
    fn hold<'a>(
        &'a self,
        _: &'a str,
        held: &'a Held,
        content: &'a Path,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self
                .refuses
                .lock()
                .unwrap()
                .iter()
                .any(|id| *id == held.id || id == "*")
            {
                bail!("no");
            }
            assert_eq!(std::fs::read(content)?, b"octets");
            self.taken.lock().unwrap().push(held.id.clone());
            Ok(())
        })
    }

    fn unfinished<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Release>>> {
        Box::pin(async { bail!("not asked for here") })
    }

    fn finish<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Fate>> {
        Box::pin(async { bail!("not asked for here") })
    }
}

struct Bench {
    dir: tempfile::TempDir,
    handover: Arc<Handover>,
    store: Store,
    failed: HashMap<String, u32>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let handover = open(dir.path());
        Self {
            dir,
            handover,
            store: Store::default(),
            failed: HashMap::new(),
        }
    }

    async fn take(&self, id: &str) -> Result<Taken> {
        let limits = Arc::new(Limits::in_dir(self.dir.path()));
        let (mut writer, content) = opes_content::create(&Budget::new(1 << 20), &limits);
        writer.append("octets".into()).await?;
        writer.finish();
        let held = Held {
            id: id.into(),
            envelope: Envelope::default(),
            ..Held::default()
        };
        self.handover.take(&held, &View::original(content)).await
    }

    async fn round(&mut self) -> Round {
        self.handover
            .round("edge1", &self.store, &mut self.failed)
            .await
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.store.taken.lock().unwrap())
    }

    fn refuse(&self, ids: &[&str]) {
        *self.store.refuses.lock().unwrap() = ids.iter().map(|id| (*id).to_owned()).collect();
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.handover.folder.clone()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn open(dir: &Path) -> Arc<Handover> {
    Arc::new(
        Handover::open(
            dir.join("quarantine"),
            Files::on(Arc::new(SystemDisk)),
            QuarantineMetrics::default(),
        )
        .unwrap(),
    )
}

#[tokio::test]
async fn pairs_go_to_the_store_and_leave_the_folder() {
    let mut bench = Bench::new();
    assert_eq!(bench.round().await, Round::Empty);
    for id in ["a", "b"] {
        bench.take(id).await.unwrap();
    }
    assert_eq!(bench.files(), ["a.eml", "a.json", "b.eml", "b.json"]);
    assert_eq!(bench.handover.metrics.waiting.get(), 2);
    assert_eq!(bench.round().await, Round::Progress);
    assert_eq!(bench.taken(), ["a", "b"]);
    assert!(bench.files().is_empty());
    assert_eq!(bench.handover.metrics.waiting.get(), 0);
}

#[tokio::test]
async fn what_may_be_taken_back_stays_until_its_client_is_answered() {
    let mut bench = Bench::new();
    let (kept, refused) = (
        bench.take("a").await.unwrap(),
        bench.take("b").await.unwrap(),
    );
    assert_eq!(bench.round().await, Round::Empty);
    refused.withdraw().await.unwrap();
    assert_eq!(bench.files(), ["a.eml", "a.json"]);
    assert_eq!(bench.round().await, Round::Empty);
    drop(kept);
    assert_eq!(bench.round().await, Round::Progress);
    assert_eq!(bench.taken(), ["a"]);
    assert_eq!(bench.handover.metrics.waiting.get(), 0);
}

#[tokio::test]
async fn one_that_is_refused_does_not_hold_the_others() {
    let mut bench = Bench::new();
    for id in ["a", "b", "c", "d", "e"] {
        bench.take(id).await.unwrap();
    }
    bench.refuse(&["a", "b", "c"]);
    // Three in a row: the store may be away.
    assert_eq!(bench.round().await, Round::Stuck);
    assert_eq!(bench.round().await, Round::Progress);
    assert_eq!(bench.taken(), ["d", "e"]);
    bench.refuse(&[]);
    bench.round().await;
    assert_eq!(bench.taken(), ["a", "b", "c"]);
    assert_eq!(bench.round().await, Round::Empty);
    assert!(bench.failed.is_empty());
}

#[tokio::test]
async fn a_restart_finds_pairs_and_removes_halves() {
    let bench = Bench::new();
    bench.take("a").await.unwrap();
    let folder = bench.handover.folder.clone();
    for half in [".b.eml", ".a.json", "c.eml"] {
        std::fs::write(folder.join(half), "x").unwrap();
    }
    let again = open(bench.dir.path());
    assert_eq!(again.metrics.waiting.get(), 1);
    assert_eq!(bench.files(), ["a.eml", "a.json"]);
}

#[tokio::test]
async fn a_damaged_envelope_is_set_aside_with_its_octets() {
    let mut bench = Bench::new();
    bench.take("a").await.unwrap();
    std::fs::write(bench.handover.folder.join("a.json"), "{").unwrap();
    bench.round().await;
    assert_eq!(bench.round().await, Round::Empty);
    assert!(bench.taken().is_empty());
    drop(open(bench.dir.path()));
    assert_eq!(bench.files(), ["a.damaged", "a.eml"]);
}

#[tokio::test]
async fn a_full_folder_and_a_full_disk_refuse_and_leave_nothing() {
    let bench = Bench::new();
    bench.handover.metrics.waiting.set(WAITING_MAX);
    let refused = bench.take("a").await.unwrap_err().to_string();
    assert!(
        refused.contains("wait for the quarantine store"),
        "{refused}"
    );
    bench.handover.metrics.waiting.set(0);
    // A name that cannot be renamed to: as near as a test gets to a disk that fails late.
    std::fs::create_dir_all(bench.handover.folder.join("a.json/x")).unwrap();
    assert!(bench.take("a").await.is_err());
    assert_eq!(bench.files(), ["a.json"]);
    assert_eq!(bench.handover.metrics.waiting.get(), 0);
}

/// In virtual time.
#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_gets_what_waited() {
    let bench = Bench::new();
    bench.take("a").await.unwrap();
    bench.refuse(&["*"]);
    let (handover, store) = (bench.handover, Arc::new(bench.store));
    let run = tokio::spawn(Arc::clone(&handover).run("edge1".into(), Arc::clone(&store) as _));
    while handover.metrics.handover_failures.get() < 5 {
        tokio::time::sleep(RETRY_MAX).await;
    }
    store.refuses.lock().unwrap().clear();
    while handover.metrics.waiting.get() > 0 {
        tokio::time::sleep(RETRY_MAX).await;
    }
    assert_eq!(*store.taken.lock().unwrap(), ["a"]);
    run.abort();
}
