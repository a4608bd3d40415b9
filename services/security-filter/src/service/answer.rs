//! Between what is decided and what the profile has words for.

use opes_callout_server::{Answer, GroupParameters};
use opes_proto::smtp::{Permission, notification};

use super::Decided;
use crate::config::NotifyTo;
use crate::verdict::{Action, Allowed, Decision};

/// Does the message bring a field of our name? Only we may say what we did.
pub(super) fn is_forged(octets: &[u8], header: &str) -> bool {
    let end = opes_mime::header_end(octets)
        .and_then(|end| usize::try_from(end).ok())
        .unwrap_or(octets.len());
    let lines = octets
        .get(..end)
        .unwrap_or(octets)
        .split(|octet| *octet == b'\n');
    let names = lines.filter_map(|line| line.splitn(2, |octet| *octet == b':').next());
    !header.is_empty()
        && names
            .map(<[u8]>::trim_ascii_end)
            .any(|name| name.eq_ignore_ascii_case(header.as_bytes()))
}

/// What the rule lets us do.
pub(super) fn allowed(parameters: &GroupParameters) -> Allowed {
    Allowed {
        header: parameters.allows(Permission::Header),
        subject: parameters.allows(Permission::Subject),
        replace_part: parameters.allows(Permission::ReplacePart),
        body: parameters.allows(Permission::Body),
        reject: parameters.allows(Permission::Reject),
        quarantine: parameters.allows(Permission::Quarantine),
        notify: parameters.allows(Permission::Notify),
        report: parameters.allows(Permission::Report),
    }
}

/// The decision in the words of the profile.
pub(super) fn answer(decision: Decision) -> Answer {
    let mut answer = match decision.action {
        Action::Accept | Action::Quarantine => Answer::accept(),
        Action::Refuse(code, enhanced, text) if code < 500 => {
            Answer::tempfail(code, enhanced, text)
        }
        Action::Refuse(code, enhanced, text) => Answer::reject(code, enhanced, text),
        Action::Replace(parts) => parts
            .into_iter()
            .fold(Answer::accept(), |answer, (path, text)| {
                answer.replace_part(path, text)
            }),
    };
    if let Some(mark) = decision.subject_mark {
        answer = answer.mark_subject(mark);
    }
    if let Some(mark) = decision.body_mark {
        answer = answer.mark_body(mark);
    }
    if let Some((name, value)) = decision.header {
        answer = answer.add_header(name, value);
    }
    if let Some(reason) = decision.quarantine {
        answer = answer.quarantine(reason);
    }
    for (to, text) in decision.notify {
        answer = answer.notify(notify_to(to), "Forbidden content in a message", text);
    }
    if let Some(incident) = decision.incident {
        answer = answer.incident(incident);
    }
    answer
        .annotate("security.verdict", decision.label)
        .reason(decision.reason)
}

fn notify_to(to: NotifyTo) -> notification::To {
    match to {
        NotifyTo::Sender => notification::To::Sender,
        NotifyTo::Recipients => notification::To::Recipients,
        NotifyTo::Administrator => notification::To::Administrator,
    }
}

/// The strictest of several decisions, for a processor that takes one for all recipients.
pub(super) fn strictest(decided: Vec<Decided>) -> Option<Decided> {
    decided
        .into_iter()
        .max_by_key(|decided| match decided.decision.action {
            Action::Accept => 0,
            Action::Replace(_) => 1,
            Action::Quarantine => 2,
            Action::Refuse(..) => 3,
        })
}
