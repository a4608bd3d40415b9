//! Sets of recipients; the two common ones, all and none, cost nothing.

/// Indexes into `facts.recipients`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientSet {
    /// Everybody; also the answer at points that have no recipients.
    All,
    /// These, in ascending order.
    Only(Vec<u32>),
}

/// Makes a set from one answer per recipient, in order.
#[derive(Debug, Default)]
pub(super) struct Builder {
    seen: usize,
    /// Set once somebody was left out.
    partial: Option<Vec<u32>>,
}

// === impl RecipientSet ===

impl RecipientSet {
    /// Nobody.
    pub const fn none() -> Self {
        Self::Only(Vec::new())
    }

    /// Nobody is in it.
    pub const fn is_empty(&self) -> bool {
        match self {
            Self::All => false,
            Self::Only(indexes) => indexes.is_empty(),
        }
    }

    /// Whether this recipient is in it.
    pub fn contains(&self, recipient: usize) -> bool {
        match self {
            Self::All => true,
            Self::Only(indexes) => {
                u32::try_from(recipient).is_ok_and(|index| indexes.binary_search(&index).is_ok())
            }
        }
    }

    /// The indexes, ascending, for a message with `total` recipients.
    pub fn iter(&self, total: usize) -> impl Iterator<Item = usize> {
        (0..total).filter(|index| self.contains(*index))
    }

    /// Takes another set out of this one.
    pub(super) fn remove(&mut self, other: &Self, total: usize) {
        if other.is_empty() || self.is_empty() {
            return;
        }
        if *other == Self::All {
            *self = Self::none();
            return;
        }
        *self = Self::Only(
            self.iter(total)
                .filter(|i| !other.contains(*i))
                .filter_map(small)
                .collect(),
        );
    }

    /// Puts another set into this one.
    pub(super) fn extend(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Only(indexes), Self::Only(more)) => {
                indexes.extend_from_slice(more);
                indexes.sort_unstable();
                indexes.dedup();
            }
        }
    }
}

fn small(index: usize) -> Option<u32> {
    u32::try_from(index).ok()
}

// === impl Builder ===

impl Builder {
    /// Notes whether recipient `index` is in the set.
    pub(super) fn add(&mut self, index: usize, inside: bool) {
        match (&mut self.partial, inside) {
            (None, false) => self.partial = Some((0..index).filter_map(small).collect()),
            (Some(indexes), true) => indexes.extend(small(index)),
            (None, true) | (Some(_), false) => {}
        }
        self.seen += 1;
    }

    /// The set; nobody if there was nobody.
    pub(super) fn finish(self) -> RecipientSet {
        match self.partial {
            Some(indexes) => RecipientSet::Only(indexes),
            None if self.seen == 0 => RecipientSet::none(),
            None => RecipientSet::All,
        }
    }
}
