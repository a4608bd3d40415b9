//! The task of one connection: owns the OCP core, joins callers and stream. Whatever is ready at once goes into one frame.
//!
//! It always reads, also when writing is blocked, so two ends that both have much to say never wait for each other.
//! It ends when the connection does; every transaction that is open then, or still queued, is answered.

mod inbound;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use opes_ocp::{Failure, Processor, StartTransaction};
use opes_proto::ocp::{Frame, Message};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::ask::{Ask, Lost, Open};
use crate::availability::Availability;
use crate::balance::{Loss, NotOpened};
use crate::groups::Groups;
use crate::naming::Naming;
use crate::negotiated::Negotiated;
use crate::pulse::{Beat, Pulse};
use crate::tls;
use crate::transaction::Transaction;
use crate::wire::{self, Outgoing};

/// Octets that may wait for the stream before callers have to.
const OUTGOING_OCTETS_MAX: usize = 1024 * 1024;

/// Asks and frames taken in one go before output is looked at.
const BATCH_MAX: usize = 64;

/// Time budgets are also kept by the callers; this finds what has got stuck. The pulse is counted in it.
const TICK: Duration = Duration::from_millis(250);

/// A service that has closed one direction of the stream may take so long to say why on the other.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a connection is made of.
pub(crate) struct Parts {
    pub(crate) core: Processor,
    pub(crate) asks: mpsc::UnboundedReceiver<Ask>,
    pub(crate) frames: mpsc::Sender<Frame>,
    pub(crate) inbound: Streaming<Frame>,
    pub(crate) ready: oneshot::Sender<Result<Negotiated, NotOpened>>,
    pub(crate) availability: Arc<Availability>,
    pub(crate) naming: Arc<Naming>,
    pub(crate) idle_timeout: Duration,
    pub(crate) epoch: Instant,
    pub(crate) tls: Option<tls::Link>,
}

pub(crate) struct Task {
    core: Processor,
    ready: Option<oneshot::Sender<Result<Negotiated, NotOpened>>>,
    availability: Arc<Availability>,
    naming: Arc<Naming>,
    service_uri: String,
    transactions: HashMap<u32, Transaction>,
    groups: Groups,
    outgoing: Outgoing,
    staging: Vec<Message>,
    /// What the network said when the stream went away.
    lost: String,
    /// Ended with the connection; answered when its reason is known.
    orphans: Vec<Transaction>,
    epoch: Instant,
    pulse: Pulse,
    idle_timeout: Duration,
}

/// Both directions of the transport.
struct Stream {
    frames: mpsc::Sender<Frame>,
    inbound: Streaming<Frame>,
}

/// When the connection should be replaced by another one; without TLS never.
async fn over(tls: Option<tls::Link>) {
    match tls {
        Some(link) => link.over().await,
        None => std::future::pending().await,
    }
}

/// Runs a connection to its end.
pub(crate) async fn run(parts: Parts) {
    let Parts {
        core,
        mut asks,
        frames,
        inbound,
        ready,
        availability,
        naming,
        epoch,
        tls,
        ..
    } = parts;
    let service_uri = format!("https://opes.dev/ns/service/{}", naming.service);
    let mut task = Task {
        core,
        ready: Some(ready),
        availability,
        naming,
        service_uri,
        transactions: HashMap::new(),
        groups: Groups::default(),
        outgoing: Outgoing::default(),
        staging: Vec::new(),
        lost: String::new(),
        orphans: Vec::new(),
        epoch,
        pulse: Pulse::default(),
        idle_timeout: parts.idle_timeout,
    };
    let stream = Stream { frames, inbound };
    task.drive(&mut asks, stream, tls).await;
    task.answer_queued(&mut asks);
}

impl Task {
    async fn drive(
        &mut self,
        asks: &mut mpsc::UnboundedReceiver<Ask>,
        Stream {
            frames,
            mut inbound,
        }: Stream,
        tls: Option<tls::Link>,
    ) {
        let mut over = pin!(over(tls));
        let mut renewed = false;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut deserted = false;
        // The service reads no more since then. What it said before is still on its way, and is the reason.
        let mut deaf: Option<Instant> = None;
        loop {
            if deaf.is_none() {
                self.take_asks(asks);
                self.send_ready(&frames);
            }
            if self.core.has_ended() {
                self.answer_queued(asks);
                deserted = true;
                if self.outgoing.is_empty() || deaf.is_some() {
                    return;
                }
            }
            let room = deaf.is_none() && self.outgoing.octets() < OUTGOING_OCTETS_MAX;
            // In order, so that a simulation can be repeated. Nobody starves: each round serves callers and transport above.
            tokio::select! {
                biased;
                _ = ticks.tick() => match deaf {
                    Some(since) if since.elapsed() >= LAST_WORDS => self.stream_lost("the stream was closed"),
                    _ => self.tick(),
                },
                frame = inbound.message(), if !self.core.has_ended() => self.on_inbound(frame),
                ask = asks.recv(), if room && !deserted => if let Some(ask) = ask {
                    self.on_ask(ask);
                } else {
                    // All handles are gone: nobody can start anything.
                    deserted = true;
                    self.retire(Loss::Drained);
                },
                permit = frames.reserve(), if deaf.is_none() && !self.outgoing.is_empty() => match permit {
                    Ok(permit) => permit.send(self.outgoing.next_frame()),
                    Err(_closed) => deaf = Some(Instant::now()),
                },
                () = &mut over, if !renewed => {
                    renewed = true;
                    self.retire(Loss::Drained);
                }
            }
        }
    }

    fn take_asks(&mut self, asks: &mut mpsc::UnboundedReceiver<Ask>) {
        for _ in 0..BATCH_MAX {
            if self.core.has_ended() || self.outgoing.octets() >= OUTGOING_OCTETS_MAX {
                return;
            }
            let Ok(ask) = asks.try_recv() else { return };
            self.on_ask(ask);
            self.collect();
        }
    }

    fn send_ready(&mut self, frames: &mpsc::Sender<Frame>) {
        self.collect();
        while !self.outgoing.is_empty() {
            let Ok(permit) = frames.try_reserve() else {
                return;
            };
            permit.send(self.outgoing.next_frame());
        }
    }

    /// Moves the core's output on and counts it for its transactions.
    fn collect(&mut self) {
        self.on_events();
        self.core.drain_output(&mut self.staging);
        for message in self.staging.drain(..) {
            let xid = wire::xid(&message);
            let octets = self.outgoing.push(message);
            if let Some(t) = xid.and_then(|xid| self.transactions.get_mut(&xid)) {
                t.octets_sent += octets as u64;
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn tick(&mut self) {
        let now = self.now_ms();
        self.core.tick(now);
        if self.ready.is_some() || self.core.has_ended() {
            return;
        }
        self.end_stalled();
        match self.pulse.tick(!self.transactions.is_empty()) {
            Beat::Fine => {}
            Beat::Ask => {
                let quietest = self.quietest();
                // The core has not ended, so it takes the query.
                let _asked = self.core.progress_query(quietest);
            }
            Beat::Unresponsive => self.availability.set_responsive(false),
            Beat::Lost => self.stream_lost("a progress query was not answered"),
        }
    }

    /// What has not moved for longest.
    fn quietest(&mut self) -> Option<u32> {
        let now = self.epoch.elapsed();
        let quiet = self.transactions.iter_mut();
        let quiet = quiet.map(|(xid, t)| (t.stalled_for(now), *xid));
        quiet.max().map(|(_, xid)| xid)
    }

    /// Gives up what does not move, however lively the connection is (RFC 4037 §2.7).
    fn end_stalled(&mut self) {
        let (now, limit) = (self.epoch.elapsed(), self.idle_timeout);
        let stalled = self.transactions.iter_mut();
        let stalled = stalled.filter_map(|(xid, t)| (t.stalled_for(now) >= limit).then_some(*xid));
        for xid in stalled.collect::<Vec<_>>() {
            let reason = format!(
                "nothing moved for {} ms (limits.idleTimeout)",
                limit.as_millis()
            );
            self.answer(xid, |naming| Lost::Stalled(naming.unavailable(&reason)));
            let _ended = self.core.abort(xid, "no progress");
        }
    }

    /// Takes nothing new; ends with the last transaction.
    fn retire(&mut self, loss: Loss) {
        self.availability.close(loss);
        self.core.drain();
    }

    // ---- callers -------------------------------------------------------------------------------------------------

    fn on_ask(&mut self, ask: Ask) {
        match ask {
            Ask::Open(open) => self.open(*open),
            Ask::Data { link, data } => {
                link.took(&data);
                let Some(xid) = link.xid() else { return };
                if let Some(transaction) = self.transactions.get_mut(&xid) {
                    transaction.hand_over(data);
                    self.pump(xid);
                }
            }
            Ask::Held { link, octets } => {
                let Some(xid) = link.xid() else { return };
                if let Some(transaction) = self.transactions.get_mut(&xid) {
                    transaction.own_held(xid, octets, &mut self.core);
                }
            }
            Ask::Cancel { link } => {
                if let Some(xid) = link.xid() {
                    // It may have ended in the meantime.
                    let _ended = self.core.abort(xid, "the processor gave up waiting");
                }
            }
        }
    }

    fn open(&mut self, open: Open) {
        let Open {
            group,
            budget_ms,
            traceparent,
            am_el,
            profile,
            data,
            link,
            own,
            own_octets_max,
            reply,
            place,
        } = open;
        link.took(&data);
        let started = self
            .groups
            .id(&group, &self.service_uri, &mut self.core)
            .and_then(|sg_id| {
                self.core.start(StartTransaction {
                    sg_id,
                    budget_ms,
                    traceparent,
                    am_el,
                    profile,
                })
            });
        let xid = match started {
            Ok(xid) => xid,
            Err(error) => {
                let lost = Lost::NotTaken(self.naming.unavailable(error.to_string()));
                // The caller may have gone.
                let _gone = reply.send(Err(lost));
                return;
            }
        };
        link.set_xid(xid);
        let mut transaction = Transaction::new(link, reply, (own, own_octets_max), place);
        transaction.note_progress(self.epoch.elapsed());
        transaction.hand_over(data);
        self.transactions.insert(xid, transaction);
        self.pump(xid);
    }

    fn pump(&mut self, xid: u32) {
        let Some(transaction) = self.transactions.get_mut(&xid) else {
            return;
        };
        let sent = self.core.sent(xid);
        if let Err(error) = transaction.pump(xid, &mut self.core) {
            // Ours: the sender hands over a flow that the core refuses, e.g. a wrong exact length.
            tracing::error!(service = %self.naming.service, xid, %error, "original flow refused by the core");
            let _ended = self.core.abort(xid, "internal error of the processor");
        } else if self.core.sent(xid) > sent {
            transaction.note_progress(self.epoch.elapsed());
        }
    }

    /// The connection is over: what is still queued was not begun.
    fn answer_queued(&mut self, asks: &mut mpsc::UnboundedReceiver<Ask>) {
        self.availability.close(Loss::Drained);
        asks.close();
        while let Ok(ask) = asks.try_recv() {
            if let Ask::Open(open) = ask {
                let lost =
                    Lost::NotTaken(self.naming.failure(&Failure::ConnectionLost, &self.lost));
                let _gone = open.reply.send(Err(lost));
            }
        }
    }
}

/// A gRPC status in one line, without its debug noise.
pub(crate) fn describe(status: &Status) -> String {
    format!("{}: {}", status.code(), status.message())
}
