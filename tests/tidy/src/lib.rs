//! Style as a test: what can be checked without judgement is checked here (habit 30 of `CODE_STYLE.md`).
//!
//! Each check is a function from text to [`Finding`]s, with a test beside it that proves that it finds something; the
//! integration tests apply them to this workspace. Reads the tree and `cargo metadata --no-deps`; needs no network.

pub mod addresses;
pub mod layers;
pub mod manifests;
pub mod sources;
pub mod tree;

use std::fmt;

/// Something that breaks a rule, at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `path:line`, or a crate.
    pub place: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Finding {
    /// At line `index` (from 0) of `path`.
    pub(crate) fn at(path: &str, index: usize, message: impl Into<String>) -> Self {
        Self {
            place: format!("{path}:{}", index + 1),
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Fails the test with one line per finding.
///
/// # Panics
/// If there is one.
pub fn assert_none(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} findings:\n{}",
        lines.len(),
        lines.join("\n")
    );
}
