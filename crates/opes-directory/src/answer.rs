//! What a directory says.

use std::collections::BTreeMap;

/// What a directory knows of what was asked for. No entries: it does not know it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// At most as many as configured.
    pub entries: Vec<Entry>,
}

/// One entry of an LDAP directory, or one row of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// Distinguished name, or `row 1`.
    pub name: String,
    /// By attribute or column, lower case. A column that is NULL is not there.
    values: BTreeMap<String, Vec<String>>,
}

/// Why there is no answer. Cheap to clone: all that wait for one look-up get the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Not in time.
    #[error("{directory} did not answer within {milliseconds} ms")]
    Timeout {
        /// Its name.
        directory: String,
        /// As configured.
        milliseconds: u64,
    },
    /// No connection, or one that broke.
    #[error("{directory} cannot be asked: {reason}")]
    Unreachable {
        /// Its name.
        directory: String,
        /// From network, TLS or library.
        reason: String,
    },
    /// It said no: to our credentials, to the search, to the statement.
    #[error("{directory} refuses: {reason}")]
    Refused {
        /// Its name.
        directory: String,
        /// In its words.
        reason: String,
    },
    /// More than is looked at.
    #[error("{directory} says too much: {reason}")]
    Excess {
        /// Its name.
        directory: String,
        /// Which bound, and the remedy.
        reason: String,
    },
    /// It failed again and again, and is left alone for a moment.
    #[error("{directory} failed again and again; asked again in {milliseconds} ms")]
    Open {
        /// Its name.
        directory: String,
        /// Until it is tried again.
        milliseconds: u64,
    },
    /// Too many wait already.
    #[error("{directory} is too slow: {waiting} look-ups wait for it")]
    Busy {
        /// Its name.
        directory: String,
        /// How many.
        waiting: usize,
    },
}

// === impl Answer ===

impl Answer {
    /// Does the directory know it?
    pub fn is_found(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Octets of all names and values.
    pub(crate) fn octets(&self) -> usize {
        self.entries.iter().map(Entry::octets).sum()
    }
}

// === impl Entry ===

impl Entry {
    /// Without values.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            values: BTreeMap::new(),
        }
    }

    /// With these values of an attribute, besides those that it has.
    #[must_use]
    pub fn with(mut self, attribute: &str, values: impl IntoIterator<Item = String>) -> Self {
        self.add(attribute, values);
        self
    }

    pub(crate) fn add(&mut self, attribute: &str, values: impl IntoIterator<Item = String>) {
        let known = self.values.entry(attribute.to_ascii_lowercase());
        known.or_default().extend(values);
    }

    /// The values of an attribute or column, whose name is compared without case.
    pub fn values(&self, attribute: &str) -> &[String] {
        let values = self.values.get(&attribute.to_ascii_lowercase());
        values.map_or(&[], Vec::as_slice)
    }

    pub(crate) fn octets(&self) -> usize {
        let of = |(name, values): (&String, &Vec<String>)| {
            name.len() + values.iter().map(String::len).sum::<usize>()
        };
        self.name.len() + self.values.iter().map(of).sum::<usize>()
    }
}

// === impl LookupError ===

impl LookupError {
    /// Is it the directory that is ill, and not the one answer?
    pub(crate) fn is_illness(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Unreachable { .. } | Self::Refused { .. } => true,
            Self::Excess { .. } | Self::Open { .. } | Self::Busy { .. } => false,
        }
    }
}
