//! Keys of domains: PEM, RSA or Ed25519. They never leave aws-lc-rs, which clears them when they are dropped.

use aws_lc_rs::digest::Digest;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

/// RFC 8301 §3.2 has signers use at least so many bits.
const RSA_BITS_MIN: usize = 2048;
/// What verifiers must be able to check (RFC 8301 §3.2).
const RSA_BITS_MAX: usize = 4096;

/// A key that signs for a domain.
pub(crate) enum Signer {
    /// rsa-sha256.
    Rsa(Box<RsaKeyPair>),
    /// ed25519-sha256 (RFC 8463).
    Ed25519(Box<Ed25519KeyPair>),
}

/// Why a file is no key for DKIM.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DkimKeyError {
    /// No PEM block with a private key.
    #[error(
        "no private key in PEM; a key with a password must be stored without it: the folder is the secret"
    )]
    NoKey,
    /// Neither RSA nor Ed25519.
    #[error(
        "neither an RSA nor an Ed25519 key; make one with `openssl genrsa 2048` or `openssl genpkey -algorithm ed25519`"
    )]
    Kind,
    /// Outside what verifiers accept.
    #[error("an RSA key of {0} bits; 2048 to 4096 are what verifiers accept")]
    Size(usize),
}

// === impl Signer ===

impl Signer {
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, DkimKeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| DkimKeyError::NoKey)?;
        let rsa = match &der {
            PrivateKeyDer::Pkcs8(der) => {
                if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
                {
                    return Ok(Self::Ed25519(Box::new(key)));
                }
                RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())
            }
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(DkimKeyError::Kind),
        };
        let key = rsa.map_err(|_| DkimKeyError::Kind)?;
        let bits = key.public_modulus_len() * 8;
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
            return Err(DkimKeyError::Size(bits));
        }
        Ok(Self::Rsa(Box::new(key)))
    }

    /// `a=`.
    pub(crate) const fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "rsa-sha256",
            Self::Ed25519(_) => "ed25519-sha256",
        }
    }

    /// Signs a SHA-256 hash.
    pub(crate) fn sign(&self, hash: &Digest) -> Result<Vec<u8>, Unspecified> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign_digest(&RSA_PKCS1_SHA256, hash, &mut signature)?;
                Ok(signature)
            }
            Self::Ed25519(key) => Ok(key.try_sign(hash.as_ref())?.as_ref().to_vec()),
        }
    }
}
