//! One suite of properties, against SQLite with files and against PostgreSQL with a bucket of a server that is not ours.

mod api;
mod bucket;
mod model;
mod postgres;
mod suite;

use std::path::PathBuf;
use std::time::Duration;

use opes_spool::{Envelope, NextHop, Recipient};

use crate::{Backend, Held, Metrics, S3Config, Store, StoreConfig, StoreError};

pub(super) const KEEP: Duration = Duration::from_hours(30 * 24);

/// A store, and whatever it needs to live.
pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) dir: tempfile::TempDir,
    _postgres: Option<postgres::Postgres>,
}

pub(super) fn open(backend: Backend) -> Store {
    let config = StoreConfig {
        backend,
        keep: KEEP,
    };
    Store::open(&config, Metrics::default()).unwrap()
}

impl Bench {
    pub(super) fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(Backend::Folder(dir.path().join("store folder")));
        Self {
            store,
            dir,
            _postgres: None,
        }
    }

    pub(super) async fn shared() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = postgres::Postgres::start().await;
        let endpoint = bucket::serve(&dir.path().join("s3")).await;
        let store = open(Backend::Shared {
            postgres: database.config(),
            s3: S3Config {
                endpoint: Some(endpoint),
                bucket: bucket::BUCKET.into(),
                region: "us-east-1".into(),
                prefix: "mail/held".into(),
                credentials: Some((bucket::KEY.into(), bucket::SECRET.into())),
            },
        });
        Self {
            store,
            dir,
            _postgres: Some(database),
        }
    }

    /// A file as an edge has it.
    pub(super) fn file(&self, octets: &[u8]) -> PathBuf {
        let path = self.dir.path().join("content.eml");
        // A new file: the store may have taken the old one as it was.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, octets).unwrap();
        path
    }

    pub(super) async fn hold(&self, held: &Held) {
        let file = self.file(MESSAGE);
        self.store.hold(held, &file).await.unwrap();
    }
}

pub(super) const MESSAGE: &[u8] =
    b"From: Steve <steve@example.org>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nhello\r\n";

pub(super) fn envelope(recipients: &[&str]) -> Envelope {
    let recipient = |address: &&str| Recipient {
        address: (*address).to_owned(),
        params: vec!["NOTIFY=NEVER".into()],
        next_hop: Some(NextHop {
            host: "mx.example.net".into(),
            port: 24,
            lmtp: true,
        }),
    };
    Envelope {
        reverse_path: "Steve@Example.org".into(),
        recipients: recipients.iter().map(recipient).collect(),
        client: "192.0.2.7".into(),
        helo: "client.example.org".into(),
        session_id: "5-1".into(),
        ..Envelope::default()
    }
}

pub(super) fn held(id: &str, recipients: &[&str]) -> Held {
    Held {
        id: id.into(),
        edge: "edge1".into(),
        queue: "spam".into(),
        reason: "looks 100% odd".into(),
        rule: "default/hold".into(),
        service: String::new(),
        held_at_ms: 1_700_000_000_000,
        envelope: envelope(recipients),
    }
}

pub(super) async fn content(store: &Store, id: &str) -> Result<Vec<u8>, StoreError> {
    let mut octets = Vec::new();
    loop {
        let part = store.read(id, octets.len() as u64).await?;
        if part.is_empty() {
            return Ok(octets);
        }
        octets.extend_from_slice(&part);
    }
}

#[tokio::test]
async fn sqlite_and_files_have_the_properties() {
    suite::all(&Bench::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_a_bucket_have_the_properties() {
    suite::all(&Bench::shared().await).await;
}

#[tokio::test]
async fn what_was_held_is_there_after_the_process_and_only_for_its_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::sqlite();
    bench.hold(&held("a", &["paul@example.com"])).await;
    let folder = bench.dir.path().join("store folder");
    let again = open(Backend::Folder(folder.clone()));
    assert_eq!(content(&again, "a").await.unwrap(), MESSAGE);
    let mode = folder.join("contents").metadata().unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_damaged_database_refuses_and_a_mended_one_goes_on() {
    let bench = Bench::sqlite();
    let folder = bench.dir.path().join("other");
    std::fs::create_dir_all(&folder).unwrap();
    let index = folder.join("index.sqlite");
    std::fs::write(&index, vec![b'x'; 8192]).unwrap();
    let store = open(Backend::Folder(folder));
    let message = held("a", &["paul@example.com"]);
    let file = bench.file(MESSAGE);
    let refused = store.hold(&message, &file).await.unwrap_err();
    assert!(refused.is_failure(), "{refused}");
    std::fs::remove_file(&index).unwrap();
    store.hold(&message, &file).await.unwrap();
    assert_eq!(content(&store, "a").await.unwrap(), MESSAGE);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let bench = Bench::sqlite();
    let pool = bench.store.pool().await.unwrap();
    sqlx::query("UPDATE quarantine_schema SET version = 99")
        .execute(pool)
        .await
        .unwrap();
    let other = open(Backend::Folder(bench.dir.path().join("store folder")));
    let error = other.show("a").await.unwrap_err();
    assert!(
        matches!(error, StoreError::Newer { found: 99, .. }),
        "{error}"
    );
}
