//! Something else for some of the recipients: what the processor must have offered, and what an answer may say.
//!
//! A broken rule is a bug of the service: it is logged, and the transaction ends with TE 400 before any of it is sent.

use std::collections::HashSet;

use opes_proto::smtp::{COPIES_MAX, Copy, Outcome, Range};

use crate::message::Message;

/// Why an answer with copies cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopiesError {
    /// The processor did not offer copies.
    #[error(
        "the processor takes no copies: ask Message::takes_copies() and give one answer for all recipients if it does not"
    )]
    NotOffered,
    /// More copies than a message can have.
    #[error("{0} copies; {COPIES_MAX} are the most: put recipients that get the same into one")]
    TooMany(usize),
    /// An answer for some recipients has answers for some recipients itself.
    #[error("an answer given to for_recipients() has such answers itself: put them side by side")]
    Nested,
    /// An answer for nobody.
    #[error("for_recipients() without a recipient: leave it out")]
    ForNobody,
    /// A recipient in two answers.
    #[error("recipient {0} is in two answers for_recipients()")]
    Twice(String),
    /// With several adapted messages, an answer about the original needs its size.
    #[error(
        "an answer without with_message() stands for the original, whose size is not known: read it to its end or ask for CONTEXT_FIELD_SIZE"
    )]
    SizeUnknown,
}

/// Is this outcome one that the processor takes?
pub(crate) fn check(outcome: &Outcome, offered: bool) -> Result<(), CopiesError> {
    let copies = &outcome.copies;
    if copies.is_empty() && outcome.adapted.is_none() {
        return Ok(());
    }
    if !offered {
        return Err(CopiesError::NotOffered);
    }
    if copies.len() > COPIES_MAX {
        return Err(CopiesError::TooMany(copies.len()));
    }
    let mut seen = HashSet::new();
    for copy in copies {
        if copy.outcome.as_ref().is_some_and(|o| !o.copies.is_empty()) {
            return Err(CopiesError::Nested);
        }
        if copy.recipients.is_empty() {
            return Err(CopiesError::ForNobody);
        }
        let twice = copy.recipients.iter().find(|&r| !seen.insert(r));
        if let Some(recipient) = twice {
            return Err(CopiesError::Twice(recipient.clone()));
        }
    }
    Ok(())
}

/// With several adapted messages in one flow, answers without one of them are about the original. It is put behind them, once.
/// Gives back its size if it is needed there.
pub(crate) fn name_original(
    outcome: &mut Outcome,
    message: &Message,
) -> Result<Option<u64>, CopiesError> {
    let (several, flow) = {
        let shared = message.link.lock();
        (shared.several, shared.flow)
    };
    if !several {
        return Ok(None);
    }
    let mut unnamed: Vec<_> = every(outcome).filter(|range| range.is_none()).collect();
    if unnamed.is_empty() {
        return Ok(None);
    }
    let size = message.original_size().ok_or(CopiesError::SizeUnknown)?;
    for range in &mut unnamed {
        **range = Some(Range { offset: flow, size });
    }
    Ok(Some(size))
}

/// The range of the outer outcome and of each copy.
fn every(outcome: &mut Outcome) -> impl Iterator<Item = &mut Option<Range>> {
    let Outcome {
        adapted, copies, ..
    } = outcome;
    let inner = |copy: &mut Copy| {
        copy.outcome.get_or_insert_default();
    };
    copies.iter_mut().for_each(inner);
    let inner = copies.iter_mut().filter_map(|copy| copy.outcome.as_mut());
    inner.map(|outcome| &mut outcome.adapted).chain([adapted])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Answer;

    fn checked(answer: Answer, offered: bool) -> Result<(), CopiesError> {
        check(&answer.into_outcome(), offered)
    }

    fn other() -> Answer {
        Answer::accept().mark_subject("[list]")
    }

    #[test]
    fn an_answer_for_all_needs_no_offer() {
        assert_eq!(checked(other(), false), Ok(()));
    }

    #[test]
    fn each_bug_of_a_service_is_named() {
        let for_ann = || Answer::accept().for_recipients(["ann@example.com"], other());
        assert_eq!(checked(for_ann(), true), Ok(()));
        assert_eq!(checked(for_ann(), false), Err(CopiesError::NotOffered));
        let twice = for_ann().for_recipients(["ann@example.com"], Answer::discard());
        assert_eq!(
            checked(twice, true),
            Err(CopiesError::Twice("ann@example.com".into()))
        );
        let nested = Answer::accept().for_recipients(["bob@example.org"], for_ann());
        assert_eq!(checked(nested, true), Err(CopiesError::Nested));
        let nobody = Answer::accept().for_recipients(Vec::<String>::new(), other());
        assert_eq!(checked(nobody, true), Err(CopiesError::ForNobody));
        let many = (0..=COPIES_MAX).fold(Answer::accept(), |answer, n| {
            answer.for_recipients([format!("u{n}@example.com")], other())
        });
        assert_eq!(
            checked(many, true),
            Err(CopiesError::TooMany(COPIES_MAX + 1))
        );
    }
}
