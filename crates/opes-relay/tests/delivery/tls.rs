//! STARTTLS towards a next hop.

use std::sync::Arc;

use crate::common::{Bench, DEADLINE, envelope, view};
use crate::sink::{Behaviour, Sink};
use opes_relay::{Route, Tls};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// An acceptor and its certificate in PEM.
fn identity(name: &str) -> (TlsAcceptor, String) {
    let identity = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert.der().clone()], key)
        .expect("they fit");
    (TlsAcceptor::from(Arc::new(config)), identity.cert.pem())
}

async fn sink(tls: Option<TlsAcceptor>) -> Sink {
    Sink::start(Behaviour {
        tls,
        ..Behaviour::default()
    })
    .await
}

fn required(authorities: &str) -> Tls {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), authorities).expect("written");
    Tls::required(file.path()).expect("authorities")
}

/// Code of the reply, and whether what arrived came encrypted.
async fn deliver(sink: &Sink, tls: Tls) -> (u16, Option<bool>) {
    let bench = Bench::start(Route::NextHop {
        host: "localhost".into(),
        port: sink.port,
        lmtp: false,
        tls,
    });
    let view = view(bench.dir.path(), b"Subject: a\r\n\r\n").await;
    let replies = timeout(
        DEADLINE,
        bench.relay.deliver(&envelope(&["b@example.net"]), &view),
    )
    .await;
    let code = replies.expect("in time")[0].code();
    (
        code,
        sink.received().first().map(|message| message.encrypted),
    )
}

#[tokio::test]
async fn opportunistic_takes_any_certificate() {
    let (acceptor, _) = identity("other.example.net");
    assert_eq!(
        deliver(&sink(Some(acceptor)).await, Tls::Opportunistic).await,
        (250, Some(true))
    );
}

#[tokio::test]
async fn opportunistic_goes_on_in_clear_text() {
    assert_eq!(
        deliver(&sink(None).await, Tls::Opportunistic).await,
        (250, Some(false))
    );
}

#[tokio::test]
async fn off_does_not_ask() {
    let (acceptor, _) = identity("localhost");
    assert_eq!(
        deliver(&sink(Some(acceptor)).await, Tls::Off).await,
        (250, Some(false))
    );
}

#[tokio::test]
async fn required_delivers_to_the_right_name_only() {
    let (acceptor, authority) = identity("localhost");
    assert_eq!(
        deliver(&sink(Some(acceptor)).await, required(&authority)).await,
        (250, Some(true))
    );

    let (acceptor, authority) = identity("other.example.net");
    assert_eq!(
        deliver(&sink(Some(acceptor)).await, required(&authority)).await,
        (451, None)
    );

    let (acceptor, _) = identity("localhost");
    let (_, another_authority) = identity("localhost");
    assert_eq!(
        deliver(&sink(Some(acceptor)).await, required(&another_authority)).await,
        (451, None)
    );
}

#[tokio::test]
async fn required_is_never_done_without() {
    let (_, authority) = identity("localhost");
    assert_eq!(
        deliver(&sink(None).await, required(&authority)).await,
        (451, None)
    );
}
