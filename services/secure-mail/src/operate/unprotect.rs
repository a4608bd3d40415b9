//! Verifying and decrypting: what arrives.

use std::sync::Arc;

use opes_mime::Piece;

use super::protect::is_encrypted;
use super::{Finding, Job, Signature, Step};
use crate::entity::{Entity, Kind};
use crate::keys::pgp::SecretKey;
use crate::keys::x509::Identity;
use crate::mime::unwrapped;
use crate::openpgp::{self, Judgement};
use crate::policy::{Failure, Format, Unauthenticated};
use crate::smime::{self, Verified};

/// Most different sets of keys that one message is decrypted with.
const DECRYPTIONS_MAX: usize = 50;

/// What was inside for somebody.
enum Inside {
    /// The message, and its signature if it has one.
    Open {
        octets: Vec<u8>,
        signature: Option<Signature>,
    },
    /// Nothing.
    Closed(Failure, String),
    /// The message is not encrypted.
    Plain,
}

pub(super) fn verify(job: &Job, entity: &Entity<'_>) -> Finding {
    match signature(job, entity, entity.author().as_deref()) {
        Ok(Some(Signature::Good(signer))) => Finding {
            signature: Some(Signature::Good(signer)),
            ..Finding::done("verified")
        },
        Ok(Some(signature)) => {
            let mut finding =
                Finding::failed(Failure::MissingKey, "no key of the author to check with");
            finding.signature = Some(signature);
            finding
        }
        Ok(None) if is_closed(job, entity) => Finding::done("encrypted"),
        Ok(None) => Finding::failed(Failure::Unsigned, "not signed"),
        Err(why) => Finding {
            signature: Some(Signature::Bad),
            ..Finding::failed(Failure::BadSignature, why)
        },
    }
}

fn is_closed(job: &Job, entity: &Entity<'_>) -> bool {
    let wanted = entity.kind() != Kind::Smime || wants(job, Format::Smime);
    wanted && is_encrypted(entity)
}

/// A rule may be about one format only.
fn wants(job: &Job, format: Format) -> bool {
    job.policy.format.is_none_or(|wanted| wanted == format)
}

/// The signature of an entity as a whole; one of a part inside is worth nothing for what is around it. `Err`: bad, and why.
fn signature(
    job: &Job,
    entity: &Entity<'_>,
    author: Option<&str>,
) -> Result<Option<Signature>, String> {
    let kind = entity.kind();
    let format = match kind {
        Kind::PgpSigned { .. } => Format::OpenPgp,
        Kind::SmimeSigned { .. } | Kind::Smime => Format::Smime,
        Kind::PgpEncrypted { .. } | Kind::Plain => return Ok(None),
    };
    if !wants(job, format) {
        return Ok(None);
    }
    let verified = match kind {
        Kind::PgpSigned { content, part } => {
            let author = believable(entity, author)?;
            let signers = job.keys.pgp(author);
            if signers.is_empty() {
                return Ok(Some(Signature::Unchecked));
            }
            let armor = entity.decoded(part);
            return match openpgp::verify(content, &armor, &signers, job.now) {
                Judgement::Good => Ok(Some(Signature::Good(author.to_owned()))),
                Judgement::Bad | Judgement::None => {
                    Err("the signature is not a good one of the author".to_owned())
                }
            };
        }
        Kind::SmimeSigned { content, part } => {
            let cms = entity.decoded(part);
            smime::verify(&cms, Some(content), &job.keys.anchors, job.now)
        }
        _ => smime::verify(&entity.decoded(0), None, &job.keys.anchors, job.now),
    };
    match verified {
        Verified::NotSigned if kind == Kind::Smime => Ok(None),
        Verified::NotSigned => Err("the part is no signature".to_owned()),
        Verified::Bad(why) => Err(format!("the signature is not good: {why}")),
        Verified::Good { addresses, .. } => {
            let author = believable(entity, author)?;
            if addresses.iter().any(|address| address == author) {
                Ok(Some(Signature::Good(author.to_owned())))
            } else {
                Err("signed by somebody else than the author".to_owned())
            }
        }
    }
}

/// The author, if readers agree who and what that is.
fn believable<'a>(entity: &Entity<'_>, author: Option<&'a str>) -> Result<&'a str, String> {
    if entity.is_ambiguous() {
        return Err("the structure can be read in different ways".to_owned());
    }
    author.ok_or_else(|| "no single author in From".to_owned())
}

pub(super) fn decrypt(job: &Job, entity: &Entity<'_>) -> Vec<Step> {
    let format = match entity.kind() {
        Kind::PgpEncrypted { .. } => Format::OpenPgp,
        Kind::Smime if is_encrypted(entity) => Format::Smime,
        Kind::Smime | Kind::PgpSigned { .. } | Kind::SmimeSigned { .. } | Kind::Plain => {
            return vec![Step::unchanged(not_encrypted(job, entity))];
        }
    };
    if !wants(job, format) {
        return vec![Step::unchanged(not_encrypted(job, entity))];
    }
    let mut steps: Vec<(Vec<String>, Step)> = Vec::new();
    let mut held = Held::new(job.size_max);
    for recipient in &job.recipients {
        let keys = KeySet::of(job, format, recipient);
        let id = keys.id();
        if let Some((_, step)) = steps.iter_mut().find(|(known, _)| *known == id) {
            step.recipients.push(recipient.clone());
            continue;
        }
        let step = if steps.len() < DECRYPTIONS_MAX {
            held.keep(opened(job, entity, &keys))
        } else {
            let reason = format!("more than {DECRYPTIONS_MAX} recipients with different keys");
            Step::unchanged(Finding::failed(Failure::CannotDecrypt, reason))
        };
        steps.push((id, step.to(vec![recipient.clone()])));
    }
    steps.into_iter().map(|(_, step)| step).collect()
}

/// What came out of one message so far, for all of its recipients.
struct Held {
    contents: Vec<Vec<Piece>>,
    /// Octets that may still come out.
    left: usize,
}

// === impl Held ===

impl Held {
    const fn new(size_max: usize) -> Self {
        Self {
            contents: Vec::new(),
            left: size_max,
        }
    }

    /// The step. Recipients mostly get the same, which is held once; what goes beyond the limit is not held at all.
    fn keep(&mut self, mut step: Step) -> Step {
        let Some(pieces) = step.pieces.take() else {
            return step;
        };
        if let Some(same) = self.contents.iter().find(|known| **known == pieces) {
            // Octets are counted references.
            return Step {
                pieces: Some(same.clone()),
                ..step
            };
        }
        let inserted = pieces.iter().map(|piece| match piece {
            Piece::Inserted(octets) => octets.len(),
            Piece::Original { .. } => 0,
        });
        let Some(left) = self.left.checked_sub(inserted.sum()) else {
            let why = "what is inside for all recipients together is larger than sizeMax";
            return Step::unchanged(Finding::failed(Failure::CannotDecrypt, why));
        };
        self.left = left;
        self.contents.push(pieces.clone());
        Step {
            pieces: Some(pieces),
            ..step
        }
    }
}

/// A message that can be read by everybody: at least its signature is looked at.
fn not_encrypted(job: &Job, entity: &Entity<'_>) -> Finding {
    let mut finding = verify(job, entity);
    // Nobody asked for a signature.
    if let Some((Failure::Unsigned | Failure::MissingKey, _)) = finding.failure {
        finding.failure = None;
        finding.label = "not-encrypted";
    }
    finding
}

/// The keys of one recipient. Nobody else's are used for them: whoever intercepted a message must not get it opened by naming another recipient.
enum KeySet {
    Pgp(Vec<Arc<SecretKey>>),
    Smime(Vec<Arc<Identity>>),
}

// === impl KeySet ===

impl KeySet {
    fn of(job: &Job, format: Format, recipient: &str) -> Self {
        match format {
            Format::OpenPgp => Self::Pgp(job.keys.pgp_secret(recipient)),
            Format::Smime => Self::Smime(job.keys.smime_secret(recipient)),
        }
    }

    fn id(&self) -> Vec<String> {
        match self {
            Self::Pgp(keys) => keys.iter().map(|key| key.fingerprint.clone()).collect(),
            Self::Smime(keys) => {
                let name = |key: &Arc<Identity>| {
                    let certificate = &key.certificate;
                    format!("{:x?}{:x?}", certificate.issuer, certificate.serial)
                };
                keys.iter().map(name).collect()
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Pgp(keys) => keys.is_empty(),
            Self::Smime(keys) => keys.is_empty(),
        }
    }
}

fn opened(job: &Job, entity: &Entity<'_>, keys: &KeySet) -> Step {
    let inside = match keys {
        _ if keys.is_empty() => {
            Inside::Closed(Failure::MissingKey, "no key of the recipient".to_owned())
        }
        KeySet::Pgp(keys) => open_pgp(job, entity, keys),
        KeySet::Smime(keys) => open_smime(job, entity, keys),
    };
    let (octets, signature) = match inside {
        Inside::Open { octets, signature } => (octets, signature),
        Inside::Closed(failure, why) => return Step::unchanged(Finding::failed(failure, why)),
        Inside::Plain => return Step::unchanged(not_encrypted(job, entity)),
    };
    let Some(pieces) = unwrapped(entity, &octets) else {
        let why = "what is inside cannot become mail";
        return Step::unchanged(Finding::failed(Failure::CannotDecrypt, why));
    };
    let failure = (signature == Some(Signature::Bad)).then(|| {
        let why = "the signature inside is not a good one of the author";
        (Failure::BadSignature, why.to_owned())
    });
    let finding = Finding {
        label: "decrypted",
        signature,
        failure,
    };
    Step::changed(pieces, finding)
}

fn open_pgp(job: &Job, entity: &Entity<'_>, keys: &[Arc<SecretKey>]) -> Inside {
    let Kind::PgpEncrypted { part } = entity.kind() else {
        return Inside::Plain;
    };
    let armor = entity.decoded(part);
    let author = entity.author();
    let signers = author.as_deref().map(|author| job.keys.pgp(author));
    let signers = signers.unwrap_or_default();
    let opened = openpgp::decrypt(&armor, keys, &signers, job.size_max, job.now);
    let opened = match opened {
        Ok(opened) => opened,
        Err(error @ openpgp::DecryptError::NotForUs) => {
            return Inside::Closed(Failure::MissingKey, error.to_string());
        }
        Err(error @ openpgp::DecryptError::Damaged) => {
            return Inside::Closed(Failure::CannotDecrypt, error.to_string());
        }
    };
    let signature = match (opened.judgement, author) {
        (Judgement::Good, Some(author)) => Some(Signature::Good(author)),
        (Judgement::None, author) => inner(job, &opened.octets, author.as_deref()),
        (Judgement::Bad, _) if signers.is_empty() => Some(Signature::Unchecked),
        (Judgement::Bad | Judgement::Good, _) => Some(Signature::Bad),
    };
    Inside::Open {
        signature: agreed(entity, &opened.octets, signature),
        octets: opened.octets,
    }
}

fn open_smime(job: &Job, entity: &Entity<'_>, keys: &[Arc<Identity>]) -> Inside {
    let content = match smime::decrypt(&entity.decoded(0), keys) {
        Ok(content) => content,
        Err(smime::DecryptError::NotEncrypted) => return Inside::Plain,
        Err(error @ smime::DecryptError::NotForUs) => {
            return Inside::Closed(Failure::MissingKey, error.to_string());
        }
        Err(error @ smime::DecryptError::Damaged) => {
            return Inside::Closed(Failure::CannotDecrypt, error.to_string());
        }
    };
    let signature = inner(job, &content.octets, entity.author().as_deref());
    let signature = agreed(entity, &content.octets, signature);
    let believed = content.authenticated
        || job.policy.unauthenticated == Unauthenticated::Accept
        || matches!(signature, Some(Signature::Good(_)));
    if !believed {
        // The same words as for what does not decrypt: to a stranger who tries, both are one.
        return Inside::Closed(
            Failure::CannotDecrypt,
            smime::DecryptError::Damaged.to_string(),
        );
    }
    Inside::Open {
        octets: content.octets,
        signature,
    }
}

/// A good signature stays one only if readers agree where everything is: outside, where From is, and inside, what is signed.
fn agreed(outside: &Entity<'_>, inside: &[u8], signature: Option<Signature>) -> Option<Signature> {
    if !matches!(signature, Some(Signature::Good(_))) {
        return signature;
    }
    let is_clear = |inner: Entity<'_>| !inner.is_ambiguous();
    let clear = !outside.is_ambiguous() && Entity::read(inside).is_ok_and(is_clear);
    if clear {
        signature
    } else {
        Some(Signature::Bad)
    }
}

/// The signature of what was inside.
fn inner(job: &Job, octets: &[u8], author: Option<&str>) -> Option<Signature> {
    let entity = Entity::read(octets).ok()?;
    signature(job, &entity, author).unwrap_or(Some(Signature::Bad))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::mine;

    #[test]
    fn what_comes_out_of_one_message_is_bounded_for_all_together() {
        let mut held = Held::new(10);
        let step =
            |octets: &'static str| Step::changed(vec![mine(octets)], Finding::done("decrypted"));
        let at = |step: &Step| match step.pieces.as_deref() {
            Some([Piece::Inserted(octets)]) => octets.as_ptr(),
            other => panic!("{other:?}"),
        };
        let copy: &'static str = String::from("sixsix").leak();
        let (one, same) = (held.keep(step("sixsix")), held.keep(step(copy)));
        assert_eq!(at(&one), at(&same), "the same is held twice");
        let other = held.keep(step("fives"));
        assert!(other.pieces.is_none());
        assert_eq!(other.finding.label, "cannot-decrypt");
        assert!(held.keep(step("four")).pieces.is_some());
    }
}
