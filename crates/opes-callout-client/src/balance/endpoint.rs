//! One endpoint as the balancer sees it: its connections, when to dial again, how it fares.

use std::time::Duration;

use super::health::Health;
use super::{Condition, Connected, Loss, NotOpened, Note};
use crate::config::Address;
use crate::error::CalloutError;

/// Pause before dialling again: none at first, then from the minimum on twice as long each time, give or take the jitter.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
const JITTER_PERCENT: u32 = 20;

/// An endpoint that has just come (back) is chosen less often: its weight grows over this time, from a tenth.
const SLOW_START: Duration = Duration::from_secs(5);
const WEIGHT_MIN: u32 = 100;
const WEIGHT_FULL: u32 = 1000;

#[derive(Debug)]
pub(crate) struct Endpoint<H> {
    pub(super) id: u64,
    pub(super) address: Address,
    pub(super) connections: Vec<Line<H>>,
    pub(super) dialling: bool,
    /// All connections are full: one more.
    pub(super) wants_more: bool,
    pub(super) health: Health,
    pub(super) ejections: u64,
    /// When a dial failed last.
    pub(super) failed_at: Option<Duration>,
    pub(super) down: Option<Down>,
    /// The last dial ended in good order.
    closed_in_order: bool,
    up_since: Duration,
    not_before: Duration,
    /// Losses and failed dials since the last answer.
    misses: u32,
}

/// A connection and what runs on it.
#[derive(Debug)]
pub(super) struct Line<H> {
    pub(super) id: u64,
    pub(super) handle: H,
    pub(super) capacity: u32,
    pub(super) in_flight: u32,
    pub(super) last_use: Duration,
}

#[derive(Debug)]
pub(super) struct Down {
    pub(super) since: Duration,
    pub(super) error: CalloutError,
}

impl<H: Connected> Endpoint<H> {
    pub(super) fn new(id: u64, address: Address) -> Self {
        Self {
            id,
            address,
            connections: Vec::new(),
            dialling: false,
            wants_more: false,
            health: Health::default(),
            ejections: 0,
            failed_at: None,
            down: None,
            closed_in_order: false,
            up_since: Duration::ZERO,
            not_before: Duration::ZERO,
            misses: 0,
        }
    }

    pub(super) fn is(&self, condition: Condition) -> bool {
        let mut conditions = self.connections.iter().map(|line| line.handle.condition());
        conditions.any(|c| c == condition)
    }

    pub(super) fn is_connected(&self) -> bool {
        let mut conditions = self.connections.iter().map(|line| line.handle.condition());
        conditions.any(|c| c != Condition::Closed)
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.connections.iter().map(|line| line.in_flight).sum()
    }

    /// A connection with a free place; one that answers before one that does not.
    pub(super) fn free(&mut self) -> Option<&mut Line<H>> {
        let free = |line: &Line<H>, condition| {
            line.in_flight < line.capacity && line.handle.condition() == condition
        };
        let find = |condition| {
            self.connections
                .iter()
                .position(|line| free(line, condition))
        };
        let at = find(Condition::Open).or_else(|| find(Condition::Unresponsive))?;
        self.connections.get_mut(at)
    }

    pub(super) fn has_free(&self) -> bool {
        self.connections.iter().any(|line| {
            line.in_flight < line.capacity && line.handle.condition() != Condition::Closed
        })
    }

    /// Slow start.
    pub(super) fn weight(&self, now: Duration) -> u32 {
        let returned = self.health.ejected_until().unwrap_or_default();
        let age = now.saturating_sub(self.up_since.max(returned));
        if age >= SLOW_START {
            return WEIGHT_FULL;
        }
        let grown = u128::from(WEIGHT_FULL - WEIGHT_MIN) * age.as_millis() / SLOW_START.as_millis();
        WEIGHT_MIN + u32::try_from(grown).unwrap_or(WEIGHT_FULL)
    }

    /// When to dial; `None`: not at all for now.
    pub(super) fn dial_at(&self, connections_max: usize) -> Option<Duration> {
        let more = self.wants_more && self.connections.len() < connections_max;
        let wanted = self.connections.is_empty() || more;
        (wanted && !self.dialling).then_some(self.not_before)
    }

    pub(super) fn connected(&mut self, line: Line<H>, now: Duration) -> Option<Note> {
        self.dialling = false;
        self.wants_more = false;
        self.closed_in_order = false;
        if self.connections.is_empty() {
            self.up_since = now;
        }
        self.connections.push(line);
        let down = self.down.take()?;
        Some(Note::Up {
            target: self.address.target.clone(),
            away: now.saturating_sub(down.since),
        })
    }

    pub(super) fn not_opened(
        &mut self,
        NotOpened {
            error,
            in_good_order,
        }: NotOpened,
        now: Duration,
        random: u64,
    ) -> Option<Note> {
        self.dialling = false;
        self.hold_off(now, random);
        let was_closed = std::mem::replace(&mut self.closed_in_order, in_good_order);
        if in_good_order && !was_closed {
            // Whoever waits goes on waiting: the next dial tells whether it goes or only renews.
            return None;
        }
        self.failed_at = Some(now);
        if self.is_connected() {
            // A second connection was wanted; the first one still serves.
            self.wants_more = false;
            return None;
        }
        self.goes_down(error, now)
    }

    pub(super) fn answered(&mut self) {
        self.misses = 0;
        self.health.answered();
    }

    /// Forgets a connection that takes nothing new.
    pub(super) fn lost(&mut self, loss: Loss, now: Duration, random: u64) -> Option<Note> {
        self.hold_off(now, random);
        let last = !self.is_connected();
        match loss {
            Loss::Broken(error) if last => self.goes_down(error, now),
            Loss::Drained | Loss::Broken(_) => None,
        }
    }

    fn goes_down(&mut self, error: CalloutError, now: Duration) -> Option<Note> {
        if let Some(down) = &mut self.down {
            down.error = error;
            return None;
        }
        self.down = Some(Down {
            since: now,
            error: error.clone(),
        });
        Some(Note::Down { error })
    }

    fn hold_off(&mut self, now: Duration, random: u64) {
        self.not_before = now + pause(self.misses, random);
        self.misses = self.misses.saturating_add(1);
    }
}

/// Before dialling again after so many misses.
pub(super) fn pause(misses: u32, random: u64) -> Duration {
    let Some(doublings) = misses.checked_sub(1) else {
        return Duration::ZERO;
    };
    let pause = PAUSE_MIN
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(PAUSE_MAX);
    let spread = u64::from(2 * JITTER_PERCENT + 1);
    let percent = u32::try_from(random % spread).unwrap_or_default() + 100 - JITTER_PERCENT;
    pause * percent / 100
}
