//! Data preservation (RFC 4037 §7): what P keeps of the original, what S may still name in DUY. Both roles keep this
//! account, each from its own point of view.

use std::ops::Range;

use crate::violation::Rule;

#[derive(Debug)]
pub(crate) struct Preservation {
    /// Announced with Kept; everything with `keeps_all`.
    kept: Range<u64>,
    /// Not yet given up with DPI.
    reusable: Range<u64>,
    used: bool,
    /// A bad Kept came before any DUY: S must not use DUY (RFC 4037 §11.9).
    spoiled: bool,
}

impl Preservation {
    pub(crate) fn new(keeps_all: bool) -> Self {
        let kept = if keeps_all { 0..u64::MAX } else { 0..0 };
        Self {
            kept,
            reusable: 0..u64::MAX,
            used: false,
            spoiled: false,
        }
    }

    /// Kept, at its sender and at its recipient. `Err(KeptShrinks)` leaves the old range.
    pub(crate) fn keep(&mut self, range: Range<u64>) -> Result<(), Rule> {
        if self.kept.end == u64::MAX {
            // The standing Kept 0..∞ says more than any single one.
            return Ok(());
        }
        let owed = intersection(&self.kept, &self.reusable);
        if !owed.is_empty() && !contains(&range, &owed) {
            return Err(Rule::KeptShrinks);
        }
        self.kept = range;
        Ok(())
    }

    /// Kept as S has to take it: a bad one is a violation only after DUY was used.
    pub(crate) fn on_kept(&mut self, range: Range<u64>) -> Result<(), Rule> {
        match self.keep(range) {
            Err(rule) if self.used => Err(rule),
            Err(_) => {
                self.spoiled = true;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// DPI.
    pub(crate) fn limit_interest(&mut self, range: Range<u64>) -> Result<(), Rule> {
        if !range.is_empty() && !contains(&self.reusable, &range) {
            return Err(Rule::InterestGrows);
        }
        self.reusable = if range.is_empty() { 0..0 } else { range };
        Ok(())
    }

    pub(crate) fn reusable(&self) -> Range<u64> {
        self.reusable.clone()
    }

    /// Whether a DUY may name `range`.
    pub(crate) fn allows(&self, range: &Range<u64>) -> bool {
        let allowed = intersection(&self.kept, &self.reusable);
        !self.spoiled && (range.is_empty() || contains(&allowed, range))
    }

    /// DUY. `range` is what it names.
    pub(crate) fn take(&mut self, range: &Range<u64>) -> Result<(), Rule> {
        if !self.allows(range) {
            let size = range.end.saturating_sub(range.start);
            return Err(Rule::NotPreserved {
                offset: range.start,
                size,
            });
        }
        self.used = true;
        Ok(())
    }

    /// Whether every octet from `offset` on is kept, whatever S gave up: the condition of DSS (RFC 4037 §11.14).
    pub(crate) fn keeps_from(&self, offset: u64, offset_max: u64) -> bool {
        self.kept.start <= offset && self.kept.end >= offset_max
    }
}

fn intersection(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    a.start.max(b.start)..a.end.min(b.end)
}

fn contains(outer: &Range<u64>, inner: &Range<u64>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}
