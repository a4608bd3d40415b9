//! Readiness shared by the parts of a program.
//!
//! Each part that can hold readiness back owns one name; the program is ready when no name has a reason against it.
//! Liveness is not kept here: a process that answers `/healthz` is alive.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared readiness. Clones are handles on the same state.
#[derive(Clone, Debug, Default)]
pub struct Health {
    against: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

/// Why a program is not ready: part name → reason, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady(BTreeMap<&'static str, String>);

// === impl Health ===

impl Health {
    /// Ready: nothing is against it yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Part `name` holds readiness back because of `reason`, one line for people. Replaces an earlier reason of that part.
    pub fn not_ready(&self, name: &'static str, reason: impl Into<String>) {
        self.lock().insert(name, reason.into());
    }

    /// Part `name` has nothing against readiness (any more).
    pub fn ready(&self, name: &'static str) {
        self.lock().remove(name);
    }

    /// `Ok` when no part holds readiness back.
    pub fn check(&self) -> Result<(), NotReady> {
        let against = self.lock();
        if against.is_empty() {
            Ok(())
        } else {
            Err(NotReady(against.clone()))
        }
    }

    // Each change of the map is complete in itself, so a panic elsewhere cannot leave it half-done.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.against.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl NotReady ===

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, reason) in &self.0 {
            writeln!(f, "{name}: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_while_no_part_objects() {
        let health = Health::new();
        let other_handle = health.clone();
        assert!(health.check().is_ok());
        other_handle.not_ready("spool", "disk is full");
        other_handle.not_ready("rules", "no routing table yet");
        other_handle.not_ready("spool", "recovering");
        assert_eq!(
            health.check().unwrap_err().to_string(),
            "rules: no routing table yet\nspool: recovering\n"
        );
        health.ready("rules");
        health.ready("never said anything");
        assert!(health.check().is_err());
        health.ready("spool");
        assert!(other_handle.check().is_ok());
    }
}
