//! What services say when a client authenticates.

use std::path::Path;
use std::sync::Arc;

use opes_edge::config::{ListenerConfig, ListenerProtocol, TlsConfig};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::{Bench, Client, act, call};

/// `AUTH PLAIN` for ann, whose password is `sesame`.
const ANN: &str = "AUTH PLAIN AGFubgBzZXNhbWU=";

/// A submission listener under TLS, with its certificate, for ann alone.
fn submission(listener: &mut ListenerConfig, folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["mail.example.com".into()]).unwrap();
    let path = |name: &str| folder.join(name);
    let hash = opes_edge::password_hash("sesame").unwrap();
    for (name, text) in [
        ("key", made.signing_key.serialize_pem()),
        ("certificate", made.cert.pem()),
        ("users", format!("ann:{hash}\n")),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    listener.protocol = ListenerProtocol::Submission;
    listener.users = Some(path("users"));
    listener.tls = Some(TlsConfig {
        certificate: path("certificate"),
        key: path("key"),
        implicit: true,
    });
    made.cert.der().clone()
}

async fn client(bench: &Bench, certificate: CertificateDer<'static>) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(bench.address()).await.unwrap();
    let name = ServerName::try_from("mail.example.com").unwrap();
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    Client::over(handshake.await.unwrap(), "EHLO").await
}

#[tokio::test]
async fn what_is_said_of_who_has_authenticated_is_known_in_every_transaction() {
    let scored = ", match: { cel: 'annotation(\"spam.score\") > 5 && auth.identity == \"ann\"' }";
    let only_ann = ", match: { cel: 'auth.identity == \"ann\"' }";
    let rules = [
        call("score", "auth", "judge", "score", only_ann),
        act("refuse", "rcptTo", "reject: {}", scored),
    ];
    let keys = tempfile::tempdir().unwrap();
    let mut certificate = None;
    let bench = Bench::start_with(&rules.concat(), |config| {
        certificate = Some(submission(&mut config.listeners[0], keys.path()));
    })
    .await;
    let mut client = client(&bench, certificate.unwrap()).await;
    assert_eq!(client.codes(&[ANN]).await, ["235"]);
    for _ in 0..2 {
        let commands = [
            "MAIL FROM:<a@example.net>",
            "RCPT TO:<b@example.org>",
            "RSET",
        ];
        assert_eq!(client.codes(&commands).await, ["250", "550", "250"]);
    }
}

#[tokio::test]
async fn a_right_password_is_not_enough_where_a_rule_says_no() {
    let no = act(
        "never",
        "auth",
        "reject: {}",
        ", match: { cel: 'auth.identity == \"ann\"' }",
    );
    let later = call("later", "auth", "judge", "fail", "");
    for (rule, code) in [(no, "535"), (later, "454")] {
        let keys = tempfile::tempdir().unwrap();
        let mut certificate = None;
        let bench = Bench::start_with(&rule, |config| {
            certificate = Some(submission(&mut config.listeners[0], keys.path()));
        })
        .await;
        let mut client = client(&bench, certificate.unwrap()).await;
        assert_eq!(
            client.codes(&[ANN, "MAIL FROM:<a@example.net>"]).await,
            [code, "530"]
        );
    }
}
