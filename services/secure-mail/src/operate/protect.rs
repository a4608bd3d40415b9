//! Signing and encrypting: what leaves.

use std::sync::Arc;

use anyhow::bail;
use opes_mime::Piece;

use super::{Finding, Job, Step};
use crate::entity::{Entity, Kind, flatten, mine};
use crate::keys::pgp::SecretKey;
use crate::keys::x509::Identity;
use crate::mime::{PGP_SIGNED, SMIME_SIGNED, Wrapped, pgp_encrypted, signed, smime_encrypted};
use crate::openpgp;
use crate::policy::{Failure, Format};
use crate::sevenbit::{lines, seven_bit};
use crate::smime::{self, Sort};

/// Most recipients of one message that are encrypted to.
const RECIPIENTS_MAX: usize = 1000;
/// Most recipients that others do not know of: each gets a message of their own.
const HIDDEN_MAX: usize = 50;

/// What the sender signs with.
enum OurKey {
    Pgp(Arc<SecretKey>),
    Smime(Arc<Identity>),
}

pub(super) fn sign(job: &Job, entity: &Entity<'_>) -> anyhow::Result<Step> {
    let protected = match entity.kind() {
        Kind::Plain => false,
        Kind::Smime => smime::sort(&entity.decoded(0)) != Sort::Other,
        Kind::PgpSigned { .. } | Kind::SmimeSigned { .. } | Kind::PgpEncrypted { .. } => true,
    };
    if protected {
        return Ok(Step::unchanged(Finding::done("protected-already")));
    }
    let Some(key) = our_key(job) else {
        return Ok(Step::unchanged(no_key_of_sender()));
    };
    let wrapped = wrap_signed(entity.protected(), entity.octets, &key, job.now)?;
    let message = wrapped.into_message(entity);
    Ok(Step::changed(message, Finding::done("signed")))
}

fn no_key_of_sender() -> Finding {
    Finding::failed(Failure::MissingKey, "no usable key of the sender")
}

/// A usable key of the reverse-path.
fn our_key(job: &Job) -> Option<OurKey> {
    if job.sender.is_empty() {
        return None;
    }
    match job.policy.format? {
        Format::OpenPgp => {
            let mut keys = job.keys.pgp_secret(&job.sender).into_iter();
            let key = keys.find(|key| key.signing_part(job.now).is_some());
            key.map(OurKey::Pgp)
        }
        Format::Smime => {
            let mut keys = job.keys.smime_secret(&job.sender).into_iter();
            let usable = |key: &Arc<Identity>| key.is_usable(job.now) && key.certificate.may_sign();
            keys.find(usable).map(OurKey::Smime)
        }
    }
}

/// multipart/signed around `content`, which are pieces over `original`.
fn wrap_signed(
    content: Vec<Piece>,
    original: &[u8],
    key: &OurKey,
    now: u64,
) -> anyhow::Result<Wrapped> {
    let octets = flatten(&content, original);
    let (content, octets) = match seven_bit(&octets) {
        Some(safe) => (vec![mine(safe.clone())], safe),
        None => (content, octets),
    };
    Ok(match key {
        OurKey::Pgp(key) => {
            let armor = openpgp::sign(&octets, key, now)?;
            signed(content, &PGP_SIGNED, armor.trim_end())
        }
        OurKey::Smime(identity) => {
            let signature = smime::sign(&octets, identity, now)?;
            signed(content, &SMIME_SIGNED, &lines(&signature))
        }
    })
}

pub(super) fn encrypt(job: &Job, entity: &Entity<'_>) -> anyhow::Result<Vec<Step>> {
    if job.recipients.len() > RECIPIENTS_MAX {
        bail!("more than {RECIPIENTS_MAX} recipients are not encrypted to at once");
    }
    if is_encrypted(entity) {
        return Ok(vec![Step::unchanged(Finding::done("protected-already"))]);
    }
    let key = our_key(job);
    if job.policy.sign && key.is_none() {
        return Ok(vec![Step::unchanged(no_key_of_sender())]);
    }
    let key = key.filter(|_| job.policy.sign);
    let mut steps = Vec::new();
    let (groups, without) = groups(job, entity);
    if groups.len() > HIDDEN_MAX + 1 {
        bail!(
            "more than {HIDDEN_MAX} recipients that are not in To or Cc are not encrypted to at once"
        );
    }
    for group in groups {
        let wrapped = wrap_encrypted(job, entity, &group, key.as_ref())?;
        let message = wrapped.into_message(entity);
        steps.push(Step::changed(message, Finding::done("encrypted")).to(group));
    }
    if !without.is_empty() {
        let reason = format!("no usable key of {} recipients", without.len());
        let finding = Finding::failed(Failure::MissingKey, reason);
        steps.push(Step::unchanged(finding).to(without));
    }
    Ok(steps)
}

pub(super) fn is_encrypted(entity: &Entity<'_>) -> bool {
    match entity.kind() {
        Kind::PgpEncrypted { .. } => true,
        // Signed, encrypted or neither: its content says which.
        Kind::Smime => smime::sort(&entity.decoded(0)) == Sort::Encrypted,
        Kind::PgpSigned { .. } | Kind::SmimeSigned { .. } | Kind::Plain => false,
    }
}

/// Recipients that get one message together, and those without a key. Who is not in To or Cc gets a message of their own: an encrypted message
/// names everybody who can read it.
fn groups(job: &Job, entity: &Entity<'_>) -> (Vec<Vec<String>>, Vec<String>) {
    let usable = |address: &String| match job.policy.format {
        Some(Format::OpenPgp) => {
            let keys = job.keys.pgp(address);
            keys.iter().any(|key| key.encryption_key(job.now).is_some())
        }
        Some(Format::Smime) => {
            let keys = job.keys.smime(address);
            keys.iter().any(|key| key.is_usable(job.now))
        }
        None => false,
    };
    let (with, without): (Vec<_>, Vec<_>) = job.recipients.iter().cloned().partition(usable);
    let named = entity.visible_recipients();
    let is_named = |address: &String| named.contains(&address.to_ascii_lowercase());
    let (together, hidden): (Vec<_>, Vec<_>) = with.into_iter().partition(is_named);
    let mut groups = Vec::new();
    if !together.is_empty() {
        groups.push(together);
    }
    groups.extend(hidden.into_iter().map(|address| vec![address]));
    (groups, without)
}

fn wrap_encrypted(
    job: &Job,
    entity: &Entity<'_>,
    group: &[String],
    key: Option<&OurKey>,
) -> anyhow::Result<Wrapped> {
    let content = entity.protected();
    match job.policy.format {
        Some(Format::OpenPgp) => {
            let usable = |address: &String| {
                let mut keys = job.keys.pgp(address).into_iter();
                keys.find(|key| key.encryption_key(job.now).is_some())
            };
            let recipients: Vec<_> = group.iter().filter_map(usable).collect();
            let signer = match key {
                Some(OurKey::Pgp(key)) => Some(&**key),
                _ => None,
            };
            let octets = flatten(&content, entity.octets);
            let armor = openpgp::encrypt(octets, &recipients, signer, job.now)?;
            Ok(pgp_encrypted(armor.trim_end()))
        }
        Some(Format::Smime) => {
            let usable = |address: &String| {
                let mut keys = job.keys.smime(address).into_iter();
                keys.find(|key| key.is_usable(job.now))
            };
            let recipients: Vec<_> = group.iter().filter_map(usable).collect();
            let octets = match key {
                Some(key) => {
                    let signed = wrap_signed(content, entity.octets, key, job.now)?;
                    flatten(&signed.into_entity(), entity.octets)
                }
                None => flatten(&content, entity.octets),
            };
            let (cms, kind) = smime::encrypt(octets, &recipients, job.policy.cipher)?;
            Ok(smime_encrypted(kind, &cms))
        }
        None => bail!("parameters: format is missing"),
    }
}
