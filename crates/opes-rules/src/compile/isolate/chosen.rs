//! The version of an object that was chosen, and what its author is told.

use super::{Candidate, Fault, FaultKind, Judgement, Outcome, Runs};
use crate::diagnostic::Diagnostic;
use crate::object::Object;
use std::borrow::Cow;

/// A version that was chosen.
pub(super) struct Chosen<'c, T> {
    outcome: Outcome,
    runs: Runs,
    pub(super) faults: Vec<Fault>,
    /// What is in the table: nothing for one that is left out.
    pub(super) made: Option<Made<'c, T>>,
}

/// A version and what was made of it.
pub(super) struct Made<'c, T> {
    pub(super) object: Cow<'c, Object>,
    pub(super) compiled: T,
}

impl<'c, T> Chosen<'c, T> {
    pub(super) const fn made(
        runs: Runs,
        faults: Vec<Fault>,
        object: &'c Object,
        compiled: T,
    ) -> Self {
        let outcome = match runs {
            Runs::Written => Outcome::Accepted,
            Runs::LastAccepted => Outcome::LastAccepted,
            Runs::Nothing => Outcome::LeftOut,
        };
        let object = Cow::Borrowed(object);
        Self {
            outcome,
            runs,
            faults,
            made: Some(Made { object, compiled }),
        }
    }

    /// A stand-in for version `runs`; `made` is nothing if there is nothing to do.
    pub(super) fn stand_in(
        outcome: Outcome,
        runs: Runs,
        faults: Vec<Fault>,
        made: Option<(Object, T)>,
    ) -> Self {
        Self {
            outcome,
            runs: made.as_ref().map_or(Runs::Nothing, |_| runs),
            faults,
            made: made.map(|(object, compiled)| Made {
                object: Cow::Owned(object),
                compiled,
            }),
        }
    }

    pub(super) const fn left_out(faults: Vec<Fault>) -> Self {
        Self {
            outcome: Outcome::LeftOut,
            runs: Runs::Nothing,
            faults,
            made: None,
        }
    }

    pub(super) fn judgement(&self, kind: &'static str, name: &str) -> Judgement {
        Judgement {
            kind,
            name: name.to_owned(),
            outcome: self.outcome,
            runs: self.runs,
            faults: self.faults.clone(),
        }
    }
}

/// The candidate cannot be used whatever is written in it.
pub(super) fn is_barred(faults: &[Fault]) -> bool {
    faults.iter().any(|fault| fault.kind == FaultKind::Other)
}

pub(super) fn other(diagnostic: Diagnostic) -> Fault {
    Fault {
        kind: FaultKind::Other,
        diagnostic,
    }
}

pub(super) fn conflict_with(winner: &str, diagnostic: Diagnostic) -> Fault {
    Fault {
        kind: FaultKind::Conflict {
            winner: winner.to_owned(),
        },
        diagnostic,
    }
}

pub(super) fn has_error(found: &[Diagnostic]) -> bool {
    found.iter().any(Diagnostic::is_error)
}

impl Candidate {
    pub(super) fn is_service(&self) -> bool {
        self.kind == "CalloutService"
    }

    pub(super) fn is_rule(&self) -> bool {
        self.kind == "OpesRule"
    }
}
