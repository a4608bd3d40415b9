use std::fs;
use std::path::Path;

use opes_reload::Look;
use tempfile::TempDir;

use super::{ClientTls, MutualFiles, MutualTexts, ServerTls};

fn files(folder: &Path) -> MutualFiles {
    MutualFiles {
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
        ca: folder.join("ca.crt"),
    }
}

fn write(files: &MutualFiles) {
    let made = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).unwrap();
    fs::write(&files.certificate, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    fs::write(&files.ca, made.cert.pem()).unwrap();
}

#[test]
fn a_new_generation_ends_the_old_one_and_a_broken_one_does_not() {
    let folder = TempDir::new().unwrap();
    let files = files(folder.path());
    write(&files);
    let tls = ServerTls::server(files.clone()).unwrap();
    let (_, first) = tls.current();
    fs::write(&files.key, "broken").unwrap();
    while !matches!(tls.look(), Look::Unchanged) {}
    assert!(!first.is_cancelled());
    write(&files);
    while !matches!(tls.look(), Look::Unchanged) {}
    assert!(first.is_cancelled());
    let (_, second) = tls.current();
    assert!(!second.is_cancelled());
    drop(tls);
}

#[test]
fn what_cannot_be_opened_is_named() {
    let folder = TempDir::new().unwrap();
    let files = files(folder.path());
    write(&files);
    fs::remove_file(&files.ca).unwrap();
    let error = ClientTls::client(files.clone()).unwrap_err().to_string();
    assert!(error.contains("ca.crt: No such file"), "{error}");
    fs::write(&files.ca, "").unwrap();
    let error = ServerTls::server(files).unwrap_err().to_string();
    assert!(error.contains("ca.crt: holds no certificate"), "{error}");
}

#[test]
fn material_in_memory_is_replaced_by_its_owner() {
    let texts = || {
        let made = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).unwrap();
        MutualTexts {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            ca: made.cert.pem(),
        }
    };
    let tls = ServerTls::server_in_memory(&texts()).unwrap();
    let (_, first) = tls.current();
    let crossed = MutualTexts {
        key: texts().key,
        ..texts()
    };
    let error = tls.replace(&crossed).unwrap_err().to_string();
    assert!(
        error.contains("tls.key is not the key of tls.crt"),
        "{error}"
    );
    assert!(!first.is_cancelled());
    tls.clone().replace(&texts()).unwrap();
    assert!(first.is_cancelled());
    assert!(!tls.current().1.is_cancelled());
    assert!(!format!("{:?}", texts()).contains("PRIVATE"));
}
