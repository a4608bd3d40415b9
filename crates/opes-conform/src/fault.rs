//! [`Fault`]: what a server did wrong, and which row of the checklist says so.

/// Why a scenario did not go as it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server broke this rule.
    Broken { id: &'static str, what: String },
    /// This server cannot be asked this way.
    NotTestable(&'static str),
}

impl Fault {
    pub(crate) fn broken(id: &'static str, what: impl Into<String>) -> Self {
        Self::Broken {
            id,
            what: what.into(),
        }
    }
}

/// `Err(Broken)` unless it holds.
pub(crate) fn require(
    holds: bool,
    id: &'static str,
    what: impl FnOnce() -> String,
) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        Err(Fault::broken(id, what()))
    }
}
