//! The handle: routes messages to lanes, starts workers, stops everything.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opes_content::View;
use opes_smtp::reply::Reply;
use opes_spool::{Envelope, Queued, Recipient, Spool};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{RelayConfig, Route};
use crate::connection::Peer;
use crate::delayed::Delayed;
use crate::job::{Job, Origin};
use crate::lane::{Lane, Target};
use crate::maildir;
use crate::source::Source;
use crate::tls::Tls;
use crate::worker::Worker;

/// The relay. Clones are handles of the same one; it works until [`Relay::shutdown`].
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

/// What the handle, the workers and the delayed messages have in common.
pub(crate) struct Shared {
    pub(crate) config: RelayConfig,
    pub(crate) spool: Spool,
    pub(crate) delayed: Delayed,
    /// One permit a connection, over all next hops.
    pub(crate) connections: Arc<Semaphore>,
    /// Somebody has none: an idle one is to be given up.
    pub(crate) connection_wanted: Notify,
    /// No new attempts.
    pub(crate) stopping: CancellationToken,
    /// Nor those under way.
    abort: CancellationToken,
    tasks: TaskTracker,
    main: Arc<Lane>,
    /// Lanes of next hops that recipients brought along.
    lanes: Mutex<HashMap<Target, Arc<Lane>>>,
    tls: Tls,
    tls_config: Option<Arc<rustls::ClientConfig>>,
    /// Parts of stored messages that are not closed.
    backlog: AtomicUsize,
}

// === impl Relay ===

impl Relay {
    /// Starts with what recovery of the spool found. Must be called within a tokio runtime.
    pub fn start(config: RelayConfig, spool: Spool, recovered: Vec<Queued>) -> Self {
        let shared = Arc::new(Shared::new(config, spool));
        let delayed = Arc::clone(&shared);
        shared.spawn(async move {
            let run = delayed.delayed.run(&delayed);
            delayed.stopping.run_until_cancelled(run).await;
        });
        for queued in recovered {
            shared.enqueue(&queued, true);
        }
        Self { shared }
    }

    /// Takes over the delivery of a message that was just stored. Never refuses and never waits: that is for
    /// [`Relay::unhealthy_reason`] to prevent.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the relay owns the delivery from here on"
    )]
    pub fn enqueue(&self, queued: Queued) {
        self.shared.enqueue(&queued, false);
    }

    /// Cut-through: delivers while the caller waits, and gives one reply per recipient of the envelope. The view may still grow.
    /// Nothing is stored; dropping the future before the content is complete leaves nothing behind.
    pub async fn deliver(&self, envelope: &Envelope, view: &View) -> Vec<Reply> {
        self.deliver_live(envelope, view, false).await
    }

    /// As [`Relay::deliver`], for a client that can be given one reply only: the next hop gets the content if it accepts every recipient,
    /// otherwise nobody gets it and all replies are the worst one. `None`, and nothing was tried: the envelope cannot have one fate,
    /// since its recipients go to different next hops, or several of them to one that speaks LMTP.
    pub async fn deliver_to_all(&self, envelope: &Envelope, view: &View) -> Option<Vec<Reply>> {
        let all: Vec<u32> = (0..).take(envelope.recipients.len()).collect();
        match self.shared.routes(envelope, &all).as_slice() {
            [(Target::NextHop { lmtp: false, .. }, _)] => {}
            [_] if all.len() == 1 => {}
            _ => return None,
        }
        Some(self.deliver_live(envelope, view, true).await)
    }

    async fn deliver_live(
        &self,
        envelope: &Envelope,
        view: &View,
        all_or_none: bool,
    ) -> Vec<Reply> {
        let envelope = Arc::new(envelope.clone());
        let all: Vec<u32> = (0..).take(envelope.recipients.len()).collect();
        let mut replies = vec![Reply::LOCAL_ERROR; all.len()];
        let parts = self.shared.routes(&envelope, &all);
        let parts: Vec<_> = parts
            .into_iter()
            .map(|(target, recipients)| {
                self.shared
                    .deliver_part(&envelope, view, target, recipients, all_or_none)
            })
            .collect();
        for (recipients, answer) in parts {
            // No answer: the relay stops.
            let part = answer.await.unwrap_or_default();
            for (index, reply) in recipients.into_iter().zip(part) {
                if let Some(place) = replies.get_mut(index as usize) {
                    *place = reply;
                }
            }
        }
        replies
    }

    /// Messages, or parts of them that go separate ways, that are held for delivery.
    pub fn backlog(&self) -> usize {
        self.shared.backlog.load(Ordering::Relaxed)
    }

    /// Why no more messages should be accepted for the spool just now, for a 452 reply.
    pub fn unhealthy_reason(&self) -> Option<&'static str> {
        (self.backlog() >= self.shared.config.backlog_max)
            .then_some("too many messages wait for delivery")
    }

    /// Begins no more attempts, lets those under way finish for at most `patience`, then breaks them off. What is not settled
    /// stays in the spool.
    pub async fn shutdown(&self, patience: Duration) {
        let shared = &self.shared;
        shared.stopping.cancel();
        shared.clear();
        shared.tasks.close();
        if timeout(patience, shared.tasks.wait()).await.is_err() {
            tracing::warn!(
                "deliveries under way are broken off; they are tried again after the next start"
            );
            shared.abort.cancel();
            shared.tasks.wait().await;
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("route", &self.shared.config.route)
            .field("backlog", &self.backlog())
            .finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn new(config: RelayConfig, spool: Spool) -> Self {
        let (target, workers, tls) = match &config.route {
            Route::Maildir { .. } => (Target::Maildir, maildir::WORKERS, Tls::default()),
            Route::NextHop {
                host,
                port,
                lmtp,
                tls,
            } => {
                let target = Target::NextHop {
                    host: host.clone(),
                    port: *port,
                    lmtp: *lmtp,
                };
                (target, config.connections_max, tls.clone())
            }
        };
        Self {
            spool,
            delayed: Delayed::default(),
            connections: Arc::new(Semaphore::new(config.connections_total_max.max(1))),
            connection_wanted: Notify::new(),
            stopping: CancellationToken::new(),
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
            main: Arc::new(Lane::new(target, workers)),
            lanes: Mutex::default(),
            tls_config: tls.client_config(),
            tls,
            backlog: AtomicUsize::new(0),
            config,
        }
    }

    pub(crate) fn enqueue(self: &Arc<Self>, queued: &Queued, suspect: bool) {
        for (target, recipients) in self.routes(&queued.envelope, &queued.pending) {
            self.backlog.fetch_add(1, Ordering::Relaxed);
            self.push(Job::stored(queued, target, recipients, suspect));
        }
    }

    fn deliver_part(
        self: &Arc<Self>,
        envelope: &Arc<Envelope>,
        view: &View,
        target: Target,
        recipients: Vec<u32>,
        all_or_none: bool,
    ) -> (Vec<u32>, oneshot::Receiver<Vec<Reply>>) {
        let (answer, answered) = oneshot::channel();
        self.push(Job {
            envelope: Arc::clone(envelope),
            source: Source::Live(view.clone()),
            recipients: recipients.clone(),
            target,
            origin: Origin::Client(answer),
            all_or_none,
        });
        (recipients, answered)
    }

    /// Which recipients go where.
    fn routes(&self, envelope: &Envelope, pending: &[u32]) -> Vec<(Target, Vec<u32>)> {
        let hop = |index: &u32| {
            envelope
                .recipients
                .get(*index as usize)
                .and_then(|to: &Recipient| to.next_hop.as_ref())
        };
        if pending.iter().all(|index| hop(index).is_none()) {
            return vec![(self.main.target.clone(), pending.to_vec())];
        }
        let mut routes: Vec<(Target, Vec<u32>)> = Vec::new();
        for index in pending {
            let target = hop(index).map_or_else(|| self.main.target.clone(), Target::from);
            match routes.iter_mut().find(|(known, _)| *known == target) {
                Some((_, recipients)) => recipients.push(*index),
                None => routes.push((target, vec![*index])),
            }
        }
        routes
    }

    /// Queues a message for an attempt. When the relay stops, it is dropped: the spool, or the client, still has it.
    pub(crate) fn push(self: &Arc<Self>, job: Job) {
        if self.stopping.is_cancelled() {
            return;
        }
        let lane = self.lane(&job.target);
        if lane.push(job) {
            self.start_worker(&lane);
        }
        // Stopped in between: nobody else would clear it.
        if self.stopping.is_cancelled() {
            lane.clear();
        }
    }

    fn lane(&self, target: &Target) -> Arc<Lane> {
        if *target == self.main.target {
            return Arc::clone(&self.main);
        }
        let new = || Arc::new(Lane::new(target.clone(), self.config.connections_max));
        Arc::clone(self.lanes().entry(target.clone()).or_insert_with(new))
    }

    /// Starts a worker that the lane asked for.
    pub(crate) fn start_worker(self: &Arc<Self>, lane: &Arc<Lane>) {
        match &lane.target {
            Target::Maildir => {
                let worker = maildir::Worker::new(Arc::clone(self), Arc::clone(lane));
                self.spawn(worker.run());
            }
            Target::NextHop { host, port, lmtp } => {
                let peer = self.peer(host, *port, *lmtp);
                let worker = Worker::new(Arc::clone(self), Arc::clone(lane), peer);
                self.spawn(worker.run());
            }
        }
    }

    fn peer(&self, host: &str, port: u16, lmtp: bool) -> Peer {
        Peer {
            network: self.config.host.network.clone(),
            host: host.to_owned(),
            port,
            lmtp,
            hostname: self.config.hostname.clone(),
            tls_mode: self.tls.mode(),
            tls: self.tls_config.clone(),
            timeouts: self.config.timeouts,
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let abort = self.abort.clone();
        self.tasks.spawn(async move {
            abort.run_until_cancelled(work).await;
        });
    }

    /// Forgets a lane nobody uses. Whoever still holds it can go on using it.
    pub(crate) fn forget(&self, lane: &Lane) {
        let mut lanes = self.lanes();
        if lanes
            .get(&lane.target)
            .is_some_and(|known| known.is_unused())
        {
            lanes.remove(&lane.target);
        }
    }

    /// To spread retries.
    pub(crate) fn random(&self) -> u64 {
        self.config.host.random.next_u64()
    }

    /// A part of a stored message is through.
    pub(crate) fn closed_one(&self) {
        self.backlog.fetch_sub(1, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.main.clear();
        self.lanes().values().for_each(|lane| lane.clear());
    }

    /// Held for moments only, never across a wait.
    fn lanes(&self) -> MutexGuard<'_, HashMap<Target, Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
