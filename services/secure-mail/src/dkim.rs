//! DKIM signatures (RFC 6376, RFC 8463): relaxed canonicalisation of header and body, rsa-sha256 and ed25519-sha256.
//!
//! Knows no files and no clock. The fields that readers show are signed once more than they are there, so that none can be added.

mod canon;
mod key;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::entity::Entity;

pub(crate) use key::{DkimKeyError, Signer};

/// Fields that are signed, if they are there, and that nobody may add (RFC 6376 §5.4.1, §8.15).
const SIGNED: [&str; 14] = [
    "From",
    "Reply-To",
    "Subject",
    "Date",
    "To",
    "Cc",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    "Sender",
];
/// Most fields of one name that are signed; a message with more of them is no mail that people read.
const REPEATED_MAX: usize = 20;

/// The key cannot sign, such as an RSA key of the wrong size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key of the domain does not sign")]
pub(crate) struct CannotSign;

/// Value of the field `DKIM-Signature`, folded. `now`: seconds since 1970.
pub(crate) fn sign(
    entity: &Entity<'_>,
    domain: &str,
    selector: &str,
    signer: &Signer,
    now: u64,
) -> Result<String, CannotSign> {
    let body = entity.slice(entity.body());
    let mut hash = Context::new(&SHA256);
    canon::body(body, |octets| hash.update(octets));
    let body_hash = STANDARD.encode(hash.finish());

    let mut names = Vec::new();
    let mut header = Context::new(&SHA256);
    let mut text = Vec::new();
    for name in SIGNED {
        // From the last one up (RFC 6376 §5.4.2).
        let values: Vec<_> = entity.values(name).collect();
        for value in values.iter().rev().take(REPEATED_MAX) {
            names.push(name);
            text.clear();
            canon::field(name, value, &mut text);
            header.update(&text);
            header.update(b"\r\n");
        }
        if values.len() <= REPEATED_MAX {
            names.push(name);
        }
    }
    let unsigned = format!(
        "v=1; a={}; c=relaxed/relaxed; d={domain};\r\n\ts={selector}; t={now};\r\n\th={};\r\n\tbh={body_hash};\r\n\tb=",
        signer.algorithm(),
        names.join(":\r\n\t "),
    );
    text.clear();
    canon::field("DKIM-Signature", unsigned.as_bytes(), &mut text);
    header.update(&text);
    // RFC 8463 §3: Ed25519 signs the hash; RSA signs it too, within its own padding.
    let signature = signer.sign(&header.finish()).map_err(|_| CannotSign)?;
    let encoded = STANDARD.encode(signature);
    let folded: Vec<_> = encoded
        .as_bytes()
        .chunks(70)
        .map(String::from_utf8_lossy)
        .collect();
    Ok(format!("{unsigned}{}", folded.join("\r\n\t ")))
}
