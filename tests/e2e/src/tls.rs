//! Certificates of the test's own, and a client's end of STARTTLS that shows which certificate it was given.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use opes_edge::config::TlsConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Writes a new self-signed pair in place of the old one, each file by rename, as Kubernetes' and ACME clients' tools do.
pub fn write_pair(folder: &Path) -> Result<(TlsConfig, CertificateDer<'static>)> {
    let made = rcgen::generate_simple_self_signed(["mail.example.com".into()])?;
    let pair = TlsConfig {
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
        implicit: false,
    };
    for (path, text) in [
        (&pair.key, made.signing_key.serialize_pem()),
        (&pair.certificate, made.cert.pem()),
    ] {
        let aside = path.with_extension("new");
        std::fs::write(&aside, text)?;
        std::fs::rename(&aside, path)?;
    }
    Ok((pair, made.cert.der().clone()))
}

/// The handshake, after the 220 to STARTTLS. Any certificate is taken.
pub async fn handshake(stream: TcpStream) -> Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any))
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    Ok(connector
        .connect(ServerName::try_from("mail.example.com")?, stream)
        .await?)
}

/// The certificate that the server showed.
pub fn shown(stream: &TlsStream<TcpStream>) -> Result<CertificateDer<'static>> {
    let chain = stream
        .get_ref()
        .1
        .peer_certificates()
        .context("no certificate")?;
    Ok(chain
        .first()
        .context("an empty chain")?
        .clone()
        .into_owned())
}

/// Trusts everybody: these tests ask which certificate is shown, not whose it is.
#[derive(Debug)]
struct Any;

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn algorithms() -> rustls::crypto::WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}
