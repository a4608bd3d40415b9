//! Whom to follow, and which of its tables to take: decisions without streams, with time as a value.
//!
//! The line that brings the first table is followed, and stays so while it lives; what it sends is taken. When it goes,
//! another one that has a table is followed at once. That one may be behind: what runs is then kept until it says
//! something new, and at most for [`HOLD`], because a replica that has lived for so long is no straggler. That it is
//! ahead is known when it has said itself what runs, and then something else; or when it has changed its word after what
//! runs was taken, to something that never ran. A replica that is reached just after the followed one was lost, and says
//! what ran before, gets a few seconds to catch up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use opes_proto::routing::{Endpoints, Pool, Table};

/// How long what runs is kept against the word of another replica that said it earlier.
pub(crate) const HOLD: Duration = Duration::from_mins(5);

/// The same for a replica that is reached so soon after the followed one was lost.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Revisions that are remembered of one line, and of what ran.
const SAID_MAX: usize = 16;

/// One stream to an operator.
pub(crate) type LineId = u64;

/// A table without endpoints. Lines that say the same share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) revision: String,
    pub(crate) objects: Arc<Vec<String>>,
}

/// What the owner of the choice has to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Nothing,
    /// Compile this, and put it in force with these endpoints.
    Take(Offer, Endpoints),
    /// The same table, these endpoints.
    Move(Endpoints),
}

#[derive(Debug, Default)]
struct Line {
    offer: Option<(Offer, Duration)>,
    endpoints: Endpoints,
    /// Revisions before the last one.
    said: VecDeque<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Choice {
    lines: BTreeMap<LineId, Line>,
    followed: Option<LineId>,
    /// Handed on last, and when.
    current: Option<(Offer, Duration)>,
    /// Revisions that ran before.
    past: VecDeque<String>,
    endpoints: Endpoints,
    /// Until when the followed one's word is not taken.
    held_until: Option<Duration>,
    lost_at: Option<Duration>,
}

// === impl Offer ===

impl Offer {
    pub(crate) fn table(&self, endpoints: &Endpoints) -> Table {
        Table {
            revision: self.revision.clone(),
            objects: self.objects.as_ref().clone(),
            endpoints: Some(endpoints.clone()),
        }
    }
}

impl From<Table> for Offer {
    fn from(table: Table) -> Self {
        Self {
            revision: table.revision,
            objects: Arc::new(table.objects),
        }
    }
}

// === impl Choice ===

impl Choice {
    /// Nobody has said it; it was on disk.
    pub(crate) fn begin_with(&mut self, table: Table, now: Duration) -> Step {
        self.endpoints = table.endpoints.clone().unwrap_or_default();
        let offer = Offer::from(table);
        self.current = Some((offer.clone(), now));
        Step::Take(offer, self.endpoints.clone())
    }

    pub(crate) fn on_table(&mut self, id: LineId, mut table: Table, now: Duration) -> Step {
        let endpoints = table.endpoints.take().unwrap_or_default();
        let mut offer = Offer::from(table);
        if let Some((current, _)) = &self.current
            && *current == offer
        {
            offer = current.clone();
        }
        let line = self.lines.entry(id).or_default();
        line.endpoints = endpoints;
        if let Some((before, _)) = line.offer.replace((offer, now)) {
            remember(&mut line.said, before.revision);
        }
        match self.followed {
            None => self.begin_to_follow(id, now),
            Some(followed) if followed == id => self.take(id, now),
            Some(_) => Step::Nothing,
        }
    }

    pub(crate) fn on_endpoints(&mut self, id: LineId, endpoints: Endpoints) -> Step {
        let Some(line) = self.lines.get_mut(&id) else {
            return Step::Nothing;
        };
        line.endpoints = endpoints;
        if self.followed == Some(id) {
            self.endpoints_of(id)
        } else {
            Step::Nothing
        }
    }

    pub(crate) fn on_close(&mut self, id: LineId, now: Duration) -> Step {
        self.lines.remove(&id);
        if self.followed != Some(id) {
            return Step::Nothing;
        }
        self.change_over(now)
    }

    /// Call it now and then.
    pub(crate) fn on_time(&mut self, now: Duration) -> Step {
        match (self.held_until, self.followed) {
            (Some(until), Some(id)) if now >= until => self.take(id, now),
            _ => Step::Nothing,
        }
    }

    pub(crate) fn followed(&self) -> Option<LineId> {
        self.followed
    }

    /// The revision that was handed on last.
    pub(crate) fn current(&self) -> Option<&Offer> {
        self.current.as_ref().map(|(offer, _)| offer)
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Lines with a table of the same revision as the one handed on last.
    pub(crate) fn agrees(&self, id: LineId) -> bool {
        let offer = self.lines.get(&id).and_then(|line| line.offer.as_ref());
        match (offer, &self.current) {
            (Some((offer, _)), Some((current, _))) => offer.revision == current.revision,
            _ => false,
        }
    }

    pub(crate) fn has_table(&self, id: LineId) -> bool {
        self.lines.get(&id).is_some_and(|line| line.offer.is_some())
    }

    /// Nobody else has a table.
    fn begin_to_follow(&mut self, id: LineId, now: Duration) -> Step {
        self.followed = Some(id);
        let offer = self.lines.get(&id).and_then(|line| line.offer.as_ref());
        let is_past = offer.is_some_and(|(offer, _)| self.past.contains(&offer.revision));
        let is_soon = self
            .lost_at
            .is_some_and(|at| now.saturating_sub(at) < CATCH_UP);
        if is_past && is_soon && !self.agrees(id) {
            self.held_until = Some(now + CATCH_UP);
            return self.endpoints_of(id);
        }
        self.take(id, now)
    }

    /// What the followed line said last is what runs.
    fn take(&mut self, id: LineId, now: Duration) -> Step {
        self.held_until = None;
        if self.agrees(id) {
            return self.endpoints_of(id);
        }
        let line = self.lines.get(&id);
        let Some((line, (offer, _))) = line.and_then(|line| line.offer.as_ref().map(|o| (line, o)))
        else {
            return Step::Nothing;
        };
        let offer = offer.clone();
        self.endpoints = line.endpoints.clone();
        if let Some((before, _)) = self.current.replace((offer.clone(), now)) {
            remember(&mut self.past, before.revision);
        }
        Step::Take(offer, self.endpoints.clone())
    }

    fn endpoints_of(&mut self, id: LineId) -> Step {
        let Some(line) = self.lines.get(&id) else {
            return Step::Nothing;
        };
        let endpoints = match self.held_until {
            Some(_) => beside(&line.endpoints, &self.endpoints),
            None => line.endpoints.clone(),
        };
        if endpoints == self.endpoints {
            return Step::Nothing;
        }
        self.endpoints = endpoints;
        Step::Move(self.endpoints.clone())
    }

    /// The one that was followed has gone. Best is who says what runs; then who is ahead; then who spoke last.
    fn change_over(&mut self, now: Duration) -> Step {
        self.held_until = None;
        self.lost_at = Some(now);
        let with_table = self.lines.iter().filter(|(_, line)| line.offer.is_some());
        let best = with_table.max_by_key(|(id, line)| {
            let at = line.offer.as_ref().map(|(_, at)| *at);
            (self.agrees(**id), self.is_ahead(line), at)
        });
        let best = best.map(|(id, line)| (*id, self.agrees(*id) || self.is_ahead(line)));
        self.followed = best.map(|(id, _)| id);
        match best {
            None => Step::Nothing,
            Some((id, true)) => self.take(id, now),
            Some((id, false)) => {
                self.held_until = Some(now + HOLD);
                self.endpoints_of(id)
            }
        }
    }

    fn is_ahead(&self, line: &Line) -> bool {
        let Some((current, taken)) = &self.current else {
            return true;
        };
        let changed = |(offer, at): &(Offer, Duration)| {
            at > taken && !line.said.is_empty() && !self.past.contains(&offer.revision)
        };
        line.said.contains(&current.revision) || line.offer.as_ref().is_some_and(changed)
    }
}

fn remember(revisions: &mut VecDeque<String>, revision: String) {
    revisions.push_back(revision);
    if revisions.len() > SAID_MAX {
        revisions.pop_front();
    }
}

/// `said`, and of `known` the services that it does not name: another table may have them.
fn beside(said: &Endpoints, known: &Endpoints) -> Endpoints {
    let mut pools: BTreeMap<&str, &Pool> = BTreeMap::new();
    for pool in known.pools.iter().chain(&said.pools) {
        pools.insert(&pool.service, pool);
    }
    Endpoints {
        pools: pools.into_values().cloned().collect(),
    }
}

#[cfg(test)]
mod tests;
