//! What is wrong with a rule file, where, and what to do about it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The objects cannot be used.
    Error,
    /// The objects work, but probably not as their author thinks.
    Warning,
}

/// A place in a text; lines and columns (in characters) count from 1, and 0 means unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// One mistake in one object. Displayed as `file.yaml:12:5: spec.at: …` with a line of help.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Name of the file or, for objects from a cluster, of the object.
    pub source: String,
    /// Line from 1; 0 when unknown.
    pub line: u32,
    /// Column in characters from 1; 0 when unknown.
    pub column: u32,
    /// Error or warning.
    pub severity: Severity,
    /// Path of the field, such as `spec.callout.timeout`; empty for the whole document.
    pub field: String,
    /// What is wrong, lower case, without a full stop.
    pub message: String,
    /// What to do about it; empty if the message says it.
    pub remedy: String,
}

/// Where an object came from: its source and the place of each of its fields.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Name of the file, or another name that tells a person where to look.
    pub source: Arc<str>,
    /// Field path to place, such as `spec.at[0]`; empty for objects that were never text.
    pub places: BTreeMap<String, Position>,
}

// === impl Origin ===

impl Origin {
    /// An object that does not come from a text, such as one from the API server.
    pub fn named(source: impl Into<Arc<str>>) -> Self {
        Self {
            source: source.into(),
            places: BTreeMap::new(),
        }
    }

    /// The place of a field, or of the closest enclosing field whose place is known.
    pub fn place(&self, field: &str) -> Position {
        let mut path = field;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None => return self.places.get("").copied().unwrap_or_default(),
            }
        }
    }

    /// An error about one field of this object.
    pub fn error(
        &self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Diagnostic {
        self.diagnostic(Severity::Error, field.into(), message.into(), remedy.into())
    }

    /// A warning about one field of this object.
    pub fn warning(
        &self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Diagnostic {
        self.diagnostic(
            Severity::Warning,
            field.into(),
            message.into(),
            remedy.into(),
        )
    }

    fn diagnostic(
        &self,
        severity: Severity,
        field: String,
        message: String,
        remedy: String,
    ) -> Diagnostic {
        let Position { line, column } = self.place(&field);
        let source = self.source.to_string();
        Diagnostic {
            source,
            line,
            column,
            severity,
            field,
            message,
            remedy,
        }
    }
}

// === impl Diagnostic ===

impl Diagnostic {
    /// The objects cannot be used as they are.
    pub const fn is_error(&self) -> bool {
        matches!(self.severity, Severity::Error)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "\n  help: {}", self.remedy)?;
        }
        Ok(())
    }
}
