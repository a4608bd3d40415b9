//! EnvelopedData and AuthEnvelopedData of others, with one recipient's keys.
//!
//! What goes wrong with a key that was meant for us looks the same from outside, whatever it was: a key that does not decrypt gives way to a random
//! one (RFC 3218), so that no answer tells a stranger about the padding of RSA.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm};
use rand::RngCore as _;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::{content_info, oids};
use crate::asn1::{
    CONTEXT_0, CONTEXT_0_PRIMITIVE, INTEGER, Malformed, OCTET_STRING, OID, Reader, SEQUENCE, SET,
    definite, tlv,
};
use crate::keys::x509::{Identity, PrivateKey};

/// Most recipients of one message that are looked at.
const RECIPIENTS_MAX: usize = 1000;
const ATTRIBUTES: u8 = CONTEXT_0 + 1;

/// What was inside.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) octets: Vec<u8>,
    /// Nobody on the way can have changed it.
    pub(crate) authenticated: bool,
}

/// Why octets do not decrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecryptError {
    /// SignedData, or something else.
    #[error("not encrypted")]
    NotEncrypted,
    /// Made for somebody else.
    #[error("not encrypted to a key of the recipient")]
    NotForUs,
    /// Broken, or with algorithms that are not used here.
    #[error("damaged, or with an algorithm that is not used here")]
    Damaged,
}

impl From<Malformed> for DecryptError {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

/// Decrypts with one of `identities` and nothing else.
pub(crate) fn decrypt(cms: &[u8], identities: &[Arc<Identity>]) -> Result<Content, DecryptError> {
    let der = definite(cms)?;
    let (kind, mut info) = content_info(&der)?;
    let authenticated = match kind {
        oids::ENVELOPED_DATA => false,
        oids::AUTH_ENVELOPED_DATA => true,
        _ => return Err(DecryptError::NotEncrypted),
    };
    let mut data = info.open(SEQUENCE)?;
    data.expect(INTEGER)?;
    data.optional(CONTEXT_0)?;
    let recipients = data.open(SET)?.all(RECIPIENTS_MAX)?;
    let mut encrypted = data.open(SEQUENCE)?;
    encrypted.expect(OID)?;
    let mut algorithm = encrypted.open(SEQUENCE)?;
    let cipher = algorithm.expect(OID)?;
    let octets = encrypted.expect(CONTEXT_0_PRIMITIVE)?.to_vec();
    let size = key_size(cipher).ok_or(DecryptError::Damaged)?;

    let infos = recipients.iter().filter(|node| node.tag == SEQUENCE);
    let mut ours = infos.filter_map(|node| {
        let transport = Transport::read(node.content).ok()?;
        let identity = identities
            .iter()
            .find(|identity| transport.is_to(identity))?;
        Some((transport, identity))
    });
    let (transport, identity) = ours.next().ok_or(DecryptError::NotForUs)?;
    let key = transport.key(&identity.key, size);
    let octets = if authenticated {
        let attributes = data.optional(ATTRIBUTES)?;
        let tag = data.expect(OCTET_STRING)?;
        gcm(cipher, &key, &mut algorithm, octets, attributes, tag)?
    } else {
        cbc(cipher, &key, &mut algorithm, octets)?
    };
    Ok(Content {
        octets,
        authenticated,
    })
}

fn key_size(cipher: &[u8]) -> Option<usize> {
    match cipher {
        oids::AES128_CBC | oids::AES128_GCM => Some(16),
        oids::AES192_CBC => Some(24),
        oids::AES256_CBC | oids::AES256_GCM => Some(32),
        _ => None,
    }
}

/// KeyTransRecipientInfo.
struct Transport<'a> {
    /// Content of IssuerAndSerialNumber, or a key identifier.
    id: (u8, &'a [u8]),
    padding: Padding,
    key: &'a [u8],
}

enum Padding {
    Pkcs1,
    Oaep(&'static OaepAlgorithm),
}

// === impl Transport ===

impl<'a> Transport<'a> {
    fn read(content: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Reader::new(content);
        fields.expect(INTEGER)?;
        let id = fields.any()?;
        let mut algorithm = fields.open(SEQUENCE)?;
        let padding = match algorithm.expect(OID)? {
            oids::RSA => Padding::Pkcs1,
            oids::RSA_OAEP => Padding::Oaep(oaep(&mut algorithm)?),
            _ => return Err(Malformed),
        };
        Ok(Self {
            id: (id.tag, id.content),
            padding,
            key: fields.expect(OCTET_STRING)?,
        })
    }

    fn is_to(&self, identity: &Identity) -> bool {
        let certificate = &identity.certificate;
        match self.id {
            (SEQUENCE, id) => id == [certificate.issuer.as_slice(), &certificate.serial].concat(),
            (CONTEXT_0_PRIMITIVE, id) => certificate.subject_key_identifier.as_deref() == Some(id),
            _ => false,
        }
    }

    /// The content key, or a random one of the right size.
    fn key(&self, ours: &PrivateKey, size: usize) -> Zeroizing<Vec<u8>> {
        let mut key = Zeroizing::new(vec![0; size]);
        OsRng.fill_bytes(&mut key);
        let PrivateKey::Rsa { pkcs1, oaep, .. } = ours else {
            return key;
        };
        let mut out = Zeroizing::new(vec![0; pkcs1.min_output_size()]);
        let decrypted = match self.padding {
            Padding::Pkcs1 => pkcs1.decrypt(self.key, &mut out),
            Padding::Oaep(algorithm) => oaep.decrypt(algorithm, self.key, &mut out, None),
        };
        if let Ok(decrypted) = decrypted
            && decrypted.len() == size
        {
            key.copy_from_slice(decrypted);
        }
        key
    }
}

/// RFC 4055 §4.1: SHA-1 by default; both hashes are the same one.
fn oaep(parameters: &mut Reader<'_>) -> Result<&'static OaepAlgorithm, Malformed> {
    if parameters.is_empty() {
        return Ok(&OAEP_SHA1_MGF1SHA1);
    }
    let mut fields = parameters.open(SEQUENCE)?;
    let hash = match fields.optional(CONTEXT_0)? {
        Some(explicit) => Reader::new(explicit).open(SEQUENCE)?.expect(OID)?,
        None => &[],
    };
    let mask = match fields.optional(CONTEXT_0 + 1)? {
        Some(explicit) => {
            let mut generator = Reader::new(explicit).open(SEQUENCE)?;
            generator.expect(OID)?;
            generator.open(SEQUENCE)?.expect(OID)?
        }
        None => &[],
    };
    match (hash, mask) {
        ([], []) => Ok(&OAEP_SHA1_MGF1SHA1),
        (oids::SHA256, oids::SHA256) => Ok(&OAEP_SHA256_MGF1SHA256),
        _ => Err(Malformed),
    }
}

fn cbc(
    cipher: &[u8],
    key: &[u8],
    parameters: &mut Reader<'_>,
    mut octets: Vec<u8>,
) -> Result<Vec<u8>, DecryptError> {
    let algorithm = match cipher {
        oids::AES128_CBC => &AES_128,
        oids::AES192_CBC => &AES_192,
        oids::AES256_CBC => &AES_256,
        _ => return Err(DecryptError::Damaged),
    };
    let iv: [u8; 16] = parameters
        .expect(OCTET_STRING)?
        .try_into()
        .map_err(|_| DecryptError::Damaged)?;
    let damaged = |_| DecryptError::Damaged;
    let key = UnboundCipherKey::new(algorithm, key).map_err(damaged)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(damaged)?;
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let size = key.decrypt(&mut octets, context).map_err(damaged)?.len();
    octets.truncate(size);
    Ok(octets)
}

fn gcm(
    cipher: &[u8],
    key: &[u8],
    parameters: &mut Reader<'_>,
    mut octets: Vec<u8>,
    attributes: Option<&[u8]>,
    tag: &[u8],
) -> Result<Vec<u8>, DecryptError> {
    let algorithm = match cipher {
        oids::AES128_GCM => &AES_128_GCM,
        oids::AES256_GCM => &AES_256_GCM,
        _ => return Err(DecryptError::Damaged),
    };
    let mut parameters = parameters.open(SEQUENCE)?;
    let nonce = parameters.expect(OCTET_STRING)?;
    // Shorter tags are easier to guess; RFC 5084 §3.2 has 12 octets if nothing is said.
    if parameters.optional(INTEGER)? != Some(&[16][..]) {
        return Err(DecryptError::Damaged);
    }
    let damaged = |_| DecryptError::Damaged;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(damaged)?;
    // RFC 5083 §2.2: authenticated as SET.
    let attributes = attributes.map(|attributes| tlv(SET, attributes));
    let key = UnboundKey::new(algorithm, key).map_err(damaged)?;
    octets.extend_from_slice(tag);
    let size = LessSafeKey::new(key)
        .open_in_place(
            nonce,
            Aad::from(attributes.unwrap_or_default()),
            &mut octets,
        )
        .map_err(damaged)?
        .len();
    octets.truncate(size);
    Ok(octets)
}
