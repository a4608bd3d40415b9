//! STARTTLS certificates that are replaced live.
//!
//! The PEM files of a listener are looked at every [`RELOAD_INTERVAL`]; a changed pair that parses replaces the old one for new
//! handshakes. A pair that does not is logged and the last good one stays.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use crate::config::TlsConfig;

/// How often certificate files are looked at.
pub(crate) const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Makes an acceptor for the pair and keeps it fresh until `stop`.
pub(crate) fn acceptor(
    config: &TlsConfig,
    stop: CancellationToken,
) -> Result<tokio_rustls::TlsAcceptor> {
    let resolver = Arc::new(LiveCertificate {
        current: ArcSwap::new(load(config)?),
    });
    tokio::spawn(watch(config.clone(), Arc::clone(&resolver), stop));
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    Ok(Arc::new(server).into())
}

#[derive(Debug)]
struct LiveCertificate {
    current: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn load(config: &TlsConfig) -> Result<Arc<CertifiedKey>> {
    let name = |path: &Path| format!("cannot use {}", path.display());
    let chain = CertificateDer::pem_file_iter(&config.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| name(&config.certificate))?;
    anyhow::ensure!(
        !chain.is_empty(),
        "{} holds no certificate",
        config.certificate.display()
    );
    let key = PrivateKeyDer::from_pem_file(&config.key).with_context(|| name(&config.key))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider).with_context(|| {
        format!(
            "{} does not fit {}",
            config.key.display(),
            config.certificate.display()
        )
    })?;
    Ok(Arc::new(certified))
}

async fn watch(config: TlsConfig, live: Arc<LiveCertificate>, stop: CancellationToken) {
    let mut seen = stamp(&config);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RELOAD_INTERVAL) => {}
        }
        let now = stamp(&config);
        if now == seen {
            continue;
        }
        seen = now;
        match load(&config) {
            Ok(certified) => {
                live.current.store(certified);
                tracing::info!(certificate = %config.certificate.display(), "certificate replaced");
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "new certificate refused, the old one stays"
                );
            }
        }
    }
}

fn stamp(config: &TlsConfig) -> [Option<SystemTime>; 2] {
    [&config.certificate, &config.key].map(|path| {
        std::fs::metadata(path)
            .and_then(|meta| meta.modified())
            .ok()
    })
}
