//! What opening the archives of one message may still cost, and the reader that pays for what comes out of it.
//!
//! Shared by all that are open at once, one inside the other, hence the cells.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::time::Instant;

use crate::config::ArchiveLimits;

/// Files up to this size may be of any ratio, octets: text of one character packs to a thousandth.
const RATIO_FREE_OCTETS: u64 = 8 * 1024 * 1024;
/// The same for all files of a message together, as a bomb can be many small ones.
const RATIO_FREE_TOTAL_OCTETS: u64 = 2 * RATIO_FREE_OCTETS;

/// Why something was not looked at completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unseen {
    /// The archives of the message expand to more octets than this.
    Expanded(u64),
    /// A file is more than so many times larger than it is in its archive.
    Ratio(u64),
    /// More files than this.
    Entries(u32),
    /// More archives and messages inside each other than this.
    Depth(u32),
    /// A file that has to be held to be looked into is larger than what is left of so many octets.
    Held(u64),
    /// Opening took longer than so many milliseconds.
    Time(u64),
    /// Files of an archive share octets.
    Overlap,
    /// It is cut, damaged, or not what it seems.
    Corrupt,
    /// A compression method that is not known here, by its number in ZIP archives.
    Method(u16),
    /// Larger than so many octets, or than the virus scanner itself allows.
    Scanner(u64),
}

/// For people, within a sentence.
impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expanded(max) => write!(f, "it expands to more than {max} octets"),
            Self::Ratio(max) => write!(f, "a file in it is more than {max} times larger unpacked"),
            Self::Entries(max) => write!(f, "it has more than {max} files"),
            Self::Depth(max) => write!(f, "it has more than {max} archives inside each other"),
            Self::Held(max) => write!(f, "an archive in it needs more than {max} octets"),
            Self::Time(ms) => write!(f, "opening it takes longer than {ms} ms"),
            Self::Overlap => write!(f, "files in it overlap"),
            Self::Corrupt => write!(f, "it is damaged"),
            Self::Method(number) => {
                write!(f, "it is compressed in a way not known here ({number})")
            }
            Self::Scanner(max) => {
                write!(
                    f,
                    "it is too much for the virus scanner (over {max} octets, or its own limits)"
                )
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Budget {
    limits: ArchiveLimits,
    deadline: Instant,
    expanded: Cell<u64>,
    /// Octets of archives that this came out of.
    taken: Cell<u64>,
    entries: Cell<u32>,
    held: Cell<u64>,
    stopped: Cell<Option<Unseen>>,
}

// === impl Budget ===

impl Budget {
    /// The time starts now.
    pub fn new(limits: ArchiveLimits) -> Self {
        Self::until(limits, Instant::now() + limits.time())
    }

    /// The time ends then.
    pub fn until(limits: ArchiveLimits, deadline: Instant) -> Self {
        Self {
            deadline,
            expanded: Cell::new(0),
            taken: Cell::new(0),
            entries: Cell::new(0),
            held: Cell::new(0),
            stopped: Cell::new(None),
            limits,
        }
    }

    /// The next part of the message: what stopped the last one need not stop this one, unless it is spent for all.
    pub(crate) fn next_part(&self) {
        let for_all = |why: &Unseen| {
            matches!(
                why,
                Unseen::Expanded(_) | Unseen::Entries(_) | Unseen::Time(_)
            )
        };
        self.stopped.set(self.stopped.get().filter(for_all));
    }

    /// Why nothing more of this part is looked at.
    pub(crate) fn stopped(&self) -> Option<Unseen> {
        self.stopped.get()
    }

    /// Nothing more of this part.
    pub(crate) fn stop(&self, why: Unseen) {
        self.stopped.set(self.stopped.get().or(Some(why)));
    }

    /// One more file.
    pub(crate) fn take_entry(&self) -> Result<(), Unseen> {
        let max = self.limits.entries_max;
        self.entries.set(self.entries.get() + 1);
        if self.entries.get() > max {
            self.stop(Unseen::Entries(max));
        }
        self.go_on()
    }

    /// Files that may still come.
    pub(crate) fn entries_left(&self) -> usize {
        let left = self.limits.entries_max.saturating_sub(self.entries.get());
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// So many octets more came out of so many octets of an archive.
    pub(crate) fn take_octets(&self, expanded: u64, taken: u64) -> Result<(), Unseen> {
        let (max, ratio_max) = (self.limits.expanded_max, self.limits.ratio_max);
        let expanded = self.expanded.get().saturating_add(expanded);
        let taken = self.taken.get().saturating_add(taken);
        self.expanded.set(expanded);
        self.taken.set(taken);
        if expanded > max {
            self.stop(Unseen::Expanded(max));
        }
        if expanded > RATIO_FREE_TOTAL_OCTETS && expanded > taken.saturating_mul(ratio_max) {
            self.stop(Unseen::Ratio(ratio_max));
        }
        self.go_on()
    }

    /// Can something at this depth be opened? 0: it is in the message itself.
    pub(crate) fn may_open(&self, depth: u32) -> Result<(), Unseen> {
        let max = self.limits.depth_max;
        if depth >= max {
            return Err(Unseen::Depth(max));
        }
        self.go_on()
    }

    /// Octets that may be held besides those that are.
    pub(crate) fn room(&self) -> usize {
        let left = self.limits.held_max.saturating_sub(self.held.get());
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Octets that came out of archives so far.
    #[cfg(test)]
    pub(crate) fn expanded(&self) -> u64 {
        self.expanded.get()
    }

    /// Octets that are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> u64 {
        self.held.get()
    }

    /// More is held, until [`release`](Self::release).
    pub(crate) fn hold(&self, octets: usize) {
        self.held.set(self.held.get().saturating_add(octets as u64));
    }

    pub(crate) fn release(&self, octets: usize) {
        self.held.set(self.held.get().saturating_sub(octets as u64));
    }

    /// There is no room for something.
    pub(crate) fn too_large(&self) -> Unseen {
        Unseen::Held(self.limits.held_max)
    }

    /// Is there time, and did nothing stop it?
    pub(crate) fn go_on(&self) -> Result<(), Unseen> {
        if Instant::now() >= self.deadline {
            self.stop(Unseen::Time(self.limits.time_ms));
        }
        self.stopped.get().map_or(Ok(()), Err)
    }
}

/// Counts what is taken from an archive.
#[derive(Debug)]
pub(crate) struct Counted<'c, R> {
    inner: R,
    taken: &'c Cell<u64>,
}

impl<'c, R> Counted<'c, R> {
    pub(crate) fn new(inner: R, taken: &'c Cell<u64>) -> Self {
        Self { inner, taken }
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let octets = self.inner.read(into)?;
        self.taken.set(self.taken.get() + octets as u64);
        Ok(octets)
    }
}

/// Pays for what comes out of an archive; an error as soon as there is nothing left to pay with.
pub(crate) struct Metered<'b, R> {
    inner: R,
    budget: &'b Budget,
    /// What was taken for it; none: it is not compressed.
    taken: Option<&'b Cell<u64>>,
    given: u64,
    /// What was taken and is paid for.
    paid: u64,
}

impl<'b, R> Metered<'b, R> {
    pub(crate) fn new(inner: R, budget: &'b Budget, taken: Option<&'b Cell<u64>>) -> Self {
        Self {
            inner,
            budget,
            taken,
            given: 0,
            paid: 0,
        }
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    fn is_bomb(&self) -> bool {
        let most = |taken: &Cell<u64>| taken.get().saturating_mul(self.budget.limits.ratio_max);
        self.given > RATIO_FREE_OCTETS && self.taken.is_some_and(|taken| self.given > most(taken))
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let octets = self.inner.read(into)?;
        self.given += octets as u64;
        if self.is_bomb() {
            self.budget
                .stop(Unseen::Ratio(self.budget.limits.ratio_max));
        }
        let taken = self.taken.map_or(0, Cell::get);
        let new = taken.saturating_sub(self.paid);
        self.paid = taken;
        let paid = self.budget.take_octets(octets as u64, new);
        paid.map_err(|_| io::Error::other("the budget is spent"))?;
        Ok(octets)
    }
}
