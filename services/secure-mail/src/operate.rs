//! What is done with one message: pure but for the randomness of encryption, on a thread that may take its time.
//!
//! Owns whose keys count: the reverse-path signs, recipients read, the field From is who a signature must be by.

mod protect;
mod unprotect;

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use opes_mime::Piece;

use crate::dkim;
use crate::entity::Entity;
use crate::keys::Keys;
use crate::policy::{Failure, Operation, Policy};

/// One message and everything that decides about it.
pub(crate) struct Job {
    pub(crate) octets: Bytes,
    /// The reverse-path; empty: a notification.
    pub(crate) sender: String,
    pub(crate) recipients: Vec<String>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) keys: Arc<Keys>,
    /// Octets that may come out of a message.
    pub(crate) size_max: usize,
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// The field that only we may write.
    pub(crate) header: String,
}

/// What some recipients get.
pub(crate) struct Step {
    /// Nobody: all that are in no other step.
    pub(crate) recipients: Vec<String>,
    /// `None`: the message as it is.
    pub(crate) pieces: Option<Vec<Piece>>,
    /// To be put on top.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) finding: Finding,
}

/// What was found or done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// For annotations, the header field and people.
    pub(crate) label: &'static str,
    /// What is known of a signature.
    pub(crate) signature: Option<Signature>,
    /// What was not possible, and why.
    pub(crate) failure: Option<(Failure, String)>,
}

/// A signature that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Signature {
    /// By this address.
    Good(String),
    /// Not a good one of the author.
    Bad,
    /// There is no key to check it with.
    Unchecked,
}

/// All steps; the first one is about everybody who is in no other.
pub(crate) struct Done {
    pub(crate) steps: Vec<Step>,
    /// The message brings a field that only we may write.
    pub(crate) forged: bool,
}

/// Does it.
pub(crate) fn operate(job: &Job) -> anyhow::Result<Done> {
    let entity = Entity::read(&job.octets)?;
    let looks = matches!(job.policy.operation, Operation::Verify | Operation::Decrypt);
    let forged = looks && !job.header.is_empty() && entity.values(&job.header).next().is_some();
    let steps = match job.policy.operation {
        Operation::Sign => vec![protect::sign(job, &entity)?],
        Operation::Encrypt => protect::encrypt(job, &entity)?,
        Operation::Verify => vec![Step::unchanged(unprotect::verify(job, &entity))],
        Operation::Decrypt => unprotect::decrypt(job, &entity),
        Operation::DkimSign => vec![dkim_sign(job, &entity)?],
    };
    Ok(Done { steps, forged })
}

/// One signature for each key of the domain, so that an RSA and an Ed25519 key go together (RFC 8463 §3).
fn dkim_sign(job: &Job, entity: &Entity<'_>) -> anyhow::Result<Step> {
    let author = || Some(entity.author()?.rsplit_once('@')?.1.to_owned());
    let Some(domain) = job.policy.domain.clone().or_else(author) else {
        let reason = "no single author in From".to_owned();
        return Ok(Step::unchanged(Finding::failed(
            Failure::MissingKey,
            reason,
        )));
    };
    let mut fields = Vec::new();
    for (key, signer) in job.keys.dkim(&domain) {
        let signed = dkim::sign(entity, &key.domain, &key.selector, signer, job.now);
        let value = signed.with_context(|| format!("dkim: {}", key.file))?;
        fields.push(("DKIM-Signature".to_owned(), value));
    }
    if fields.is_empty() {
        let reason = format!("no DKIM key for the domain {domain}");
        return Ok(Step::unchanged(Finding::failed(
            Failure::MissingKey,
            reason,
        )));
    }
    Ok(Step {
        fields,
        ..Step::unchanged(Finding::done("dkim-signed"))
    })
}

// === impl Step ===

impl Step {
    fn unchanged(finding: Finding) -> Self {
        Self {
            recipients: Vec::new(),
            pieces: None,
            fields: Vec::new(),
            finding,
        }
    }

    fn changed(pieces: Vec<Piece>, finding: Finding) -> Self {
        Self {
            pieces: Some(pieces),
            ..Self::unchanged(finding)
        }
    }

    fn to(self, recipients: Vec<String>) -> Self {
        Self { recipients, ..self }
    }
}

// === impl Finding ===

impl Finding {
    fn done(label: &'static str) -> Self {
        Self {
            label,
            signature: None,
            failure: None,
        }
    }

    fn failed(failure: Failure, reason: impl Into<String>) -> Self {
        Self {
            label: failure.label(),
            signature: None,
            failure: Some((failure, reason.into())),
        }
    }
}

#[cfg(test)]
mod tests;
