//! Different verdicts for the recipients of one message: what the client is told, and what is done.
//!
//! A pure function of the verdicts and the listener's setting; `docs/rules.md` has it as a table.

use opes_smtp::reply::Reply;

use crate::config::MixedVerdicts;
use crate::engine::{Group, Hold};
use crate::outcome::Verdict;

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// One fate for all, or a reply for each recipient: every group as it was decided.
    Each,
    /// Nobody gets it; this is the reply.
    Refuse(Reply),
    /// Nobody gets it now. The client comes again and is asked for a transaction for each recipient.
    Split,
    /// Those whom it was refused are held for review.
    HoldRefused,
}

/// Decides. `apart`: each recipient can be told something else.
pub(super) fn rule(groups: &[Group], apart: bool, policy: MixedVerdicts) -> Ruling {
    let refusals = || groups.iter().filter_map(|group| refusal(group));
    let refused = refusals().count();
    if apart || refused == 0 {
        return Ruling::Each;
    }
    let transient = refusals().find(|reply| reply.is_transient());
    let Some(reply) = transient.or_else(|| refusals().next()) else {
        return Ruling::Each;
    };
    let all = refused == groups.len();
    match policy {
        _ if all => Ruling::Refuse(reply.clone()),
        MixedVerdicts::Split => Ruling::Split,
        MixedVerdicts::RejectAll => Ruling::Refuse(reply.clone()),
        // A temporary refusal of some is one for all: nothing is lost, and the client comes again for everybody.
        MixedVerdicts::QuarantineRejected if transient.is_some() => Ruling::Refuse(reply.clone()),
        MixedVerdicts::QuarantineRejected => Ruling::HoldRefused,
    }
}

fn refusal(group: &Group) -> Option<&Reply> {
    match &group.fate.verdict {
        Verdict::Refuse(reply) => Some(reply),
        Verdict::Accept | Verdict::Discard => None,
    }
}

/// Holds in place of refusing.
pub(super) fn hold_refused(groups: &mut [Group]) {
    for group in groups {
        if let Verdict::Refuse(reply) = &group.fate.verdict {
            group.fate.hold = Some(Hold {
                reason: format!("refused for these recipients: {reply}"),
                ..group.fate.hold.take().unwrap_or_default()
            });
            group.fate.verdict = Verdict::Accept;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Fate;

    fn groups(verdicts: &[Verdict]) -> Vec<Group> {
        let group = |(member, verdict): (usize, &Verdict)| Group {
            members: vec![member],
            fate: Fate {
                verdict: verdict.clone(),
                ..Fate::default()
            },
        };
        verdicts.iter().enumerate().map(group).collect()
    }

    fn no() -> Verdict {
        Verdict::Refuse(Reply::REFUSED)
    }

    fn later() -> Verdict {
        Verdict::Refuse(Reply::TRY_LATER)
    }

    #[test]
    fn the_table_of_mixed_verdicts() {
        use MixedVerdicts::{QuarantineRejected, RejectAll, Split};
        use Verdict::{Accept, Discard};
        let refuse = |reply: Reply| Ruling::Refuse(reply);
        let table = [
            (vec![Accept, Discard], Split, Ruling::Each),
            (vec![no(), no()], Split, refuse(Reply::REFUSED)),
            (
                vec![no(), later()],
                QuarantineRejected,
                refuse(Reply::TRY_LATER),
            ),
            (vec![Accept, no()], Split, Ruling::Split),
            (vec![Accept, no()], RejectAll, refuse(Reply::REFUSED)),
            (vec![Accept, no()], QuarantineRejected, Ruling::HoldRefused),
            (vec![Accept, later()], Split, Ruling::Split),
            (
                vec![Accept, later(), no()],
                RejectAll,
                refuse(Reply::TRY_LATER),
            ),
            (
                vec![Accept, later()],
                QuarantineRejected,
                refuse(Reply::TRY_LATER),
            ),
        ];
        for (verdicts, policy, ruling) in table {
            assert_eq!(
                rule(&groups(&verdicts), false, policy),
                ruling,
                "{verdicts:?} {policy:?}"
            );
            assert_eq!(rule(&groups(&verdicts), true, policy), Ruling::Each);
        }
    }
}
