//! Several messages from one transaction: which copies an outcome may have, and which octets of the adapted flow each one gets.
//!
//! Everything is checked before anything is used: what breaks a rule fails the whole transaction, since a half-applied
//! answer would give some recipients what was meant for others.

use std::collections::HashSet;

use opes_mime::Rope;
use opes_proto::smtp::{Address, COPIES_MAX, Copy, Outcome, Range};

/// Which rule about copies (docs/ocp-smtp.md B5) an outcome breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it answers with copies or a range, which were not negotiated (C-58)")]
    NotNegotiated,
    #[error("it answers with copies or a range where there is no mail data to copy")]
    NoMailData,
    #[error("it answers with {0} copies; {COPIES_MAX} are the most")]
    TooMany(usize),
    #[error("a copy has copies itself")]
    Nested,
    #[error("a copy names no recipient")]
    ForNobody,
    #[error("a copy names a recipient that the context did not name")]
    Unknown,
    #[error("one recipient is in two copies")]
    Twice,
    #[error("a range names octets {0} to {1} of an adapted flow of {2} octets")]
    OutsideFlow(u64, u64, u64),
}

/// What an outcome is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    /// Copies were offered and selected.
    pub(crate) negotiated: bool,
    /// The transaction is about mail data that we have.
    pub(crate) mail_data: bool,
    /// As sent in the context; `None`: the service did not ask for them.
    pub(crate) recipients: Option<&'a [Address]>,
}

/// Takes the copies out of `outcome`, recipients as we named them.
pub(crate) fn take(outcome: &mut Outcome, rules: Rules<'_>) -> Result<Vec<Copy>, Refused> {
    let mut copies = std::mem::take(&mut outcome.copies);
    if copies.is_empty() && outcome.adapted.is_none() {
        return Ok(copies);
    }
    if !rules.negotiated {
        return Err(Refused::NotNegotiated);
    }
    if !rules.mail_data {
        return Err(Refused::NoMailData);
    }
    if copies.len() > COPIES_MAX {
        return Err(Refused::TooMany(copies.len()));
    }
    let mut seen = HashSet::new();
    for copy in &mut copies {
        check(copy, rules.recipients, &mut seen)?;
    }
    Ok(copies)
}

fn check(
    copy: &mut Copy,
    named: Option<&[Address]>,
    seen: &mut HashSet<String>,
) -> Result<(), Refused> {
    if copy.outcome.as_ref().is_some_and(|o| !o.copies.is_empty()) {
        return Err(Refused::Nested);
    }
    if copy.recipients.is_empty() {
        return Err(Refused::ForNobody);
    }
    for recipient in &mut copy.recipients {
        let key = match named {
            Some(named) => {
                let ours = as_named(recipient, named).ok_or(Refused::Unknown)?;
                ours.clone_into(recipient);
                ours.to_owned()
            }
            None => recipient.to_ascii_lowercase(),
        };
        if !seen.insert(key) {
            return Err(Refused::Twice);
        }
    }
    Ok(())
}

/// Letter for letter if there is one, since two recipients may differ by case only (RFC 5321 §2.4); else without regard to case.
fn as_named<'a>(recipient: &str, named: &'a [Address]) -> Option<&'a str> {
    let exact = named.iter().find(|ours| ours.address == recipient);
    exact
        .or_else(|| {
            named
                .iter()
                .find(|ours| ours.address.eq_ignore_ascii_case(recipient))
        })
        .map(|ours| ours.address.as_str())
}

/// The adapted flow of one transaction, finished.
#[derive(Debug)]
pub(crate) struct Flow {
    /// `None`: the original, unchanged.
    pub(crate) rope: Option<Rope>,
    /// Octets of the original.
    pub(crate) original: u64,
}

impl Flow {
    /// The message that `range` names; `None` = the original, unchanged.
    pub(crate) fn message(&self, range: Option<Range>) -> Result<Option<Rope>, Refused> {
        let Some(Range { offset, size }) = range else {
            return Ok(self.rope.clone());
        };
        let whole = || Rope::identity(self.original);
        let rope = self.rope.clone().unwrap_or_else(whole);
        let end = offset.saturating_add(size);
        let message = rope
            .slice(offset..end)
            .map_err(|_| Refused::OutsideFlow(offset, end, rope.len()))?;
        Ok((!message.is_identity(self.original)).then_some(message))
    }
}

#[cfg(test)]
mod tests;
