//! What becomes of a message: findings and reactions in the words of the profile.

use anyhow::bail;
use opes_callout_server::{Answer, GroupParameters};
use opes_proto::smtp::{Permission, notification};

use crate::operate::{Finding, Signature};
use crate::policy::{Failure, NotifyTo, Operation, Policy, Reaction, Verdict};

/// Annotation with what was done or found.
pub const RESULT_ANNOTATION: &str = "secure.result";
/// Annotation with `good`, `bad` or `unchecked`; absent: no signature was looked at.
pub const SIGNATURE_ANNOTATION: &str = "secure.signature";
/// Annotation with the address that a good signature is by.
pub const SIGNER_ANNOTATION: &str = "secure.signer";

/// The answer about a finding. `Err`: the callout fails, because the policy says so or the rule does not allow what the policy wants.
pub(crate) fn answer(
    finding: &Finding,
    policy: &Policy,
    header: &str,
    rule: &GroupParameters,
) -> anyhow::Result<Answer> {
    let Finding {
        label,
        signature,
        failure,
    } = finding;
    let mut answer = Answer::accept();
    let mut say = !matches!(
        policy.operation,
        Operation::Sign | Operation::Encrypt | Operation::DkimSign
    );
    let mut reason = (*label).to_owned();
    if let Some((failure, why)) = failure {
        let reaction = policy.reaction(*failure);
        answer = react(*failure, why, &reaction, rule)?;
        say = reaction.header;
        reason = format!("{}: {why}", failure.label());
    }
    if say && !header.is_empty() && rule.allows(Permission::Header) {
        answer = answer.add_header(header, field(finding));
    }
    answer = answer.annotate(RESULT_ANNOTATION, *label).reason(reason);
    match signature {
        Some(Signature::Good(signer)) => {
            answer = answer
                .annotate(SIGNATURE_ANNOTATION, "good")
                .annotate(SIGNER_ANNOTATION, signer);
        }
        Some(Signature::Bad) => answer = answer.annotate(SIGNATURE_ANNOTATION, "bad"),
        Some(Signature::Unchecked) => answer = answer.annotate(SIGNATURE_ANNOTATION, "unchecked"),
        None => {}
    }
    Ok(answer)
}

/// Does a reaction keep the message from its recipients? Then no octets are sent back for it.
pub(crate) fn refuses(answer: &Answer) -> bool {
    answer.outcome().verdict.is_some()
}

fn field(finding: &Finding) -> String {
    let mut value = finding.label.to_owned();
    if let Some((failure, _)) = &finding.failure
        && failure.label() != finding.label
    {
        value.push_str("; ");
        value.push_str(failure.label());
    }
    match &finding.signature {
        Some(Signature::Good(signer)) => {
            value.push_str("; signature=good; signer=");
            value.push_str(signer);
        }
        Some(Signature::Bad) => value.push_str("; signature=bad"),
        Some(Signature::Unchecked) => value.push_str("; signature=unchecked"),
        None => {}
    }
    value
}

fn react(
    failure: Failure,
    why: &str,
    reaction: &Reaction,
    rule: &GroupParameters,
) -> anyhow::Result<Answer> {
    let text = if reaction.text.is_empty() {
        text(failure)
    } else {
        &reaction.text
    };
    let needed = match reaction.verdict {
        Verdict::Accept => None,
        Verdict::Reject | Verdict::Tempfail => Some(Permission::Reject),
        Verdict::Quarantine => Some(Permission::Quarantine),
        Verdict::Fail => bail!("{why} ({})", failure.field()),
    };
    if let Some(needed) = needed
        && !rule.allows(needed)
    {
        bail!(
            "{why}, but rule {} does not allow what {} wants; add {} to its callout.allow",
            rule.rule,
            failure.field(),
            if needed == Permission::Reject {
                "reject"
            } else {
                "quarantine"
            },
        );
    }
    let enhanced = enhanced(failure);
    let mut answer = match reaction.verdict {
        Verdict::Reject => Answer::reject(550, &format!("5.{enhanced}"), text),
        Verdict::Tempfail => Answer::tempfail(451, &format!("4.{enhanced}"), text),
        Verdict::Quarantine => Answer::accept().quarantine(text),
        Verdict::Accept | Verdict::Fail => Answer::accept(),
    };
    if !reaction.subject_mark.is_empty() && rule.allows(Permission::Subject) {
        answer = answer.mark_subject(&reaction.subject_mark);
    }
    if rule.allows(Permission::Notify) {
        for to in &reaction.notify {
            let to = match to {
                NotifyTo::Sender => notification::To::Sender,
                NotifyTo::Recipients => notification::To::Recipients,
                NotifyTo::Administrator => notification::To::Administrator,
            };
            answer = answer.notify(to, "Signed or encrypted mail", format!("{text}\n"));
        }
    }
    if reaction.report && rule.allows(Permission::Report) {
        let incident = serde_json::json!({ "kind": failure.label(), "reason": why });
        answer = answer.incident(incident.to_string());
    }
    Ok(answer)
}

/// For people who know nothing of keys. It says nothing about what exactly went wrong inside.
const fn text(failure: Failure) -> &'static str {
    match failure {
        Failure::MissingKey => "There is no key for this message, so it cannot be secured",
        Failure::BadSignature => "The signature of this message is not a good one of its author",
        Failure::CannotDecrypt => "This message cannot be decrypted",
        Failure::Unsigned => "This message is not signed",
    }
}

/// RFC 3463 §3.8: 7.5 cryptographic failure, 7.7 message integrity failure; 7.1 delivery not authorized.
const fn enhanced(failure: Failure) -> &'static str {
    match failure {
        Failure::MissingKey | Failure::CannotDecrypt => "7.5",
        Failure::BadSignature => "7.7",
        Failure::Unsigned => "7.1",
    }
}

#[cfg(test)]
mod tests;
