//! What a milter decided, as an answer to the processor.

use anyhow::bail;
use bytes::Bytes;
use opes_callout_server::{Answer, CommandAnswer, Message};
use opes_milter::Refusal;
use opes_mime::Structure;
use opes_proto::smtp::Permission;

use crate::changes::Changes;
use crate::dialog::Decision;

/// Octets of a new body that go into an answer as one edit. A larger one is a flow of its own, for which the rule must allow `rewrite`.
pub const BODY_SPLICE_OCTETS_MAX: usize = 2 * 1024 * 1024;

/// Recipients that the milter refused, with why.
pub(crate) type Refused = Vec<(String, Refusal)>;

/// To a command.
pub(crate) fn to_command(decision: Option<Decision>) -> CommandAnswer {
    match decision {
        None | Some(Decision::Accept) => CommandAnswer::proceed(),
        Some(Decision::Discard) => {
            CommandAnswer::proceed().reason("the milter discards: to be done at content")
        }
        Some(Decision::Refuse(Refusal {
            code,
            enhanced,
            lines,
        })) => CommandAnswer::reply(u32::from(code), &enhanced, lines.join("\n")),
    }
}

/// To a message, without changes.
pub(crate) fn to_message(decision: Decision) -> Answer {
    match decision {
        Decision::Accept => Answer::accept(),
        Decision::Discard => Answer::discard(),
        Decision::Refuse(refusal) => refuse(&refusal),
    }
}

fn refuse(refusal: &Refusal) -> Answer {
    let (code, text) = (u32::from(refusal.code), refusal.lines.join("\n"));
    if refusal.is_permanent() {
        Answer::reject(code, &refusal.enhanced, text)
    } else {
        Answer::tempfail(code, &refusal.enhanced, text)
    }
}

/// `answer` for all but `refused`; those that got the same refusal are told together.
pub(crate) fn with_refused(mut answer: Answer, refused: Refused) -> Answer {
    let mut told: Vec<(Refusal, Vec<String>)> = Vec::new();
    for (recipient, refusal) in refused {
        match told.iter_mut().find(|(known, _)| *known == refusal) {
            Some((_, recipients)) => recipients.push(recipient),
            None => told.push((refusal, vec![recipient])),
        }
    }
    for (refusal, recipients) in told {
        answer = answer.for_recipients(recipients, refuse(&refusal));
    }
    answer
}

/// One answer where no recipient is left: of several refusals one for the time being, so that nobody is refused for good who was not.
pub(crate) fn all_refused(refused: Refused, each: bool) -> Answer {
    let first = refused.iter().find(|(_, refusal)| !refusal.is_permanent());
    let first = first.or(refused.first());
    let answer = first.map_or_else(Answer::accept, |(_, refusal)| refuse(refusal));
    if each {
        with_refused(answer, refused)
    } else {
        answer
    }
}

/// What the milter changed in a message of this structure.
pub(crate) async fn changed(
    message: &Message,
    structure: &Structure,
    len: u64,
    mut changes: Changes,
) -> anyhow::Result<Answer> {
    let mut answer = Answer::accept();
    let body = changes.take_body();
    // A body and fields would want the same place if nothing stands between them.
    let has_end = structure.fields_end < structure.header_end;
    answer = changes.headers().edit(answer, body.is_none() || has_end);
    if let Some(body) = body {
        let body = if has_end {
            body
        } else {
            Bytes::from([b"\r\n", body.as_ref()].concat())
        };
        answer = replace_body(message, structure.header_end, len, body, answer).await?;
    }
    answer = changes.recipients().change(answer);
    if let Some(sender) = changes.sender {
        answer = answer.mail_from(sender);
    }
    if let Some(reason) = changes.quarantine {
        answer = answer.quarantine(reason);
    }
    Ok(answer)
}

async fn replace_body(
    message: &Message,
    at: u64,
    len: u64,
    body: Bytes,
    answer: Answer,
) -> anyhow::Result<Answer> {
    if body.len() <= BODY_SPLICE_OCTETS_MAX {
        return Ok(answer.splice(at, len.saturating_sub(at), body));
    }
    if !message.parameters().allows(Permission::Rewrite) {
        bail!(
            "the milter's new body has {} octets; for more than {BODY_SPLICE_OCTETS_MAX} the rule's `allow` needs rewrite",
            body.len()
        );
    }
    let mut flow = message.adapt();
    flow.use_yours(0..at).await?;
    flow.use_mine(body).await?;
    flow.finish().await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, text: &str) -> Refusal {
        Refusal {
            code,
            enhanced: String::new(),
            lines: vec![text.to_owned()],
        }
    }

    fn refused() -> Refused {
        let of = |name: &str, code, text| (format!("{name}@example.com"), refusal(code, text));
        vec![
            of("a", 550, "no"),
            of("b", 450, "later"),
            of("c", 550, "no"),
        ]
    }

    #[test]
    fn recipients_with_the_same_refusal_share_a_copy() {
        let outcome = with_refused(Answer::accept(), refused()).into_outcome();
        let copies: Vec<_> = outcome
            .copies
            .iter()
            .map(|copy| copy.recipients.clone())
            .collect();
        assert_eq!(
            copies,
            [&["a@example.com", "c@example.com"][..], &["b@example.com"]]
        );
        assert!(outcome.verdict.is_none());
    }

    #[test]
    fn without_copies_nobody_is_refused_for_good_who_was_not() {
        let code = |answer: Answer| {
            answer
                .into_outcome()
                .verdict
                .and_then(|verdict| verdict.reply)
                .map(|reply| reply.code)
        };
        assert_eq!(code(all_refused(refused(), false)), Some(450));
        assert_eq!(code(all_refused(refused().split_off(2), false)), Some(550));
    }
}
