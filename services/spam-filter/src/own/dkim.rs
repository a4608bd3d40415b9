//! DKIM (RFC 6376): which domains take responsibility for this message?
//!
//! The library reads signatures, gets keys and verifies; ours is what it leaves out or gets wrong (docs/adr/0018-mail-auth.md): limits, what
//! RFC 8301 forbids, that From must be signed, and the hash of bodies, away from the threads that serve.

use bytes::Bytes;
use mail_auth::common::crypto::{Algorithm, HashAlgorithm};
use mail_auth::dkim::{Canonicalization, DkimError, Signature};
use mail_auth::{AuthenticatedMessage, DkimOutput, DkimResult, Error};
use tokio::time::Instant;

use super::dns::Dns;
use super::score::Symbol;

/// Signatures that are looked at, from the top (RFC 6376 §6.1 leaves the limit to us).
const SIGNATURES_MAX: usize = 5;
/// Fields that one signature may name.
const NAMES_MAX: usize = 200;
/// Bodies up to this size are hashed on the spot; larger ones on a thread that may block, octets.
const INLINE_OCTETS_MAX: usize = 256 * 1024;

/// What one signature came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    /// As RFC 8601 §2.7.1 has it.
    pub(crate) result: &'static str,
    pub(crate) domain: String,
    pub(crate) selector: String,
    /// Of the signature, which tells several of one domain apart (RFC 6008).
    pub(crate) signature: Vec<u8>,
    /// Empty: nothing to add.
    pub(crate) reason: &'static str,
}

/// Reads the signatures of a header section, and sets apart what is not to be verified.
pub(crate) fn read(message: &mut AuthenticatedMessage<'_>) -> Vec<Signed> {
    let mut apart = Vec::new();
    message.dkim_headers.truncate(SIGNATURES_MAX);
    message.errors.truncate(SIGNATURES_MAX);
    message.dkim_headers.retain_mut(|header| {
        let signature = &mut header.header;
        // Reports and third parties are asked about in DNS; nobody reads the answers here.
        signature.r = false;
        signature.atps = None;
        let wrong = objection(signature);
        if let Some((result, reason)) = wrong {
            apart.push(Signed::new(result, Some(signature), reason));
        }
        wrong.is_none()
    });
    apart
}

/// What the library would let pass.
fn objection(signature: &Signature) -> Option<(&'static str, &'static str)> {
    let signs = |name: &str| signature.h.iter().any(|h| h.eq_ignore_ascii_case(name));
    if signature.a == Algorithm::RsaSha1 {
        // RFC 8301 §3.1.
        Some(("permerror", "rsa-sha1 is no signature any more"))
    } else if signature.h.len() > NAMES_MAX {
        Some(("policy", "too many signed fields"))
    } else if !signs("from") {
        // RFC 6376 §6.1.1.
        Some(("permerror", "From is not signed"))
    } else {
        None
    }
}

/// Hashes the body as the signatures of `message` want it.
pub(crate) async fn hash(
    message: &mut AuthenticatedMessage<'_>,
    body: Bytes,
) -> Result<(), tokio::task::JoinError> {
    let wanted: Vec<_> = message
        .body_hashes
        .iter()
        .map(|(canonicalization, algorithm, ..)| (*canonicalization, *algorithm))
        .collect();
    if message.dkim_headers.is_empty() {
        return Ok(());
    }
    let hashes = if body.len() <= INLINE_OCTETS_MAX {
        hashes(&body, &wanted)
    } else {
        tokio::task::spawn_blocking(move || hashes(&body, &wanted)).await?
    };
    for ((.., kept), hash) in message.body_hashes.iter_mut().zip(hashes) {
        *kept = hash;
    }
    Ok(())
}

fn hashes(body: &[u8], wanted: &[(Canonicalization, HashAlgorithm)]) -> Vec<Vec<u8>> {
    wanted
        .iter()
        .map(|(canonicalization, algorithm)| body_hash(body, *canonicalization, *algorithm))
        .collect()
}

/// RFC 6376 §3.4.3, §3.4.4. The relaxed form has no empty lines at its end, and a line of white space only is an empty line; the library
/// forgets the second, so that such a tail is cut off before.
fn body_hash(body: &[u8], canonicalization: Canonicalization, algorithm: HashAlgorithm) -> Vec<u8> {
    let body = match canonicalization {
        Canonicalization::Simple => body,
        Canonicalization::Relaxed => {
            let is_space = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r' | b'\n');
            let end = body.iter().rposition(|octet| !is_space(octet));
            body.get(..end.map_or(0, |end| end + 1)).unwrap_or(body)
        }
    };
    let hash = algorithm.hash(canonicalization.canonical_body(body, 0));
    hash.as_ref().to_vec()
}

/// Gets the keys and verifies.
pub(crate) async fn verify<'a>(
    dns: &Dns,
    message: &'a AuthenticatedMessage<'a>,
    until: Instant,
) -> Vec<DkimOutput<'a>> {
    if message.dkim_headers.is_empty() && message.errors.is_empty() {
        return Vec::new();
    }
    let asked = dns.check(until, Box::pin(dns.resolver().verify_dkim(message)));
    asked.await.unwrap_or_else(|_| {
        let late = || Error::Dns(mail_auth::DnsError::Resolver("not in time".into()));
        let each = message.dkim_headers.iter();
        each.map(|header| DkimOutput::temp_err(late()).with_signature(&header.header))
            .collect()
    })
}

// === impl Signed ===

impl Signed {
    fn new(result: &'static str, signature: Option<&Signature>, reason: &'static str) -> Self {
        Self {
            result,
            domain: signature.map(|s| s.d.clone()).unwrap_or_default(),
            selector: signature.map(|s| s.s.clone()).unwrap_or_default(),
            signature: signature.map(|s| s.b.clone()).unwrap_or_default(),
            reason,
        }
    }

    /// Of a signature that was not looked at.
    pub(crate) fn unread(signature: Option<&Signature>, reason: &'static str) -> Self {
        Self::new("neutral", signature, reason)
    }
}

impl From<&DkimOutput<'_>> for Signed {
    fn from(output: &DkimOutput<'_>) -> Self {
        let (result, reason) = match output.result() {
            DkimResult::Pass => ("pass", ""),
            DkimResult::Fail(_) => ("fail", "the signature is not of this header"),
            DkimResult::Neutral(Error::Dkim(DkimError::FailedBodyHashMatch)) => {
                ("fail", "the body was changed")
            }
            DkimResult::Neutral(Error::Dkim(DkimError::SignatureLength)) => {
                ("policy", "only a part of the body is signed")
            }
            DkimResult::Neutral(Error::Dkim(DkimError::SignatureExpired)) => ("policy", "expired"),
            DkimResult::Neutral(_) => ("neutral", "the signature cannot be read"),
            DkimResult::PermError(_) => ("permerror", "no usable key"),
            DkimResult::TempError(_) => ("temperror", "DNS did not answer"),
            DkimResult::None => ("none", ""),
        };
        Self::new(result, output.signature(), reason)
    }
}

/// All signatures together: the best word counts.
pub(crate) fn words(signed: &[Signed]) -> (&'static str, Symbol) {
    let any = |result: &str| signed.iter().any(|signed| signed.result == result);
    if any("pass") {
        ("pass", Symbol::DkimPass)
    } else if any("temperror") {
        ("temperror", Symbol::DkimTempError)
    } else if signed.iter().any(|signed| signed.result != "none") {
        ("fail", Symbol::DkimFail)
    } else {
        ("none", Symbol::DkimNone)
    }
}

#[cfg(test)]
mod tests;
