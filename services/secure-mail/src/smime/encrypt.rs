//! EnvelopedData and AuthEnvelopedData (RFC 5652 §6, RFC 5083): one content key, encrypted to each recipient's RSA key.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use rand::RngCore as _;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::sign::{algorithm, content_info};
use super::{MakeError, oids};
use crate::asn1::{
    CONTEXT_0_PRIMITIVE, INTEGER, NULL, OCTET_STRING, OID, SEQUENCE, container, set_of, tlv,
};
use crate::keys::x509::Recipient;
use crate::policy::Cipher;

/// RFC 5084 §3.2: what is recommended, and 16 octets of tag.
const GCM_TAG_OCTETS: u8 = 16;

/// The CMS and its `smime-type`.
pub(crate) fn encrypt(
    content: Vec<u8>,
    recipients: &[Arc<Recipient>],
    cipher: Cipher,
) -> Result<(Vec<u8>, &'static str), MakeError> {
    let mut key = Zeroizing::new([0_u8; 32]);
    OsRng.fill_bytes(&mut *key);
    let infos = recipients
        .iter()
        .map(|recipient| info(recipient, &*key))
        .collect::<Result<Vec<_>, _>>()?;
    let infos = set_of(crate::asn1::SET, infos);
    let version = tlv(INTEGER, &[0]);
    Ok(match cipher {
        Cipher::Aes256Cbc => {
            let encrypted = cbc(content, &*key)?;
            let data = container(SEQUENCE, &[&version, &infos, &encrypted]);
            (content_info(oids::ENVELOPED_DATA, &data), "enveloped-data")
        }
        Cipher::Aes256Gcm => {
            let (encrypted, tag) = gcm(content, &*key)?;
            let tag = tlv(OCTET_STRING, &tag);
            let data = container(SEQUENCE, &[&version, &infos, &encrypted, &tag]);
            let cms = content_info(oids::AUTH_ENVELOPED_DATA, &data);
            (cms, "authEnveloped-data")
        }
    })
}

/// KeyTransRecipientInfo.
fn info(recipient: &Recipient, key: &[u8]) -> Result<Vec<u8>, MakeError> {
    let certificate = &recipient.certificate;
    let encrypted = recipient.encrypt(key).ok_or(MakeError)?;
    Ok(container(
        SEQUENCE,
        &[
            &tlv(INTEGER, &[0]),
            &container(SEQUENCE, &[&certificate.issuer, &certificate.serial]),
            &algorithm(oids::RSA, &tlv(NULL, b"")),
            &tlv(OCTET_STRING, &encrypted),
        ],
    ))
}

fn cbc(mut content: Vec<u8>, key: &[u8]) -> Result<Vec<u8>, MakeError> {
    let mut iv = [0_u8; 16];
    OsRng.fill_bytes(&mut iv);
    let key = UnboundCipherKey::new(&AES_256, key).map_err(|_| MakeError)?;
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).map_err(|_| MakeError)?;
    let vector = EncryptionContext::Iv128(FixedLength::from(iv));
    key.less_safe_encrypt(&mut content, vector)
        .map_err(|_| MakeError)?;
    Ok(encrypted_content(
        &algorithm(oids::AES256_CBC, &tlv(OCTET_STRING, &iv)),
        &content,
    ))
}

fn gcm(mut content: Vec<u8>, key: &[u8]) -> Result<(Vec<u8>, Vec<u8>), MakeError> {
    let mut nonce = [0_u8; 12];
    OsRng.fill_bytes(&mut nonce);
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| MakeError)?;
    let tag = LessSafeKey::new(key)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::empty(),
            &mut content,
        )
        .map_err(|_| MakeError)?;
    let parameters = container(
        SEQUENCE,
        &[&tlv(OCTET_STRING, &nonce), &tlv(INTEGER, &[GCM_TAG_OCTETS])],
    );
    let encrypted = encrypted_content(&algorithm(oids::AES256_GCM, &parameters), &content);
    Ok((encrypted, tag.as_ref().to_vec()))
}

fn encrypted_content(algorithm: &[u8], content: &[u8]) -> Vec<u8> {
    container(
        SEQUENCE,
        &[
            &tlv(OID, oids::DATA),
            algorithm,
            &tlv(CONTEXT_0_PRIMITIVE, content),
        ],
    )
}
