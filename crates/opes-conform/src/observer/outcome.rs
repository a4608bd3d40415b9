//! The rules of `AME.profile`: it decodes, and its copies are what was negotiated.

use std::collections::BTreeSet;

use opes_proto::ocp::ApplicationMessageEnd;
use opes_proto::smtp::verdict::Action;
use opes_proto::smtp::{Copy, Outcome, Verdict};
use prost::Message as _;

use super::flow::Flow;
use crate::fault::{Fault, require};
use crate::mail::RECIPIENTS;
use crate::messages::code;

/// Gives back whether it uses copies or ranges.
pub(super) fn check(
    end: &ApplicationMessageEnd,
    flow: &Flow,
    negotiated: bool,
) -> Result<bool, Fault> {
    if !matches!(code(end.result.as_ref()), 200 | 206) {
        return Ok(false);
    }
    let outcome = Outcome::decode(end.profile.clone())
        .map_err(|error| Fault::broken("B4", format!("its outcome: {error}")))?;
    let action = outcome
        .verdict
        .as_ref()
        .map_or(Action::Accept, Verdict::action);
    let goes_on = matches!(action, Action::Unspecified | Action::Accept);
    require(goes_on || !flow.has_new_line(), "C-54", || {
        format!("a new command line, and {action:?} besides")
    })?;
    let asks = !outcome.copies.is_empty() || outcome.adapted.is_some();
    require(negotiated || !asks, "C-58", || {
        "it answers with copies or a range, which were not negotiated".to_owned()
    })?;
    within(&outcome, flow)?;
    let mut seen = BTreeSet::new();
    for copy in &outcome.copies {
        check_copy(copy, flow, &mut seen)?;
    }
    Ok(asks)
}

fn check_copy(copy: &Copy, flow: &Flow, seen: &mut BTreeSet<String>) -> Result<(), Fault> {
    require(!copy.recipients.is_empty(), "B5", || {
        "a copy for nobody".to_owned()
    })?;
    for recipient in &copy.recipients {
        let recipient = recipient.to_ascii_lowercase();
        require(RECIPIENTS.contains(&recipient.as_str()), "B5", || {
            format!("a copy for {recipient}, who is no recipient")
        })?;
        require(seen.insert(recipient), "B5", || {
            "one recipient in two copies".to_owned()
        })?;
    }
    match &copy.outcome {
        Some(outcome) => {
            require(outcome.copies.is_empty(), "B5", || {
                "copies in a copy".to_owned()
            })?;
            within(outcome, flow)
        }
        None => Ok(()),
    }
}

/// Ranges are inside the flow, where its length is certain.
fn within(outcome: &Outcome, flow: &Flow) -> Result<(), Fault> {
    let (Some(range), Some(_)) = (&outcome.adapted, flow.original()) else {
        return Ok(());
    };
    let end = range.offset.saturating_add(range.size);
    require(end <= flow.adapted, "B5", || {
        format!(
            "a range to {end} of an adapted flow of {} octets",
            flow.adapted
        )
    })
}
