//! One suite for both stores; the bucket is that of an S3 server that is not ours (`s3s-fs`), in this process, on loopback.

use std::path::Path;

use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

use super::*;
use crate::config::S3;

const DAY: u64 = 20_785;
const EXPIRES: u64 = DAY * DAY_SECONDS + 100;

/// Serves a bucket in `folder` as long as the runtime lives.
async fn bucket(folder: &Path) -> Store {
    std::fs::create_dir_all(folder.join("links")).unwrap();
    std::fs::write(folder.join("id"), "key-id\n").unwrap();
    std::fs::write(folder.join("secret"), "key-secret\n").unwrap();
    let mut builder = S3ServiceBuilder::new(FileSystem::new(folder).unwrap());
    builder.set_auth(SimpleAuth::from_single("key-id", "key-secret"));
    let service = builder.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(connection);
        }
    });
    let config = StoreConfig::S3(S3 {
        endpoint: Some(format!("http://{address}")),
        bucket: "links".to_owned(),
        region: "us-east-1".to_owned(),
        prefix: "a/b".to_owned(),
        access_key_id_file: Some(folder.join("id")),
        secret_access_key_file: Some(folder.join("secret")),
    });
    Store::open(&config).unwrap()
}

fn folder(path: &Path) -> Store {
    Store::open(&StoreConfig::Folder(path.join("store"))).unwrap()
}

fn about(size: usize) -> About {
    About {
        name: "Müll.bin".to_owned(),
        kind: "application/octet-stream".to_owned(),
        size: size as u64,
        sha256: "00".to_owned(),
    }
}

/// Octets that differ from place to place.
fn octets(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| (at / 251 + at).to_le_bytes()[0])
        .collect()
}

async fn put(store: &Store, expires: u64, content: &[u8]) -> Key {
    let key = Key::random(expires).unwrap();
    let mut upload = store.begin(key).await.unwrap();
    for piece in content.chunks(100_000) {
        upload.write(piece.to_vec()).await.unwrap();
    }
    upload.finish(key, &about(content.len())).await.unwrap();
    key
}

/// Files below a folder, whatever their names.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let count = |entry: std::fs::DirEntry| {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path())
        } else {
            1
        }
    };
    entries.map(count).sum()
}

async fn keeps_objects_until_they_expire(store: &Store) {
    // Larger than one part of an upload, and no multiple of it.
    let content = octets(11 * 1024 * 1024 + 3);
    let large = put(store, EXPIRES, &content).await;
    let small = put(store, EXPIRES + 1, b"small").await;
    assert_eq!(
        store.about(large).await.unwrap(),
        Some(about(content.len()))
    );
    let middle = 5 * 1024 * 1024 - 1..5 * 1024 * 1024 + 1000;
    let read = store
        .read(large, middle.start as u64..middle.end as u64)
        .await
        .unwrap();
    assert_eq!(read, content[middle]);
    assert_eq!(store.read(small, 1..5).await.unwrap(), "mall");

    assert_eq!(store.sweep(EXPIRES - 1, 10).await.unwrap(), 0);
    assert_eq!(
        store.sweep(EXPIRES, 1).await.unwrap(),
        1,
        "the round is bounded"
    );
    assert_eq!(store.sweep(EXPIRES, 10).await.unwrap(), 1);
    assert_eq!(store.about(large).await.unwrap(), None);
    assert!(store.read(large, 0..1).await.is_err());
    assert_eq!(store.read(small, 0..5).await.unwrap(), "small");
    assert_eq!(
        store.sweep(EXPIRES + 10 * DAY_SECONDS, 10).await.unwrap(),
        2
    );

    let other = put(store, EXPIRES, b"x").await;
    store.delete(other).await.unwrap();
    store.delete(other).await.unwrap();
    assert_eq!(store.about(other).await.unwrap(), None);
}

#[tokio::test]
async fn a_folder_keeps_objects_until_they_expire() {
    let temp = tempfile::tempdir().unwrap();
    let store = folder(temp.path());
    keeps_objects_until_they_expire(&store).await;
    assert_eq!(files(temp.path()), 0);
}

#[tokio::test]
async fn a_bucket_keeps_objects_until_they_expire() {
    let temp = tempfile::tempdir().unwrap();
    keeps_objects_until_they_expire(&bucket(temp.path()).await).await;
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, bucket) = (folder(temp.path()), bucket(temp.path()).await);
    let before = files(temp.path());
    for store in [folder, bucket] {
        let key = Key::random(EXPIRES).unwrap();
        let mut upload = store.begin(key).await.unwrap();
        upload.write(octets(6 * 1024 * 1024)).await.unwrap();
        assert!(
            files(temp.path()) > before,
            "nothing was written: {store:?}"
        );
        drop(upload);
        let started = std::time::Instant::now();
        while files(temp.path()) > before {
            assert!(started.elapsed().as_secs() < 60, "still there: {store:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(store.about(key).await.unwrap(), None);
    }
}

#[tokio::test]
async fn files_are_for_the_service_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let temp = tempfile::tempdir().unwrap();
    let key = put(&folder(temp.path()), EXPIRES, b"x").await;
    let day = temp.path().join("store/objects").join(day(EXPIRES));
    for (path, mode) in [
        (day.clone(), 0o700),
        (day.join(name(key)), 0o600),
        (day.join(name(key) + ABOUT_SUFFIX), 0o600),
    ] {
        let found = path.metadata().unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{}", path.display());
    }
}

#[tokio::test]
async fn what_is_not_ours_is_not_swept() {
    let temp = tempfile::tempdir().unwrap();
    let store = folder(temp.path());
    for name in [
        "objects/notes/1.txt",
        "objects/00001/notes",
        "incoming/1.new",
    ] {
        let path = temp.path().join("store").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    assert_eq!(store.sweep(EXPIRES, 10).await.unwrap(), 0);
    assert_eq!(files(temp.path()), 3);
}
