//! Certificates and private keys of S/MIME: whose they are, what they may be used for, and until when.
//!
//! Certificates of correspondents are believed because they are in the folder. Signatures are believed if their certificate leads to one of the
//! [`Anchors`].

use std::fmt;

use aws_lc_rs::rsa::{
    KeyPair as RsaKeyPair, OaepPrivateDecryptingKey, Pkcs1PrivateDecryptingKey,
    Pkcs1PublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, TrustAnchor};
use webpki::anchor_from_trusted_cert;

use crate::asn1::{
    BIT_STRING, CONTEXT_0, GENERALIZED_TIME, INTEGER, Malformed, OCTET_STRING, OID, Reader,
    SEQUENCE, SET, UTC_TIME, tlv,
};

/// Largest certificate, octets.
pub(crate) const CERTIFICATE_OCTETS_MAX: usize = 64 * 1024;
/// Most extensions, names and attributes of one certificate that are looked at.
const FIELDS_MAX: usize = 256;
/// Most blocks in one PEM file.
const BLOCKS_MAX: usize = 10_000;

/// id-ce 14
const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x0e];
/// id-ce 15
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// id-ce 17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 1.2.840.113549.1.9.1
const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];
/// rfc822Name in GeneralName (RFC 5280 §4.2.1.6).
const RFC822_NAME: u8 = 0x81;
const VERSION: u8 = CONTEXT_0;
const EXTENSIONS: u8 = CONTEXT_0 + 3;

/// What a certificate says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    /// INTEGER as it stands there.
    pub(crate) serial: Vec<u8>,
    /// Name as it stands there.
    pub(crate) issuer: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    /// The key's octets without their wrapping.
    public_key: Vec<u8>,
    /// In lower case.
    pub(crate) addresses: Vec<String>,
    pub(crate) subject_key_identifier: Option<Vec<u8>>,
    usage: Option<u8>,
    not_before: u64,
    not_after: u64,
}

/// Somebody to encrypt to.
pub(crate) struct Recipient {
    pub(crate) certificate: Certificate,
    pub(crate) addresses: Vec<String>,
    key: PublicEncryptingKey,
}

/// A key of ours with its certificate.
pub(crate) struct Identity {
    pub(crate) certificate: Certificate,
    /// Certificates that lead from ours to an authority.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: PrivateKey,
}

/// Never leaves aws-lc-rs.
pub(crate) enum PrivateKey {
    Rsa {
        signing: Box<RsaKeyPair>,
        pkcs1: Pkcs1PrivateDecryptingKey,
        oaep: OaepPrivateDecryptingKey,
    },
    /// P-256; signs only.
    Ec(Box<EcdsaKeyPair>),
}

/// Certificates and keys that are not matched yet.
#[derive(Default)]
pub(crate) struct Loose {
    certificates: Vec<Certificate>,
    keys: Vec<PrivateKey>,
}

/// The authorities that are believed.
#[derive(Default)]
pub(crate) struct Anchors(pub(crate) Vec<TrustAnchor<'static>>);

// === impl Certificate ===

impl Certificate {
    /// Reads one that came with a message; its signature is not looked at. Its addresses are those of the alternative name only: what an authority
    /// may certify (RFC 5280 §4.2.1.10) is checked for no others.
    pub(crate) fn read(der: &[u8]) -> Result<Self, Malformed> {
        Self::parse(der).map(|(certificate, _)| certificate)
    }

    /// Reads one from the folder, whose word is believed: the subject's address counts where there is no alternative name (RFC 8550 §3).
    fn read_own(der: &[u8]) -> Result<Self, Malformed> {
        let (mut certificate, subject) = Self::parse(der)?;
        if certificate.addresses.is_empty() {
            certificate.names(subject)?;
        }
        Ok(certificate)
    }

    /// With the content of its subject.
    fn parse(der: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        if der.len() > CERTIFICATE_OCTETS_MAX {
            return Err(Malformed);
        }
        let mut outer = Reader::new(der).open(SEQUENCE)?;
        let mut tbs = outer.open(SEQUENCE)?;
        tbs.optional(VERSION)?;
        let serial = tbs.any()?;
        tbs.expect(SEQUENCE)?;
        let issuer = tbs.any()?;
        let mut validity = tbs.open(SEQUENCE)?;
        let not_before = time(&mut validity)?;
        let not_after = time(&mut validity)?;
        let subject = tbs.any()?;
        let spki = tbs.any()?;
        let mut key = Reader::new(spki.content);
        key.expect(SEQUENCE)?;
        let public_key = key.expect(BIT_STRING)?.get(1..).ok_or(Malformed)?;
        if serial.tag != INTEGER || issuer.tag != SEQUENCE || subject.tag != SEQUENCE {
            return Err(Malformed);
        }
        let mut certificate = Self {
            der: der.to_vec(),
            serial: serial.whole.to_vec(),
            issuer: issuer.whole.to_vec(),
            spki: spki.whole.to_vec(),
            public_key: public_key.to_vec(),
            addresses: Vec::new(),
            subject_key_identifier: None,
            usage: None,
            not_before,
            not_after,
        };
        for node in tbs.all(FIELDS_MAX)? {
            if node.tag == EXTENSIONS {
                certificate.extensions(node.content)?;
            }
        }
        Ok((certificate, subject.content))
    }

    fn extensions(&mut self, content: &[u8]) -> Result<(), Malformed> {
        for extension in Reader::new(content).open(SEQUENCE)?.all(FIELDS_MAX)? {
            let mut fields = Reader::new(extension.content).all(3)?.into_iter();
            let id = fields.next().ok_or(Malformed)?;
            let value = fields.next_back().ok_or(Malformed)?;
            if id.tag != OID || value.tag != OCTET_STRING {
                return Err(Malformed);
            }
            let mut value = Reader::new(value.content);
            match id.content {
                SUBJECT_KEY_IDENTIFIER => {
                    self.subject_key_identifier = Some(value.expect(OCTET_STRING)?.to_vec());
                }
                KEY_USAGE => {
                    self.usage = Some(value.expect(BIT_STRING)?.get(1).copied().unwrap_or(0));
                }
                SUBJECT_ALT_NAME => {
                    let names = value.open(SEQUENCE)?.all(FIELDS_MAX)?;
                    let names = names.into_iter().filter(|name| name.tag == RFC822_NAME);
                    self.addresses
                        .extend(names.filter_map(|name| address(name.content)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn names(&mut self, subject: &[u8]) -> Result<(), Malformed> {
        for set in Reader::new(subject).all(FIELDS_MAX)? {
            for attribute in Reader::new(set.content).all(FIELDS_MAX)? {
                let mut fields = Reader::new(attribute.content);
                let (id, value) = (fields.expect(OID)?, fields.any()?);
                if set.tag == SET && id == EMAIL_ADDRESS {
                    self.addresses.extend(address(value.content));
                }
            }
        }
        Ok(())
    }

    fn is_valid(&self, now: u64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// digitalSignature or nonRepudiation (RFC 8550 §4.4.2).
    pub(crate) fn may_sign(&self) -> bool {
        self.usage.is_none_or(|usage| usage & 0b1100_0000 != 0)
    }

    /// keyEncipherment.
    fn may_encrypt(&self) -> bool {
        self.usage.is_none_or(|usage| usage & 0b0010_0000 != 0)
    }
}

// === impl Recipient ===

impl Recipient {
    fn new(certificate: &Certificate) -> Option<Self> {
        let key = PublicEncryptingKey::from_der(&certificate.spki).ok()?;
        certificate.may_encrypt().then(|| Self {
            addresses: certificate.addresses.clone(),
            certificate: certificate.clone(),
            key,
        })
    }

    pub(crate) fn is_usable(&self, now: u64) -> bool {
        self.certificate.is_valid(now)
    }

    /// RSAES-PKCS1-v1_5 (RFC 8017 §7.2), which every reader knows.
    pub(crate) fn encrypt(&self, key: &[u8]) -> Option<Vec<u8>> {
        let rsa = Pkcs1PublicEncryptingKey::new(self.key.clone()).ok()?;
        let mut out = vec![0; rsa.ciphertext_size()];
        let size = rsa.encrypt(key, &mut out).ok()?.len();
        out.truncate(size);
        Some(out)
    }
}

// === impl Identity ===

impl Identity {
    pub(crate) fn is_usable(&self, now: u64) -> bool {
        self.certificate.is_valid(now)
    }
}

// === impl PrivateKey ===

impl PrivateKey {
    fn read(der: &PrivatePkcs8KeyDer<'_>) -> Result<Self, String> {
        let der = der.secret_pkcs8_der();
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der) {
            return Ok(Self::Ec(Box::new(key)));
        }
        let unusable = |_| "a private key that is neither RSA nor P-256".to_owned();
        let signing = RsaKeyPair::from_pkcs8(der).map_err(unusable)?;
        let decrypting = || PrivateDecryptingKey::from_pkcs8(der);
        let failed = |_| "an RSA key that does not decrypt".to_owned();
        Ok(Self::Rsa {
            signing: Box::new(signing),
            pkcs1: decrypting()
                .and_then(|key| Ok(Pkcs1PrivateDecryptingKey::new(key)?))
                .map_err(failed)?,
            oaep: decrypting()
                .and_then(|key| Ok(OaepPrivateDecryptingKey::new(key)?))
                .map_err(failed)?,
        })
    }

    fn public_key(&self) -> &[u8] {
        match self {
            Self::Rsa { signing, .. } => signing.public_key().as_ref(),
            Self::Ec(key) => key.public_key().as_ref(),
        }
    }
}

// === impl Loose ===

impl Loose {
    /// Certificates and PKCS#8 keys of a PEM file.
    pub(crate) fn add(&mut self, pem: &[u8]) -> Result<(), String> {
        const OTHER_KEYS: [&[u8]; 3] = [
            b"BEGIN EC PRIVATE KEY",
            b"BEGIN ENCRYPTED PRIVATE KEY",
            b"Proc-Type: 4,ENCRYPTED",
        ];
        let has = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
        if OTHER_KEYS.into_iter().any(has) {
            return Err("a private key that is not plain PKCS#8; convert it with `openssl pkcs8 -topk8 -nodes`: the folder is the secret".to_owned());
        }
        for certificate in CertificateDer::pem_slice_iter(pem).take(BLOCKS_MAX) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            let certificate = Certificate::read_own(&certificate);
            let unreadable = |_| "a certificate that cannot be read".to_owned();
            self.certificates.push(certificate.map_err(unreadable)?);
        }
        for key in PrivatePkcs8KeyDer::pem_slice_iter(pem).take(BLOCKS_MAX) {
            let key = key.map_err(|error| error.to_string())?;
            // Keys for DKIM live here too; Ed25519 is none for S/MIME.
            match PrivateKey::read(&key) {
                Ok(key) => self.keys.push(key),
                Err(reason) => tracing::debug!(reason, "not used for S/MIME"),
            }
        }
        Ok(())
    }

    /// Certificates of correspondents and of ours, keys with their certificates.
    pub(crate) fn matched(self) -> (Vec<Recipient>, Vec<Identity>) {
        let Self { certificates, keys } = self;
        let named = || {
            certificates
                .iter()
                .filter(|found| !found.addresses.is_empty())
        };
        let recipients = named().filter_map(Recipient::new).collect();
        let authorities = certificates
            .iter()
            .filter(|found| found.addresses.is_empty());
        let chain: Vec<Vec<u8>> = authorities.map(|found| found.der.clone()).collect();
        let identity = |key: PrivateKey| {
            let mut own = named().filter(|found| found.public_key == key.public_key());
            // Renewed with the same key: the one that lasts longest.
            let mut newest = own.next()?;
            for other in own {
                if other.not_after > newest.not_after {
                    newest = other;
                }
            }
            Some(Identity {
                certificate: newest.clone(),
                chain: chain.clone(),
                key,
            })
        };
        (recipients, keys.into_iter().filter_map(identity).collect())
    }
}

// === impl Anchors ===

impl Anchors {
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let mut anchors = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem).take(BLOCKS_MAX) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            let anchor =
                anchor_from_trusted_cert(&certificate).map_err(|error| error.to_string())?;
            anchors.push(anchor.to_owned());
        }
        if anchors.is_empty() {
            return Err("no certificate in PEM".to_owned());
        }
        Ok(Self(anchors))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipient").finish_non_exhaustive()
    }
}

fn address(octets: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(octets).ok()?;
    let fits =
        text.len() <= 320 && text.contains('@') && text.bytes().all(|o| o.is_ascii_graphic());
    fits.then(|| text.to_ascii_lowercase())
}

/// UTCTime or GeneralizedTime as DER has them (RFC 5280 §4.1.2.5), in seconds since 1970; before it: 0.
fn time(validity: &mut Reader<'_>) -> Result<u64, Malformed> {
    let node = validity.any()?;
    let digits = node.content.strip_suffix(b"Z").ok_or(Malformed)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let number = |from: usize, to: usize| {
        let digits = digits.get(from..to).ok_or(Malformed)?;
        Ok(digits
            .iter()
            .fold(0_i64, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let (year, at) = match (node.tag, digits.len()) {
        (UTC_TIME, 12) => match number(0, 2)? {
            year @ 50.. => (1900 + year, 2),
            year => (2000 + year, 2),
        },
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return Err(Malformed),
    };
    let part = |index: usize| number(at + index * 2, at + index * 2 + 2);
    let days = days(year, part(0)?, part(1)?);
    let seconds = days * 86_400 + part(2)? * 3600 + part(3)? * 60 + part(4)?;
    Ok(u64::try_from(seconds).unwrap_or(0))
}

/// Days since 1970-01-01 in the Gregorian calendar; years start in March here, so that a leap day is the last one.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    era * 146_097 + days - 719_468
}

/// UTCTime until 2049, GeneralizedTime from then on, of seconds since 1970 (RFC 5652 §11.3).
pub(crate) fn time_der(now: u64) -> Vec<u8> {
    let day = i64::try_from(now / 86_400).unwrap_or(0);
    let mut year = 1970 + day / 366;
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days(year, month + 1, 1) <= day {
        month += 1;
    }
    let date = day - days(year, month, 1) + 1;
    let (hour, minute, second) = (now / 3600 % 24, now / 60 % 60, now % 60);
    let clock = format!("{month:02}{date:02}{hour:02}{minute:02}{second:02}Z");
    if year < 2050 {
        tlv(UTC_TIME, format!("{:02}{clock}", year % 100).as_bytes())
    } else {
        tlv(GENERALIZED_TIME, format!("{year:04}{clock}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_there_and_back() {
        for (now, text) in [
            (0, "700101000000Z"),
            (951_782_400, "000229000000Z"),
            (1_732_424_730, "241124050530Z"),
            (2_524_608_000, "20500101000000Z"),
        ] {
            let der = time_der(now);
            assert_eq!(&der[2..], text.as_bytes());
            assert_eq!(time(&mut Reader::new(&der)), Ok(now));
        }
        assert_eq!(
            time(&mut Reader::new(&tlv(UTC_TIME, b"700101000000"))),
            Err(Malformed)
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(octets in proptest::collection::vec(0_u8..=255, 0..400)) {
            let _ = Certificate::read_own(&octets);
            let _ = time(&mut Reader::new(&octets));
            let _ = Loose::default().add(&octets);
            let _ = Anchors::from_pem(&octets);
        }
    }
}
