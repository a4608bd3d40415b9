//! The table of live transactions, and how a live, a late and an invented xid are told apart without a table of dead ones.

use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct Transactions<T> {
    live: BTreeMap<u32, T>,
    /// Highest xid that TS created.
    highest: Option<u32>,
    /// Highest never-started xid that TE 400 was answered for.
    answered: Option<u32>,
}

/// What an xid without a live transaction means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stray {
    /// Ended: its messages crossed the TE. Drop.
    Late,
    /// Never started, first seen: TE 400.
    Unknown,
    /// Never started, answered before. Drop.
    Answered,
}

impl<T> Transactions<T> {
    pub(crate) fn new() -> Self {
        Self {
            live: BTreeMap::new(),
            highest: None,
            answered: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    pub(crate) fn highest(&self) -> Option<u32> {
        self.highest
    }

    /// `xid` is above all earlier ones; the caller has checked that.
    pub(crate) fn insert(&mut self, xid: u32, transaction: T) {
        self.highest = Some(xid);
        self.live.insert(xid, transaction);
    }

    /// Records that `xid` was created and refused at once.
    pub(crate) fn skip(&mut self, xid: u32) {
        self.highest = Some(xid);
    }

    pub(crate) fn get(&self, xid: u32) -> Option<&T> {
        self.live.get(&xid)
    }

    pub(crate) fn get_mut(&mut self, xid: u32) -> Option<&mut T> {
        self.live.get_mut(&xid)
    }

    pub(crate) fn remove(&mut self, xid: u32) -> Option<T> {
        self.live.remove(&xid)
    }

    pub(crate) fn take_all(&mut self) -> BTreeMap<u32, T> {
        std::mem::take(&mut self.live)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.live.iter().map(|(xid, t)| (*xid, t))
    }

    pub(crate) fn stray(&mut self, xid: u32) -> Stray {
        if self.highest.is_some_and(|highest| xid <= highest) {
            return Stray::Late;
        }
        if self.answered.is_some_and(|answered| xid <= answered) {
            return Stray::Answered;
        }
        self.answered = Some(xid);
        Stray::Unknown
    }
}
