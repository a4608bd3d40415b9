//! Secure mail (RFC 4496 §4.5): OpenPGP, S/MIME and DKIM on behalf of the people in the envelope.
//!
//! Owns whose keys count for a message and what is done where that is not possible. Keys are files in a folder. Cryptography is aws-lc-rs for S/MIME
//! and DKIM and rPGP for OpenPGP; ADR 0012 says why, and which keys are refused.

mod asn1;
mod config;
mod dkim;
mod entity;
mod keys;
mod mime;
mod openpgp;
mod operate;
mod policy;
mod service;
mod sevenbit;
mod smime;
mod verdict;

pub use config::{Config, ConfigError, DkimKey};
pub use keys::KeysError;
pub use policy::{
    Cipher, Failure, Format, NotifyTo, Operation, Policy, PolicyError, Reaction, Unauthenticated,
    Verdict,
};
pub use service::SecureMail;
pub use verdict::{RESULT_ANNOTATION, SIGNATURE_ANNOTATION, SIGNER_ANNOTATION};
