//! The connections of one service: carries out what [`crate::balance`] decides.
//!
//! A task, the keeper, dials and lets go; another looks names up. Both start with the first transaction, sleep while
//! nobody calls, and end with the pool. A transaction waits for a place, within bounds, or fails at once with the reason.

use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opes_host::Random;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::balance::{
    Attempt, Balancer, Bounds, Condition, Connected, Ended, Loss, Pick, Refusal, Snapshot, Ticket,
};
use crate::config::{ServiceClientConfig, Source};
use crate::connection::Handle;
use crate::error::CalloutError;
use crate::naming::Naming;

mod keeper;
mod names;
mod notes;

/// A waiting transaction looks again at least this often: whoever it was woken for may have taken the place.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

type Core = Balancer<Arc<Handle>>;

/// Shared by the clones of a client, its tasks and its transactions.
#[derive(Debug)]
pub(crate) struct Pool {
    config: ServiceClientConfig,
    core: Mutex<Core>,
    sources: Mutex<Arc<[Source]>>,
    /// Places may have become free, connections may have come or gone.
    changed: Notify,
    keeper: Arc<Notify>,
    names: Arc<Notify>,
    started: AtomicBool,
    random: Random,
    epoch: Instant,
}

/// A transaction's place on a connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pool: Arc<Pool>,
    ticket: Ticket,
}

impl Pool {
    pub(crate) fn new(config: ServiceClientConfig) -> Arc<Self> {
        let bounds = Bounds {
            in_flight_max: config.max_in_flight.max(1),
            queued_max: config.max_queued,
            connections_max: config.connections.max(1),
            keep: config.connection_idle,
            instance_patience: config.awaits_instances.then_some(config.connect_timeout),
        };
        let sources = sources(&config.endpoints, None);
        // A sequence of its own: asking the system each time would cost more than the choice.
        let random = Random::seeded(config.host.random.next_u64());
        let pool = Self {
            config,
            core: Mutex::new(Balancer::new(bounds, Duration::ZERO)),
            sources: Mutex::new(Arc::clone(&sources)),
            changed: Notify::new(),
            keeper: Arc::new(Notify::new()),
            names: Arc::new(Notify::new()),
            started: AtomicBool::new(false),
            random,
            epoch: Instant::now(),
        };
        pool.use_sources(&sources);
        Arc::new(pool)
    }

    /// The service as it is reached now, for errors.
    pub(crate) fn naming(&self) -> Naming {
        let sources = self.sources();
        let targets: Vec<String> = sources.iter().map(ToString::to_string).collect();
        Naming {
            service: self.config.name.clone(),
            target: targets.join(", "),
            host: None,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.core().snapshot(self.now())
    }

    // ---- endpoints -----------------------------------------------------------------------------------------------

    pub(crate) fn set_endpoints(&self, endpoints: &[String], name: Option<&str>) {
        let sources = sources(endpoints, name);
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&sources);
        self.use_sources(&sources);
        self.keeper.notify_one();
        self.names.notify_one();
        self.changed.notify_waiters();
    }

    /// Fixed ones are in force at once; with names among them, all wait for the first answer.
    fn use_sources(&self, sources: &[Source]) {
        let fixed = sources.iter().map(|source| match source {
            Source::Fixed(address) => Some(address.clone()),
            Source::Name { .. } => None,
        });
        match fixed.collect::<Option<Vec<_>>>() {
            Some(addresses) => self.core().set_endpoints(addresses),
            None => self.core().await_names(),
        }
    }

    fn sources(&self) -> Arc<[Source]> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&sources)
    }

    // ---- transactions --------------------------------------------------------------------------------------------

    pub(crate) fn attempt(&self) -> Attempt {
        let now = self.now();
        self.core().note_transaction(now);
        Attempt {
            arrived: now,
            avoid: Vec::new(),
        }
    }

    pub(crate) fn may_retry(&self) -> bool {
        self.core().may_retry(self.now())
    }

    /// A place on a connection. Waits for one while there may be one soon.
    pub(crate) async fn place(
        self: &Arc<Self>,
        attempt: &Attempt,
    ) -> Result<(Arc<Handle>, Place), CalloutError> {
        self.start();
        // Nobody overtakes those who wait.
        let mut first = if self.core().has_queue() {
            Pick::Wait
        } else {
            self.pick(attempt)
        };
        if let Pick::Wait = first {
            let _waiting = Waiting::enter(self)?;
            first = self
                .wait_for(|core, now, random| core.pick(attempt, now, random))
                .await;
        }
        match first {
            Pick::Place { ticket, handle } => {
                let pool = Arc::clone(self);
                Ok((handle, Place { pool, ticket }))
            }
            Pick::Refused(refusal) => Err(self.refused(&refusal)),
            Pick::Wait => Err(self.naming().unavailable("it is not connected")),
        }
    }

    /// An open connection, whether it has a free place or not.
    pub(crate) async fn any(self: &Arc<Self>) -> Result<Arc<Handle>, CalloutError> {
        self.start();
        let attempt = Attempt {
            arrived: self.now(),
            avoid: Vec::new(),
        };
        match self.wait_for(|core, now, _| core.any(&attempt, now)).await {
            Pick::Place { handle, .. } => Ok(handle),
            Pick::Refused(refusal) => Err(self.refused(&refusal)),
            Pick::Wait => Err(self.naming().unavailable("it is not connected")),
        }
    }

    fn pick(&self, attempt: &Attempt) -> Pick<Arc<Handle>> {
        self.decide(|core, now, random| core.pick(attempt, now, random))
    }

    fn decide<T>(&self, decide: impl FnOnce(&mut Core, Duration, u64) -> T) -> T {
        let (now, random) = (self.now(), self.random.next_u64());
        let mut core = self.core();
        let decided = decide(&mut core, now, random);
        let wake = core.take_wake();
        drop(core);
        if wake {
            self.keeper.notify_one();
            self.names.notify_one();
        }
        decided
    }

    /// Never gives back [`Pick::Wait`].
    async fn wait_for(
        &self,
        decide: impl Fn(&mut Core, Duration, u64) -> Pick<Arc<Handle>>,
    ) -> Pick<Arc<Handle>> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            match self.decide(&decide) {
                Pick::Wait => {}
                done => return done,
            }
            let _late = tokio::time::timeout(LOOK_AGAIN, changed).await;
        }
    }

    fn refused(&self, refusal: &Refusal) -> CalloutError {
        let naming = self.naming();
        match refusal {
            Refusal::Unreachable {
                endpoints: 1,
                error: Some(error),
            } => error.clone(),
            Refusal::Unreachable {
                endpoints,
                error: Some(error),
            } => naming.unavailable(format!(
                "none of its {endpoints} endpoints can be reached; one of them: {error}"
            )),
            Refusal::Unreachable { error: None, .. } => naming.unavailable("it is not connected"),
            Refusal::NoEndpoints(reason) => naming.unavailable(reason),
            Refusal::BreakerOpen => naming.unavailable(
                "it failed again and again, so it is only probed for a while; see its log",
            ),
            Refusal::Full { in_flight, queued } => naming.unavailable(format!(
                "{in_flight} transactions are open and {queued} wait; add instances, or raise limits.maxInFlight or \
                 limits.maxQueued"
            )),
        }
    }

    /// A connection's condition may have changed; all who wait look again.
    fn on_change(&self) {
        self.changed.notify_waiters();
        notes::log(&self.config.name, self.core().take_notes());
    }
}

fn sources(endpoints: &[String], name: Option<&str>) -> Arc<[Source]> {
    endpoints.iter().map(|e| Source::parse(e, name)).collect()
}

// === impl Place ===

impl Place {
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let pool = &self.pool;
        let mut core = pool.core();
        core.release(self.ticket, pool.now());
        let queue = core.has_queue();
        drop(core);
        if queue {
            pool.changed.notify_one();
        }
    }
}

impl Pool {
    /// What became of the transaction that had this ticket.
    pub(crate) fn ended(&self, ticket: Ticket, ended: Ended) {
        let now = self.now();
        let mut core = self.core();
        core.ended(ticket, ended, now);
        let notes = core.take_notes();
        drop(core);
        if !notes.is_empty() {
            self.changed.notify_waiters();
            notes::log(&self.config.name, notes);
        }
    }
}

/// One of those who wait.
struct Waiting<'a>(&'a Pool);

impl<'a> Waiting<'a> {
    fn enter(pool: &'a Pool) -> Result<Self, CalloutError> {
        let entered = pool.core().enter_queue();
        entered.map_err(|refusal| pool.refused(&refusal))?;
        Ok(Self(pool))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.core().leave_queue();
    }
}

impl Connected for Arc<Handle> {
    fn condition(&self) -> Condition {
        Handle::condition(self)
    }

    fn loss(&self) -> Loss {
        Handle::loss(self)
    }
}
