//! An authority and what it signs. Makes keys and certificates; knows no cluster and no clock.

use std::fmt;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Clocks of a cluster differ; a certificate counts from this much before it was made.
const BACKDATED_S: u64 = 5 * 60;
/// The last second of the year 9999, the latest that a certificate can say (RFC 5280 §4.1.2.5).
const TIME_MAX: u64 = 253_402_300_799;
/// Names in one certificate.
const NAMES_MAX: usize = 32;

/// A certificate authority with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// In PEM.
    pub certificate: String,
    /// In PEM.
    pub key: String,
    /// First octets of the certificate's hash, hexadecimal.
    pub id: String,
    /// The only part of its name.
    common_name: String,
    /// In seconds since 1970.
    pub not_before: u64,
    /// In seconds since 1970.
    pub not_after: u64,
}

/// A certificate that an authority signed, with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Leaf {
    /// In PEM.
    pub certificate: String,
    /// In PEM.
    pub key: String,
    /// In seconds since 1970.
    pub not_after: u64,
}

/// Why a certificate cannot be made or read. Key material is never in it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// PEM or DER that is none.
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    /// A key that is none, or another certificate's.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// Another than the operator makes.
    #[error(
        "the certificate's subject is not one common name: only authorities that the operator made can be kept in this Secret; for others use the issuer cert-manager"
    )]
    Foreign,
    /// The library refused.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// More than anybody needs, or none.
    #[error("a certificate is for 1 to {NAMES_MAX} names, not {0}")]
    Names(usize),
}

// === impl Authority ===

impl Authority {
    /// A new one, good for `lifetime` from `now` (seconds since 1970) on.
    pub fn make(now: u64, lifetime: Duration) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        // Two authorities that are believed side by side must differ by name: some verifiers look for the issuer by it alone.
        let common_name = format!("OPES authority {}", short_hash(key.public_key_raw()));
        let mut params = authority_params(&common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let not_after = now.saturating_add(lifetime.as_secs());
        set_validity(&mut params, now.saturating_sub(BACKDATED_S), not_after);
        let certificate = params.self_signed(&key)?.pem();
        Self::read(&certificate, &key.serialize_pem())
    }

    /// One that was made before.
    pub fn read(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let facts = Facts::of(certificate)?;
        let common_name = facts.common_name.ok_or(AuthorityError::Foreign)?;
        let pair =
            KeyPair::from_pem(key).map_err(|error| AuthorityError::Key(error.to_string()))?;
        if pair.public_key_raw() != facts.public_key {
            let other = "it belongs to another certificate".to_owned();
            return Err(AuthorityError::Key(other));
        }
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            id: facts.id,
            common_name,
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }

    /// A certificate for `names`, for both ends of TLS. It ends with the authority at the latest.
    pub fn issue(
        &self,
        names: &[String],
        now: u64,
        lifetime: Duration,
    ) -> Result<Leaf, AuthorityError> {
        let subject = names.first().filter(|_| names.len() <= NAMES_MAX);
        let subject = subject.ok_or(AuthorityError::Names(names.len()))?;
        let not_after = now.saturating_add(lifetime.as_secs()).min(self.not_after);
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = name(subject);
        params.is_ca = IsCa::ExplicitNoCa;
        let not_before = now.saturating_sub(BACKDATED_S).max(self.not_before);
        set_validity(&mut params, not_before, not_after);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let signer = KeyPair::from_pem(&self.key)?;
        let issuer = Issuer::new(authority_params(&self.common_name), signer);
        let key = KeyPair::generate()?;
        Ok(Leaf {
            certificate: params.signed_by(&key, &issuer)?.pem(),
            key: key.serialize_pem(),
            not_after,
        })
    }
}

impl fmt::Debug for Authority {
    // The key is nobody's to see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// What a certificate says of itself.
pub(crate) struct Facts {
    pub(crate) id: String,
    /// If the subject is nothing but this.
    pub(crate) common_name: Option<String>,
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    public_key: Vec<u8>,
}

// === impl Facts ===

impl Facts {
    /// Of the first certificate of `pem`.
    pub(crate) fn of(pem: &str) -> Result<Self, AuthorityError> {
        let unreadable = |reason: String| AuthorityError::Certificate(reason);
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| unreadable(error.to_string()))?;
        let (_, read) =
            X509Certificate::from_der(&der).map_err(|error| unreadable(error.to_string()))?;
        let mut attributes = read.subject().iter_attributes();
        let only = attributes.next().filter(|_| attributes.next().is_none());
        let common_name = read.subject().iter_common_name().next();
        let seconds = |time: x509_parser::time::ASN1Time| time.timestamp().try_into().unwrap_or(0);
        Ok(Self {
            id: short_hash(&der),
            common_name: only
                .and(common_name)
                .and_then(|attribute| attribute.as_str().ok())
                .map(str::to_owned),
            not_before: seconds(read.validity().not_before),
            not_after: seconds(read.validity().not_after),
            public_key: read.public_key().subject_public_key.data.to_vec(),
        })
    }
}

/// Eight octets of SHA-256 in hexadecimal: to tell things apart, not to prove anything.
pub(crate) fn short_hash(octets: &[u8]) -> String {
    let mut hash = format!("{:x}", Sha256::digest(octets));
    hash.truncate(16);
    hash
}

/// The certificates of a PEM bundle, one text each.
pub(crate) fn split(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let parts = bundle.split_inclusive(END);
    let begin = |part: &str| part.find("-----BEGIN CERTIFICATE-----");
    parts
        .filter(|part| part.ends_with(END))
        .filter_map(|part| part.get(begin(part)?..))
        .map(|part| format!("{part}\n"))
        .collect()
}

fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common_name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn name(common: &str) -> DistinguishedName {
    // RFC 5280 A.1 allows 64 characters; what counts are the alternative names.
    let common: String = common.chars().take(64).collect();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Both in seconds since 1970.
fn set_validity(params: &mut CertificateParams, not_before: u64, not_after: u64) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(not_before.min(TIME_MAX));
    params.not_after = epoch + Duration::from_secs(not_after.min(TIME_MAX));
}

#[cfg(test)]
mod tests;
