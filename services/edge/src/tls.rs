//! TLS with mail clients: certificates that are replaced live, and the handshake.
//!
//! A changed pair of PEM files replaces the old one for new handshakes. A pair that cannot be used is logged and the last
//! good one stays.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use opes_reload::Reloaded;
use opes_smtp::server::TlsInfo;
use opes_tls::certified_key;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;
use crate::stream::{ClientStream, Prefixed};

/// Makes an acceptor for the pair and keeps it fresh for as long as it lives.
pub(crate) fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor> {
    let paths = [config.certificate.clone(), config.key.clone()];
    let live = Reloaded::open_all(paths, |[cert_at, key_at], [cert, key]| {
        certified_key((cert_at, cert), (key_at, key))
    })?;
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(LiveCertificate(live)));
    Ok(Arc::new(server).into())
}

/// The handshake with a client, and what it led to.
pub(crate) async fn handshake(
    acceptor: &TlsAcceptor,
    stream: Prefixed,
    limit: Duration,
) -> io::Result<(ClientStream, TlsInfo)> {
    let stream = tokio::time::timeout(limit, acceptor.accept(stream))
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    let (_, tls) = stream.get_ref();
    let info = TlsInfo {
        version: tls
            .protocol_version()
            .map(|version| format!("{version:?}"))
            .unwrap_or_default(),
        cipher: tls
            .negotiated_cipher_suite()
            .map(|suite| format!("{:?}", suite.suite()))
            .unwrap_or_default(),
        server_name: tls.server_name().map(str::to_owned),
    };
    Ok((ClientStream::Tls(Box::new(stream)), info))
}

#[derive(Debug)]
struct LiveCertificate(Reloaded<CertifiedKey>);

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}
