//! TLS towards next hops. Opportunistic TLS protects against listeners only and therefore takes any certificate (RFC 7435);
//! required TLS checks the chain and the name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opes_smtp::client::TlsMode;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// STARTTLS policy for a next hop.
#[derive(Clone, Default)]
pub enum Tls {
    /// Never.
    Off,
    /// When offered, with any certificate; in clear text when it does not work out.
    #[default]
    Opportunistic,
    /// Or no delivery: the certificate must be valid for the next hop's name by this configuration.
    Required(Arc<ClientConfig>),
}

/// Why required TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of authorities.
    #[error("cannot read certificate authorities from {}: {reason}; name a PEM file with at least one certificate", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Tls {
    /// Required, with the authorities of a PEM file such as `/etc/ssl/certs/ca-certificates.crt`.
    pub fn required(authorities: &Path) -> Result<Self, TlsError> {
        let wrong = |reason: String| TlsError::Authorities {
            path: authorities.to_owned(),
            reason,
        };
        let mut roots = RootCertStore::empty();
        let certificates =
            CertificateDer::pem_file_iter(authorities).map_err(|e| wrong(e.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
            // System bundles hold certificates that webpki does not take; one usable authority is what counts.
            roots.add_parsable_certificates([certificate]);
        }
        if roots.is_empty() {
            return Err(wrong("it has no usable certificate".into()));
        }
        let config = builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self::Required(Arc::new(config)))
    }

    pub(crate) fn mode(&self) -> TlsMode {
        match self {
            Self::Off => TlsMode::Off,
            Self::Opportunistic => TlsMode::Opportunistic,
            Self::Required(_) => TlsMode::Required,
        }
    }

    /// The configuration of handshakes; `None` when there are none.
    pub(crate) fn client_config(&self) -> Option<Arc<ClientConfig>> {
        match self {
            Self::Off => None,
            Self::Opportunistic => Some(Arc::new(any_certificate())),
            Self::Required(config) => Some(Arc::clone(config)),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.mode(), f)
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
}

fn any_certificate() -> ClientConfig {
    let verifier = AnyCertificate(aws_lc_rs::default_provider());
    builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth()
}

/// Takes every certificate, but checks that the peer has its key.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
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
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_named_in_the_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("empty.pem");
        std::fs::write(&path, "nothing").expect("written");
        let error = Tls::required(&path)
            .expect_err("no certificates")
            .to_string();
        assert!(
            error.contains("empty.pem") && error.contains("PEM"),
            "{error}"
        );
    }
}
