//! Between the lines and the owner: carries out what [`Choice`] decides, and says to all operators what came of it.

mod disk;
mod lines;

use std::sync::Arc;
use std::time::Duration;

use opes_proto::routing::from_edge::Kind as FromEdgeKind;
use opes_proto::routing::from_operator::Kind as FromOperatorKind;
use opes_proto::routing::{Ack, Endpoints, Fault, FromOperator, Load, Nack, Table};
use opes_rules::RoutingTable;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::choice::{Choice, LineId, Offer, Step};
use crate::config::FollowerConfig;
use crate::follower::{LoadSource, Mailbox, Said, Update};
use crate::line::Word;
use crate::loads::{LOAD_LOOK_INTERVAL, Loads};
use crate::read::{FAULTS_MAX, of_the_table, read};
use crate::status::{Confirmed, Source, StatusView};
use disk::Disk;
use lines::Lines;

type Compiled = (Offer, Result<RoutingTable, Vec<Fault>>);

pub(crate) struct Hub {
    loads_now: LoadSource,
    mailbox: Arc<Mailbox>,
    status: StatusView,
    lines: Lines,
    disk: Disk,
    choice: Choice,
    loads: Loads,
    epoch: Instant,
    /// The revision in force.
    in_force: Option<String>,
    /// Handed to the owner, and not answered yet.
    awaited: Option<String>,
    /// The table refused last, and why: said again to whoever sends it again.
    refused: Option<(String, Vec<Fault>)>,
    compiling: Option<JoinHandle<Compiled>>,
    /// Wanted while another one was being compiled.
    compile_next: Option<Offer>,
}

// === impl Hub ===

impl Hub {
    pub(crate) fn new(
        config: FollowerConfig,
        loads_now: LoadSource,
        mailbox: Arc<Mailbox>,
        status: StatusView,
        stop: CancellationToken,
    ) -> Self {
        Self {
            loads_now,
            mailbox,
            status,
            disk: Disk::new(config.cache.clone(), config.patience),
            lines: Lines::new(config, stop),
            choice: Choice::default(),
            loads: Loads::default(),
            epoch: Instant::now(),
            in_force: None,
            awaited: None,
            refused: None,
            compiling: None,
            compile_next: None,
        }
    }

    /// Until dropped.
    pub(crate) async fn run(mut self, mut heard: mpsc::Receiver<Said>) {
        let mut looks = tokio::time::interval(LOAD_LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.lines.call_first();
        loop {
            tokio::select! {
                (id, word) = self.lines.next() => self.on_word(id, word),
                Some(said) = heard.recv() => self.on_said(said),
                compiled = finished(&mut self.compiling) => self.on_compiled(compiled),
                _ = looks.tick() => self.on_time().await,
            }
            self.show();
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    // ---- from the operators --------------------------------------------------------------------------------------

    fn on_word(&mut self, id: LineId, word: Word) {
        match word {
            Word::Opened(outbox) => {
                let running = self.in_force.clone().unwrap_or_default();
                self.lines.opened(id, outbox, running, self.loads.said());
            }
            Word::Said(said) => self.on_message(id, *said),
            Word::Closed(reason) => {
                self.lines.closed(id, &reason);
                let step = self.choice.on_close(id, self.now());
                self.apply(step);
                self.lines.use_peers_of(self.choice.followed());
            }
        }
        self.keep_lines();
    }

    fn on_message(&mut self, id: LineId, said: FromOperator) {
        let now = self.now();
        match said.kind {
            Some(FromOperatorKind::Table(table)) => {
                self.answer_again(id, &table);
                let step = self.choice.on_table(id, table, now);
                self.lines.in_order(id);
                self.apply(step);
                self.lines.use_peers_of(self.choice.followed());
            }
            Some(FromOperatorKind::Endpoints(endpoints)) => {
                let step = self.choice.on_endpoints(id, endpoints);
                self.apply(step);
            }
            Some(FromOperatorKind::Peers(peers)) => {
                self.lines.keep_peers(id, peers);
                let followed = self.choice.followed();
                self.lines.use_peers_of(Some(followed.unwrap_or(id)));
            }
            // Of a later version.
            None => {}
        }
    }

    /// Whoever sends what was decided on already hears the decision.
    fn answer_again(&mut self, id: LineId, table: &Table) {
        if self.in_force.as_ref() == Some(&table.revision) {
            self.lines.say_to(id, ack(&table.revision));
        } else if let Some((revision, faults)) = &self.refused
            && *revision == table.revision
        {
            self.lines.say_to(id, nack(revision, faults));
        }
    }

    /// New lines to new replicas; the first address is called only while no replica can be reached by itself.
    fn keep_lines(&mut self) {
        let carried = self.lines.peers().any(|id| {
            self.choice.has_table(id) && (self.choice.agrees(id) || !self.follows_first())
        });
        if carried {
            if let Some(id) = self.lines.hang_up_first() {
                let step = self.choice.on_close(id, self.now());
                self.apply(step);
            }
        } else {
            self.lines.call_first();
        }
        for id in self.lines.hang_up_unwanted() {
            let step = self.choice.on_close(id, self.now());
            self.apply(step);
        }
    }

    fn follows_first(&self) -> bool {
        self.choice.followed() == self.lines.first()
    }

    // ---- tables --------------------------------------------------------------------------------------------------

    fn apply(&mut self, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Move(endpoints) => {
                self.mailbox.put_endpoints(endpoints);
                self.disk.endpoints_changed();
            }
            Step::Take(offer, endpoints) => {
                let runs =
                    self.awaited.is_none() && self.in_force.as_ref() == Some(&offer.revision);
                if runs {
                    self.lines.say(&ack(&offer.revision));
                    self.mailbox.put_endpoints(endpoints);
                } else {
                    self.compile(offer);
                }
            }
        }
    }

    /// One at a time; of those that wait, the newest.
    fn compile(&mut self, offer: Offer) {
        if self.compiling.is_some() {
            self.compile_next = Some(offer);
            return;
        }
        self.compiling = Some(tokio::task::spawn_blocking(move || {
            let compiled = read(&offer.table(&Endpoints::default()));
            (offer, compiled)
        }));
    }

    fn on_compiled(&mut self, compiled: Option<Compiled>) {
        if let Some(next) = self.compile_next.take() {
            // Nobody wants this one any more.
            self.compile(next);
            return;
        }
        let Some((offer, compiled)) = compiled else {
            return;
        };
        if self.choice.current() != Some(&offer) {
            return;
        }
        match compiled {
            Ok(table) => {
                self.awaited = Some(offer.revision.clone());
                let source = self.source(&offer.revision);
                self.mailbox.put_table(Update {
                    table,
                    endpoints: self.choice.endpoints().clone(),
                    source,
                });
            }
            Err(faults) => self.refuse(offer.revision, faults),
        }
    }

    fn refuse(&mut self, revision: String, mut faults: Vec<Fault>) {
        faults.truncate(FAULTS_MAX);
        let first = faults.first().cloned().unwrap_or_default();
        tracing::error!(
            revision,
            faults = faults.len(),
            kind = first.kind,
            name = first.name,
            first = first.message,
            "routing table refused, the last good one stays"
        );
        if self.disk.give_up(&revision) {
            // No operator has said it.
            return;
        }
        self.status.change(|facts| facts.status.refused += 1);
        self.lines.say(&nack(&revision, &faults));
        self.refused = Some((revision, faults));
        // What runs may have moved all the same.
        self.mailbox.put_endpoints(self.choice.endpoints().clone());
    }

    // ---- from the owner ------------------------------------------------------------------------------------------

    fn on_said(&mut self, said: Said) {
        match said {
            Said::InForce(revision) => {
                self.answered(&revision);
                self.lines.say(&ack(&revision));
                self.status.change(|facts| facts.status.taken += 1);
                if self
                    .refused
                    .as_ref()
                    .is_some_and(|(wrong, _)| *wrong == revision)
                {
                    self.refused = None;
                }
                tracing::info!(revision, "routing table in force");
                self.in_force = Some(revision);
                self.disk.table_changed();
                self.keep();
            }
            Said::Refused(revision, faults) => {
                self.answered(&revision);
                let faults = if faults.is_empty() {
                    vec![of_the_table("the edge cannot run it")]
                } else {
                    faults
                };
                self.refuse(revision, faults);
            }
        }
    }

    fn answered(&mut self, revision: &str) {
        if self.awaited.as_deref() == Some(revision) {
            self.awaited = None;
        }
    }

    // ---- time ----------------------------------------------------------------------------------------------------

    async fn on_time(&mut self) {
        let now = self.now();
        if let Some(pools) = self.loads.look((self.loads_now)(), now) {
            let pools = pools.to_vec();
            self.lines.say(&FromEdgeKind::Load(Load { pools }));
        }
        let step = self.choice.on_time(now);
        self.apply(step);
        self.begin_from_disk(now).await;
        self.keep();
        if self.is_confirmed() {
            self.disk.confirm(now);
        }
    }

    /// Nothing runs, and no operator brought anything that could.
    async fn begin_from_disk(&mut self, now: Duration) {
        let idle = self.in_force.is_none() && self.awaited.is_none() && self.compiling.is_none();
        let nobody = self.choice.followed().is_none() || self.refused.is_some();
        if !idle || !nobody {
            return;
        }
        if let Some(cached) = self.disk.begin(now).await {
            self.status.change(|facts| {
                facts.confirmed = Confirmed::Before(Instant::now(), cached.age);
            });
            let step = self.choice.begin_with(cached.table, now);
            self.apply(step);
        }
    }

    /// Writes what is in force, if it is not on disk yet.
    fn keep(&mut self) {
        let now = self.now();
        if let Some(current) = self.choice.current()
            && Some(&current.revision) == self.in_force.as_ref()
        {
            self.disk.keep(now, current, self.choice.endpoints());
        }
    }

    // ---- for others to see ---------------------------------------------------------------------------------------

    fn source(&self, revision: &str) -> Source {
        if self.disk.is_from_disk(revision) {
            Source::Cache
        } else {
            Source::Stream
        }
    }

    /// The operator that is followed says what is in force.
    fn is_confirmed(&self) -> bool {
        let current = self.choice.current().map(|offer| &offer.revision);
        let followed = self.choice.followed();
        self.in_force.is_some()
            && current == self.in_force.as_ref()
            && followed.is_some_and(|id| self.choice.agrees(id))
    }

    fn show(&mut self) {
        let confirmed = self.is_confirmed();
        if confirmed {
            self.disk.confirmed();
        }
        let revision = self.in_force.clone().unwrap_or_default();
        let source = self.in_force.as_ref().map(|revision| self.source(revision));
        let followed = self.choice.followed().and_then(|id| self.lines.name(id));
        let (connected, trouble) = (self.lines.connected(), self.lines.trouble());
        self.status.change(|facts| {
            facts.status.connected = connected;
            facts.status.followed = followed;
            facts.status.revision = revision;
            facts.status.source = source;
            facts.status.trouble = trouble;
            if confirmed {
                facts.confirmed = Confirmed::Now;
            } else {
                facts.confirmed.lapse();
            }
        });
    }
}

fn ack(revision: &str) -> FromEdgeKind {
    FromEdgeKind::Ack(Ack {
        revision: revision.to_owned(),
    })
}

fn nack(revision: &str, faults: &[Fault]) -> FromEdgeKind {
    FromEdgeKind::Nack(Nack {
        revision: revision.to_owned(),
        faults: faults.to_vec(),
    })
}

/// Pending while nothing is being compiled. Nothing comes of a compiler that panicked.
async fn finished(compiling: &mut Option<JoinHandle<Compiled>>) -> Option<Compiled> {
    let Some(task) = compiling else {
        return std::future::pending().await;
    };
    let compiled = task.await;
    *compiling = None;
    compiled
        .inspect_err(|error| tracing::error!(%error, "a routing table broke the compiler"))
        .ok()
}
