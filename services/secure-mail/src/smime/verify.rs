//! SignedData of others: the hash, the signature, and whether the certificate leads to somebody we believe (RFC 5652 §5.6, RFC 8550 §4).

use std::time::Duration;

use aws_lc_rs::digest::{self, digest};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, aws_lc_rs as algorithms};

use super::{content_info, oids};
use crate::asn1::{
    CONTEXT_0, CONTEXT_0_PRIMITIVE, INTEGER, Malformed, Node, OCTET_STRING, OID, Reader, SEQUENCE,
    SET, definite, tlv,
};
use crate::keys::x509::{Anchors, CERTIFICATE_OCTETS_MAX, Certificate};

/// Most signers of one message that are looked at.
const SIGNERS_MAX: usize = 4;
/// Most certificates that come with a message.
const CERTIFICATES_MAX: usize = 32;
/// Most attributes of a signer.
const ATTRIBUTES_MAX: usize = 64;
const CRLS: u8 = CONTEXT_0 + 1;

/// What is known of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verified {
    /// By somebody with these addresses.
    Good {
        /// In lower case.
        addresses: Vec<String>,
        /// If it was not detached.
        content: Option<Vec<u8>>,
    },
    /// Broken, or by nobody whom we believe. Why is for people.
    Bad(&'static str),
    /// No SignedData at all.
    NotSigned,
}

/// Looks at `cms`; `content` is what a detached signature is about.
pub(crate) fn verify(cms: &[u8], content: Option<&[u8]>, anchors: &Anchors, now: u64) -> Verified {
    let Ok(der) = definite(cms) else {
        return Verified::Bad("it cannot be read");
    };
    let Ok((kind, mut info)) = content_info(&der) else {
        return Verified::Bad("it cannot be read");
    };
    if kind != oids::SIGNED_DATA {
        return Verified::NotSigned;
    }
    let Ok(data) = Signed::read(&mut info) else {
        return Verified::Bad("it cannot be read");
    };
    let (Some(octets), inside) = (match (data.content, content) {
        (Some(inside), None) => (Some(inside), Some(inside.to_vec())),
        (None, detached) => (detached, None),
        // Two contents: readers would differ.
        (Some(_), Some(_)) => (None, None),
    }) else {
        return Verified::Bad("it is about nothing, or about two things");
    };
    let mut why = "it has no signer";
    for signer in &data.signers {
        match data.by(signer, octets, anchors, now) {
            Ok(addresses) => {
                return Verified::Good {
                    addresses,
                    content: inside,
                };
            }
            Err(reason) => why = reason,
        }
    }
    Verified::Bad(why)
}

struct Signed<'a> {
    kind: &'a [u8],
    content: Option<&'a [u8]>,
    certificates: Vec<Node<'a>>,
    signers: Vec<SignerInfo<'a>>,
}

struct SignerInfo<'a> {
    id: Node<'a>,
    hash: &'static digest::Algorithm,
    attributes: Option<&'a [u8]>,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

// === impl Signed ===

impl<'a> Signed<'a> {
    fn read(info: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut data = info.open(SEQUENCE)?;
        data.expect(INTEGER)?;
        data.expect(SET)?;
        let mut encapsulated = data.open(SEQUENCE)?;
        let kind = encapsulated.expect(OID)?;
        let content = match encapsulated.optional(CONTEXT_0)? {
            Some(explicit) => Some(Reader::new(explicit).expect(OCTET_STRING)?),
            None => None,
        };
        let certificates = data.optional(CONTEXT_0)?.unwrap_or_default();
        let certificates = Reader::new(certificates).all(CERTIFICATES_MAX)?;
        data.optional(CRLS)?;
        let signers = data.open(SET)?.all(SIGNERS_MAX)?;
        Ok(Self {
            kind,
            content,
            certificates: certificates
                .into_iter()
                .filter(|node| node.tag == SEQUENCE && node.whole.len() <= CERTIFICATE_OCTETS_MAX)
                .collect(),
            // One with an algorithm that we do not know does not spoil the others.
            signers: signers
                .iter()
                .filter_map(|node| SignerInfo::read(node.content).ok())
                .collect(),
        })
    }

    /// The addresses of the signer, if everything is as it should be.
    fn by(
        &self,
        signer: &SignerInfo<'_>,
        octets: &[u8],
        anchors: &Anchors,
        now: u64,
    ) -> Result<Vec<String>, &'static str> {
        let certificates = self.certificates.iter();
        let mut read = certificates.filter_map(|node| Certificate::read(node.whole).ok());
        let certificate = read
            .find(|certificate| signer.is_by(certificate))
            .ok_or("its certificate is not with it")?;
        if !certificate.may_sign() {
            return Err("its certificate is not made for signatures");
        }
        let hash = digest(signer.hash, octets);
        let covered = match signer.attributes {
            Some(attributes) => {
                let attested = attested(attributes, self.kind).map_err(|_| "its attributes")?;
                if attested != hash.as_ref() {
                    return Err("the content was changed");
                }
                tlv(SET, attributes)
            }
            // RFC 5652 §5.3: only plain data may do without.
            None if self.kind == oids::DATA => octets.to_vec(),
            None => return Err("its attributes are missing"),
        };
        let der = CertificateDer::from(certificate.der.as_slice());
        let leaf = EndEntityCert::try_from(&der).map_err(|_| "its certificate")?;
        let fits = signer.algorithms().into_iter().any(|algorithm| {
            leaf.verify_signature(algorithm, &covered, signer.signature)
                .is_ok()
        });
        if !fits {
            return Err("the signature was changed");
        }
        let others: Vec<_> = self
            .certificates
            .iter()
            .map(|node| CertificateDer::from(node.whole))
            .collect();
        leaf.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &anchors.0,
            &others,
            UnixTime::since_unix_epoch(Duration::from_secs(now)),
            KeyUsage::required_if_present(oids::EMAIL_PROTECTION),
            None,
            None,
        )
        .map_err(|error| {
            tracing::debug!(%error, "a signer's certificate");
            "its certificate does not lead to an authority that we believe, or is expired"
        })?;
        Ok(certificate.addresses)
    }
}

/// The digest that the attributes state, if they are about this type of content.
fn attested<'a>(attributes: &'a [u8], kind: &[u8]) -> Result<&'a [u8], Malformed> {
    let (mut digest, mut of_kind) = (None, false);
    for attribute in Reader::new(attributes).all(ATTRIBUTES_MAX)? {
        let mut fields = Reader::new(attribute.content);
        let (id, mut values) = (fields.expect(OID)?, fields.open(SET)?);
        match id {
            oids::MESSAGE_DIGEST if digest.is_none() => {
                digest = Some(values.expect(OCTET_STRING)?);
            }
            // Twice: RFC 5652 §11.2.
            oids::MESSAGE_DIGEST => return Err(Malformed),
            oids::CONTENT_TYPE => of_kind = values.expect(OID)? == kind,
            _ => {}
        }
    }
    digest.filter(|_| of_kind).ok_or(Malformed)
}

// === impl SignerInfo ===

impl<'a> SignerInfo<'a> {
    fn read(content: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Reader::new(content);
        fields.expect(INTEGER)?;
        let id = fields.any()?;
        let hash = match fields.open(SEQUENCE)?.expect(OID)? {
            oids::SHA256 => &digest::SHA256,
            oids::SHA384 => &digest::SHA384,
            oids::SHA512 => &digest::SHA512,
            _ => return Err(Malformed),
        };
        let attributes = fields.optional(CONTEXT_0)?;
        let algorithm = fields.open(SEQUENCE)?.expect(OID)?;
        let signature = fields.expect(OCTET_STRING)?;
        Ok(Self {
            id,
            hash,
            attributes,
            algorithm,
            signature,
        })
    }

    fn is_by(&self, certificate: &Certificate) -> bool {
        match self.id.tag {
            SEQUENCE => {
                let named = [certificate.issuer.as_slice(), &certificate.serial].concat();
                self.id.content == named
            }
            CONTEXT_0_PRIMITIVE => {
                certificate.subject_key_identifier.as_deref() == Some(self.id.content)
            }
            _ => false,
        }
    }

    /// What the signature may be; which curve it is, the certificate says.
    fn algorithms(&self) -> Vec<&'static dyn SignatureVerificationAlgorithm> {
        let hash = self.hash.output_len();
        match (self.algorithm, hash) {
            (oids::RSA | oids::SHA256_RSA, 32) => vec![algorithms::RSA_PKCS1_2048_8192_SHA256],
            (oids::RSA | oids::SHA384_RSA, 48) => vec![algorithms::RSA_PKCS1_2048_8192_SHA384],
            (oids::RSA | oids::SHA512_RSA, 64) => vec![algorithms::RSA_PKCS1_2048_8192_SHA512],
            (oids::RSA_PSS, 32) => vec![algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY],
            (oids::RSA_PSS, 48) => vec![algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY],
            (oids::RSA_PSS, 64) => vec![algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY],
            (oids::ECDSA_SHA256, 32) => vec![
                algorithms::ECDSA_P256_SHA256,
                algorithms::ECDSA_P384_SHA256,
                algorithms::ECDSA_P521_SHA256,
            ],
            (oids::ECDSA_SHA384, 48) => vec![
                algorithms::ECDSA_P256_SHA384,
                algorithms::ECDSA_P384_SHA384,
                algorithms::ECDSA_P521_SHA384,
            ],
            (oids::ECDSA_SHA512, 64) => vec![
                algorithms::ECDSA_P256_SHA512,
                algorithms::ECDSA_P384_SHA512,
                algorithms::ECDSA_P521_SHA512,
            ],
            (oids::ED25519, 64) => vec![algorithms::ED25519],
            _ => Vec::new(),
        }
    }
}
