//! From what came back to an [`Answer`]: the outcome, its copies, and the adapted flow over the message.

use bytes::Bytes;
use opes_content::{Adaptation, Content, View};
use opes_proto::smtp::verdict::Action;
use opes_proto::smtp::{Copy, Outcome, Verdict};
use prost::Message as _;

use crate::ask::Raw;
use crate::copies::{self, Flow, Rules};
use crate::error::CalloutError;
use crate::naming::Naming;
use crate::negotiated::Negotiated;
use crate::own::Held;
use crate::reassembly::Adapted;
use crate::request::{Answer, AnswerCopy, Request};

/// Refuses what breaks a rule as [`CalloutError::Protocol`].
pub(crate) async fn answer(
    raw: Raw,
    held: Held,
    request: &Request,
    negotiated: &Negotiated,
    naming: &Naming,
) -> Result<Answer, CalloutError> {
    let mut outcome = Outcome::decode(raw.profile)
        .map_err(|error| naming.protocol(format!("its outcome: {error}")))?;
    let view = request.mail_data();
    let rules = Rules {
        negotiated: negotiated.selection.copies,
        mail_data: view.is_some(),
        recipients: negotiated
            .message
            .has_recipients()
            .then_some(request.context.recipients.as_slice()),
    };
    let copies = copies::take(&mut outcome, rules).map_err(|refused| told(naming, &refused))?;
    let mut answer = Answer {
        octets_sent: raw.octets_sent,
        octets_received: raw.octets_received,
        ..Answer::default()
    };
    match (view, held) {
        (Some(view), held) => {
            let own = match held {
                Held::Content(own) => own,
                Held::Line(_) => None,
            };
            let ranges = has_range(&outcome, &copies);
            let flow = flow(view, raw.adapted, ranges, naming).await?;
            cut(&mut answer, &mut outcome, copies, (&flow, own.as_ref()))
                .map_err(|refused| told(naming, &refused))?;
        }
        (None, held) => {
            answer.command_line = rewritten(request, raw.adapted, &held, naming)?;
            check_one_answer(request, &answer, &outcome, naming)?;
        }
    }
    answer.outcome = outcome;
    Ok(answer)
}

/// A command is answered or passed on changed, not both (RFC 4236 §3.2.1).
fn check_one_answer(
    request: &Request,
    answer: &Answer,
    outcome: &Outcome,
    naming: &Naming,
) -> Result<(), CalloutError> {
    let is_new = answer.command_line.is_some() && answer.command_line != request.command_line;
    let action = outcome.verdict.as_ref().map(Verdict::action);
    let is_answered = !matches!(action, None | Some(Action::Unspecified | Action::Accept));
    if is_new && is_answered {
        return Err(naming.protocol("a new command line and a reply to the old one in one answer"));
    }
    Ok(())
}

fn told(naming: &Naming, refused: &impl std::error::Error) -> CalloutError {
    naming.protocol(refused.to_string())
}

fn has_range(outcome: &Outcome, copies: &[Copy]) -> bool {
    let inner = copies.iter().filter_map(|copy| copy.outcome.as_ref());
    inner.chain([outcome]).any(|one| one.adapted.is_some())
}

fn cut(
    answer: &mut Answer,
    outcome: &mut Outcome,
    copies: Vec<Copy>,
    (flow, own): (&Flow, Option<&Content>),
) -> Result<(), copies::Refused> {
    let adaptation = |rope| Adaptation {
        rope,
        own: own.cloned(),
    };
    answer.adapted = flow.message(outcome.adapted.take())?.map(adaptation);
    for copy in copies {
        let mut outcome = copy.outcome.unwrap_or_default();
        let adapted = flow.message(outcome.adapted.take())?.map(adaptation);
        answer.copies.push(AnswerCopy {
            recipients: copy.recipients,
            outcome,
            adapted,
        });
    }
    Ok(())
}

fn rewritten(
    request: &Request,
    adapted: Adapted,
    held: &Held,
    naming: &Naming,
) -> Result<Option<Bytes>, CalloutError> {
    let none = Bytes::new();
    let own = match held {
        Held::Line(own) => own,
        Held::Content(_) => &none,
    };
    let line = adapted.into_line(request.command_line.as_ref(), own);
    line.map_err(|refused| told(naming, &refused))
}

/// "Use your original" needs no look at the content; anything else is checked against its whole length.
async fn flow(
    view: &View,
    adapted: Adapted,
    ranges: bool,
    naming: &Naming,
) -> Result<Flow, CalloutError> {
    if adapted.is_unchanged() && !ranges {
        return Ok(Flow {
            rope: None,
            original: 0,
        });
    }
    let original = match view.len() {
        Some(len) => len,
        None if view.content().wait_complete().await => view.len().unwrap_or_default(),
        None => return Err(naming.content("the mail client left before its end")),
    };
    let rope = adapted
        .over(original)
        .map_err(|refused| told(naming, &refused))?;
    Ok(Flow { rope, original })
}
