use std::time::{Duration, Instant};

use ::pgp::composed::KeyType;

use super::*;
use crate::openpgp::tests::key;

fn put(folder: &Path, address: &str) {
    let curve = KeyType::ECDH(::pgp::crypto::ecc_curve::ECCCurve::Curve25519Legacy);
    let armor = key(address, KeyType::Ed25519Legacy, curve);
    std::fs::write(folder.join(format!("{address}.asc")), armor).unwrap();
}

fn config(folder: &Path) -> Config {
    let json =
        serde_json::json!({ "keys": folder, "identities": { "@example.net": "ann@example.org" } });
    Config::from_json(&json).unwrap()
}

#[test]
fn a_key_that_is_put_there_later_is_found_and_a_bad_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "ann@example.org");
    let store = KeyStore::open(&Arc::new(config(folder.path()))).unwrap();
    let has = |address: &str| !store.current().pgp(address).is_empty();
    assert!(has("Ann@Example.org") && !has("bob@example.com"));
    assert!(has("anybody@example.net"), "Ann stands for all of them");
    put(folder.path(), "bob@example.com");
    let started = Instant::now();
    while !has("bob@example.com") {
        assert!(started.elapsed() < Duration::from_mins(1), "never read");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::write(folder.path().join("broken.asc"), "no key").unwrap();
    let error = Keys::read(&config(folder.path())).err().unwrap();
    assert!(error.to_string().contains("broken.asc"), "{error}");
    std::thread::sleep(POLL_INTERVAL * 4);
    assert!(has("bob@example.com"), "the last good keys are gone");
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = Keys::read(&config(Path::new("/nowhere"))).err().unwrap();
    assert!(error.to_string().starts_with("/nowhere: "), "{error}");
}
