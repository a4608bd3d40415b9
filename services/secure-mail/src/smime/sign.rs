//! SignedData without the content (RFC 5652 §5, RFC 8551 §3.5.3).

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;

use super::{MakeError, oids};
use crate::asn1::{
    CONTEXT_0, INTEGER, NULL, OCTET_STRING, OID, SEQUENCE, SET, container, set_of, tlv,
};
use crate::keys::x509::{Identity, PrivateKey, time_der};

/// A detached signature over `content`, with our certificate and what leads to its authority.
pub(crate) fn sign(content: &[u8], identity: &Identity, now: u64) -> Result<Vec<u8>, MakeError> {
    let hash = digest(&SHA256, content);
    let attributes = vec![
        attribute(oids::CONTENT_TYPE, &tlv(OID, oids::DATA)),
        attribute(oids::SIGNING_TIME, &time_der(now)),
        attribute(oids::MESSAGE_DIGEST, &tlv(OCTET_STRING, hash.as_ref())),
    ];
    // Signed as SET, sent as `[0]` (§5.4).
    let to_sign = set_of(SET, attributes.clone());
    let (signature, with) = match &identity.key {
        PrivateKey::Rsa { signing, .. } => {
            let mut signature = vec![0; signing.public_modulus_len()];
            signing
                .sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    &to_sign,
                    &mut signature,
                )
                .map_err(|_| MakeError)?;
            (signature, algorithm(oids::RSA, &tlv(NULL, b"")))
        }
        PrivateKey::Ec(key) => {
            let signature = key.sign(&SystemRandom::new(), &to_sign);
            let signature = signature.map_err(|_| MakeError)?;
            (
                signature.as_ref().to_vec(),
                algorithm(oids::ECDSA_SHA256, b""),
            )
        }
    };
    let sha256 = algorithm(oids::SHA256, b"");
    let certificate = &identity.certificate;
    let signer = container(
        SEQUENCE,
        &[
            &tlv(INTEGER, &[1]),
            &container(SEQUENCE, &[&certificate.issuer, &certificate.serial]),
            &sha256,
            &set_of(CONTEXT_0, attributes),
            &with,
            &tlv(OCTET_STRING, &signature),
        ],
    );
    let mut certificates = vec![certificate.der.clone()];
    certificates.extend(identity.chain.iter().cloned());
    let data = container(
        SEQUENCE,
        &[
            &tlv(INTEGER, &[1]),
            &tlv(SET, &sha256),
            &tlv(SEQUENCE, &tlv(OID, oids::DATA)),
            &set_of(CONTEXT_0, certificates),
            &tlv(SET, &signer),
        ],
    );
    Ok(content_info(oids::SIGNED_DATA, &data))
}

pub(super) fn content_info(kind: &[u8], data: &[u8]) -> Vec<u8> {
    container(SEQUENCE, &[&tlv(OID, kind), &tlv(CONTEXT_0, data)])
}

pub(super) fn algorithm(id: &[u8], parameters: &[u8]) -> Vec<u8> {
    container(SEQUENCE, &[&tlv(OID, id), parameters])
}

fn attribute(id: &[u8], value: &[u8]) -> Vec<u8> {
    container(SEQUENCE, &[&tlv(OID, id), &tlv(SET, value)])
}
