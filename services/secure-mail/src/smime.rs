//! S/MIME (RFC 8551) on octets: CMS (RFC 5652) over aws-lc-rs. How it stands in a message is `mime`'s.
//!
//! Own code, because the CMS crate of the RustCrypto family neither verifies nor decrypts, reads DER only and sorts what a stranger sent
//! (ADR 0012). Every structure from mail is read within bounds; every use of a key is aws-lc-rs's.

mod decrypt;
mod encrypt;
mod oids;
mod sign;
mod verify;

pub(crate) use decrypt::{DecryptError, decrypt};
pub(crate) use encrypt::encrypt;
pub(crate) use sign::sign;
pub(crate) use verify::{Verified, verify};

use crate::asn1::{CONTEXT_0, Malformed, OID, Reader, SEQUENCE, definite};

/// What a CMS says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// SignedData.
    Signed,
    /// EnvelopedData or AuthEnvelopedData.
    Encrypted,
    /// Anything else, such as CompressedData, or nothing that can be read: it protects nothing.
    Other,
}

/// A key of ours does not do what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key does not work")]
pub(crate) struct MakeError;

/// ContentInfo: the type, and the content after its `[0]`.
fn content_info(der: &[u8]) -> Result<(&[u8], Reader<'_>), Malformed> {
    let mut info = Reader::new(der).open(SEQUENCE)?;
    let kind = info.expect(OID)?;
    Ok((kind, info.open(CONTEXT_0)?))
}

/// Looks at the outermost type only.
pub(crate) fn sort(cms: &[u8]) -> Sort {
    let Ok(der) = definite(cms) else {
        return Sort::Other;
    };
    match content_info(&der) {
        Ok((oids::SIGNED_DATA, _)) => Sort::Signed,
        Ok((oids::ENVELOPED_DATA | oids::AUTH_ENVELOPED_DATA, _)) => Sort::Encrypted,
        _ => Sort::Other,
    }
}

#[cfg(test)]
pub(crate) mod tests;
