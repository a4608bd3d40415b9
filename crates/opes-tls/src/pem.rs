//! Certificates, keys and authorities from PEM text. Errors name the file; key material never appears in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Certificates in one file; a chain or a bundle of a closed system has a handful.
const CERTIFICATES_MAX: usize = 1000;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// No PEM, or damaged.
    #[error("{}: cannot be read as PEM: {reason}; is it PEM (-----BEGIN …), and whole?", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// From the PEM reader.
        reason: String,
    },
    /// PEM, but nothing of the kind that is looked for.
    #[error("{}: holds no {wanted}; are certificate and key interchanged?", path.display())]
    Without {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        wanted: &'static str,
    },
    /// More than anybody needs.
    #[error("{}: holds more than {CERTIFICATES_MAX} certificates; is it the right file?", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate are two pairs' halves.
    #[error(
        "{} is not the key of {}; if they are just being replaced, replace the other one too",
        key.display(), certificate.display()
    )]
    Mismatch {
        /// File of the key.
        key: PathBuf,
        /// File of the certificate.
        certificate: PathBuf,
    },
    /// Readable, but of a kind that the TLS library cannot use.
    #[error("{}: cannot be used: {reason}; ECDSA P-256 and RSA from 2048 bits always work", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// From the TLS library.
        reason: String,
    },
}

/// The one provider of the process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A chain, leaf first, with the leaf's key. Each file as its path and its text.
pub fn certified_key(
    certificate: (&Path, &str),
    key: (&Path, &str),
) -> Result<CertifiedKey, PemError> {
    let chain = certificates(certificate.0, certificate.1)?;
    let private = PrivateKeyDer::from_pem_slice(key.1.as_bytes()).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => without(key.0, "private key"),
        error => damaged(key.0, &error),
    })?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => PemError::Mismatch {
            key: key.0.to_owned(),
            certificate: certificate.0.to_owned(),
        },
        Error::InvalidCertificate(_) => unusable(certificate.0, &error),
        error => unusable(key.0, &error),
    })
}

/// The authorities of a bundle: a file as its path and its text.
pub fn authorities(path: &Path, text: &str) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, text)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(path, &error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path, text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        if found.len() == CERTIFICATES_MAX {
            let path = path.to_owned();
            return Err(PemError::TooMany { path });
        }
        found.push(certificate.map_err(|error| damaged(path, &error))?);
    }
    if found.is_empty() {
        return Err(without(path, "certificate"));
    }
    Ok(found)
}

fn damaged(path: &Path, error: &rustls_pki_types::pem::Error) -> PemError {
    PemError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

fn without(path: &Path, wanted: &'static str) -> PemError {
    PemError::Without {
        path: path.to_owned(),
        wanted,
    }
}

fn unusable(path: &Path, error: &Error) -> PemError {
    PemError::Unusable {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn error(certificate: &str, key: &str) -> String {
        let (crt, pem) = (Path::new("tls.crt"), Path::new("tls.key"));
        let error = certified_key((crt, certificate), (pem, key)).unwrap_err();
        error.to_string()
    }

    #[test]
    fn each_mistake_names_its_file() {
        let (certificate, key) = pair();
        let (_, strange) = pair();
        assert!(error("", &key).starts_with("tls.crt: holds no certificate"));
        assert!(error(&certificate, "").starts_with("tls.key: holds no private key"));
        assert!(error(&key, &certificate).starts_with("tls.crt: holds no certificate"));
        assert!(error(&certificate, &strange).starts_with("tls.key is not the key of tls.crt"));
        let half = &certificate[..certificate.len() / 2];
        assert!(error(half, &key).starts_with("tls.crt: "));
        let many = certificate.repeat(CERTIFICATES_MAX + 1);
        assert!(error(&many, &key).contains("more than 1000"));
    }

    #[test]
    fn a_bundle_of_authorities() {
        let (one, other) = (pair().0, pair().0);
        let both = authorities(Path::new("ca.pem"), &format!("{one}{other}")).unwrap();
        assert_eq!(both.len(), 2);
        let error = authorities(Path::new("ca.pem"), "nothing").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("ca.pem: holds no certificate")
        );
    }
}
