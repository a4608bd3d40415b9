//! OpenPGP on octets: sign, verify, encrypt, decrypt. How they stand in a message is `mime`'s.
//!
//! Owns what is believed: no MD5 or SHA-1 in a signature, nothing decrypted without integrity protection (RFC 9580 §5.13, "Efail"), and bounds on
//! what a message can make us do.

use std::io::{Cursor, Read as _};
use std::sync::Arc;

use pgp::composed::{
    ArmorOptions, DecryptionOptions, Deserializable as _, DetachedSignature, Edata, Message,
    MessageBuilder, TheRing,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{Password, Seipdv1ReadMode};
use rand::rngs::OsRng;

use crate::keys::pgp::{Certificate, EncryptTo, SecretKey, Signer};

/// What we sign with; every implementation of the last twenty years has it.
const HASH: HashAlgorithm = HashAlgorithm::Sha512;
/// Its name in `micalg` (RFC 3156 §5).
pub(crate) const MICALG: &str = "pgp-sha512";
/// Most signatures of one message that are looked at.
const SIGNATURES_MAX: usize = 4;
/// Most encrypted session keys of one message.
const SESSION_KEYS_MAX: usize = 200;
/// Most layers of compression in one message.
const COMPRESSIONS_MAX: usize = 2;
/// Clocks may differ so much, in seconds.
const SKEW_SECONDS: u64 = 600;

/// Why octets could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MakeError {
    /// Expired, revoked, or not for this.
    #[error("the key is expired, revoked or not made for this")]
    Unusable,
    /// The library's words.
    #[error("OpenPGP: {0}")]
    Library(String),
}

/// Why octets do not decrypt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecryptError {
    /// Made for somebody else.
    #[error("not encrypted to a key of the recipient")]
    NotForUs,
    /// Broken, without integrity protection, or beyond a limit. One text for all: what exactly is nobody's business but the log's.
    #[error("damaged, not integrity-protected, or beyond a limit")]
    Damaged,
}

/// What a signature is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// There is none.
    None,
    /// By one of the keys.
    Good,
    /// None of them is by one of the keys.
    Bad,
}

/// What was inside.
pub(crate) struct Decrypted {
    pub(crate) octets: Vec<u8>,
    pub(crate) judgement: Judgement,
}

impl From<pgp::errors::Error> for MakeError {
    fn from(error: pgp::errors::Error) -> Self {
        Self::Library(error.to_string())
    }
}

/// A detached signature in armor, lines with CRLF.
pub(crate) fn sign(content: &[u8], key: &SecretKey, now: u64) -> Result<String, MakeError> {
    let password = Password::empty();
    let signer = Box::new(key.signing_part(now).ok_or(MakeError::Unusable)?);
    let signature = DetachedSignature::sign_binary_data(OsRng, &signer, &password, HASH, content)?;
    let armor = signature.to_armored_string(ArmorOptions::default())?;
    Ok(crlf(&armor))
}

/// Is one of the signatures in `armor` one over `content` by one of the `signers`?
pub(crate) fn verify(
    content: &[u8],
    armor: &[u8],
    signers: &[Arc<Certificate>],
    now: u64,
) -> Judgement {
    let Ok((signatures, _headers)) = DetachedSignature::from_armor_many(Cursor::new(armor)) else {
        return Judgement::Bad;
    };
    let good = signatures
        .take(SIGNATURES_MAX)
        .filter_map(Result::ok)
        .filter(|found| acceptable(&found.signature, now))
        .any(|found| {
            let by = |signer: Signer<'_>| match signer {
                Signer::Primary(key) => found.signature.verify(&key.primary_key, content).is_ok(),
                Signer::Subkey(key) => found.signature.verify(&key.key, content).is_ok(),
            };
            signers.iter().any(|signer| signer.any_signer(now, by))
        });
    if good {
        Judgement::Good
    } else {
        Judgement::Bad
    }
}

/// A message in armor, lines with CRLF, for all of `recipients`; signed inside if there is a `signer`.
///
/// SEIPD version 1 (RFC 9580 §5.13.1): GnuPG reads no other, and everybody reads it.
pub(crate) fn encrypt(
    content: Vec<u8>,
    recipients: &[Arc<Certificate>],
    signer: Option<&SecretKey>,
    now: u64,
) -> Result<String, MakeError> {
    let mut builder =
        MessageBuilder::from_bytes("", content).seipd_v1(OsRng, SymmetricKeyAlgorithm::AES256);
    for recipient in recipients {
        match recipient.encryption_key(now).ok_or(MakeError::Unusable)? {
            EncryptTo::Primary(key) => builder.encrypt_to_key(OsRng, &key.primary_key)?,
            EncryptTo::Subkey(key) => builder.encrypt_to_key(OsRng, &key.key)?,
        };
    }
    if let Some(key) = signer {
        let part = key.signing_part(now).ok_or(MakeError::Unusable)?;
        builder.sign(part, Password::empty(), HASH);
    }
    let armor = builder.to_armored_string(OsRng, ArmorOptions::default())?;
    Ok(crlf(&armor))
}

/// Decrypts with one of `keys` and nothing else, and looks for a signature of one of the `signers` inside.
pub(crate) fn decrypt(
    armor: &[u8],
    keys: &[Arc<SecretKey>],
    signers: &[Arc<Certificate>],
    size_max: usize,
    now: u64,
) -> Result<Decrypted, DecryptError> {
    let (message, _headers) =
        Message::from_armor(Cursor::new(armor)).map_err(|error| damaged(&error))?;
    let Message::Encrypted { esk, edata, .. } = &message else {
        return Err(DecryptError::Damaged);
    };
    // The one without integrity protection is refused by the library too; this does not depend on its defaults. GnuPG 2.4 uses a format
    // of its own, with AES-OCB, for keys that it made.
    let protected = match edata {
        Edata::SymEncryptedProtectedData { .. } | Edata::GnupgAeadData { .. } => true,
        Edata::SymEncryptedData { .. } => false,
    };
    if esk.len() > SESSION_KEYS_MAX || !protected {
        return Err(DecryptError::Damaged);
    }
    let password = Password::empty();
    let ring = TheRing {
        secret_keys: keys.iter().map(|key| &key.key).collect(),
        key_passwords: vec![&password],
        decrypt_options: DecryptionOptions::new()
            .enable_gnupg_aead()
            .set_seipdv1_read_mode(Seipdv1ReadMode::CheckFirst {
                max_message_size: size_max,
            }),
        ..TheRing::default()
    };
    let (mut message, _used) =
        message
            .decrypt_the_ring(ring, true)
            .map_err(|error| match error {
                pgp::errors::Error::MissingKey => DecryptError::NotForUs,
                other => damaged(&other),
            })?;
    for _ in 0..COMPRESSIONS_MAX {
        if message.is_compressed() {
            message = message.decompress().map_err(|error| damaged(&error))?;
        }
    }
    if !(message.is_literal() || message.is_signed()) {
        return Err(DecryptError::Damaged);
    }
    let mut octets = Vec::new();
    let limit = u64::try_from(size_max).unwrap_or(u64::MAX);
    // A bomb of compressed octets ends here. The end of the message is where its integrity is known.
    let read = (&mut message)
        .take(limit.saturating_add(1))
        .read_to_end(&mut octets);
    read.map_err(|error| damaged(&error))?;
    if octets.len() > size_max {
        return Err(DecryptError::Damaged);
    }
    let judgement = judge(&message, signers, now);
    Ok(Decrypted { octets, judgement })
}

/// After the message was read to its end.
fn judge(message: &Message<'_>, signers: &[Arc<Certificate>], now: u64) -> Judgement {
    if !message.is_signed() {
        return Judgement::None;
    }
    let good = (0..SIGNATURES_MAX).any(|index| {
        let by = |signer: Signer<'_>| {
            let found = match signer {
                Signer::Primary(key) => message.verify_nested_explicit(index, &key.primary_key),
                Signer::Subkey(key) => message.verify_nested_explicit(index, &key.key),
            };
            found.is_ok_and(|signature| acceptable(signature, now))
        };
        signers.iter().any(|signer| signer.any_signer(now, by))
    });
    if good {
        Judgement::Good
    } else {
        Judgement::Bad
    }
}

/// Of a kind, with a hash and of a time that is believed.
fn acceptable(signature: &Signature, now: u64) -> bool {
    let kind = matches!(
        signature.typ(),
        Some(SignatureType::Binary | SignatureType::Text)
    );
    let hash = matches!(
        signature.hash_alg(),
        Some(
            HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        )
    );
    let Some(created) = signature.created().map(|at| u64::from(at.as_secs())) else {
        return false;
    };
    let expires = signature
        .signature_expiration_time()
        .map(|duration| u64::from(duration.as_secs()))
        .filter(|seconds| *seconds > 0)
        .is_some_and(|seconds| created.saturating_add(seconds) <= now);
    kind && hash && created <= now.saturating_add(SKEW_SECONDS) && !expires
}

fn damaged(error: &dyn std::fmt::Display) -> DecryptError {
    tracing::debug!(%error, "not decrypted");
    DecryptError::Damaged
}

/// The library ends lines with LF.
fn crlf(armor: &str) -> String {
    let lines: Vec<_> = armor.lines().collect();
    lines.join("\r\n") + "\r\n"
}

#[cfg(test)]
pub(crate) mod tests;
