//! The task of one connection: owns the OCP core, joins handlers and stream. Whatever is ready at once goes into one frame.
//!
//! It always reads, also when writing is blocked, so two ends that both have much to say never wait for each other.
//! When it ends, whatever the reason, every handler it started is cancelled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use opes_ocp::{CalloutServer, Extensions, Limits, OriginalEnd, Selection, ServerEvent};
use opes_proto::ocp::{Feature, Frame, Message as OcpMessage, Service as OcpService};
use opes_proto::smtp::{
    MessageStart, PROFILE_URI, Point, ProfileOffer, ProfileSelection, ServiceParameters,
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::command::{Command, GroupParameters};
use crate::config::ServerConfig;
use crate::handler::{self, Work};
use crate::link::Said;
use crate::message::{Message, Outbox};
use crate::outgoing::Outgoing;
use crate::service::{Description, Service};
use crate::transaction::{COMMAND_OCTETS_MAX, PendingCommand, Transaction};

/// Octets that may wait for the stream before handlers have to.
const OUTGOING_OCTETS_MAX: usize = 1024 * 1024;

/// What handlers may have said before they have to wait.
const SAID_MAX: usize = 256;

/// Taken in one go before output is looked at.
const BATCH_MAX: usize = 64;

/// How often time budgets are looked at. The processor keeps them exactly; this finds what it forgot.
const TICK: Duration = Duration::from_millis(500);

/// Orders from the server to its connections.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown {
    /// Take nothing new.
    pub(crate) drain: CancellationToken,
    /// Time is up.
    pub(crate) now: CancellationToken,
}

pub(crate) struct Connection<S> {
    service: Arc<S>,
    core: CalloutServer,
    window: u64,
    adapted_credit: u64,
    takes_copies: bool,
    groups: HashMap<u32, Arc<GroupParameters>>,
    transactions: HashMap<u32, Transaction>,
    outgoing: Outgoing,
    staging: Vec<OcpMessage>,
    said: mpsc::Sender<(u32, Said)>,
    epoch: Instant,
}

/// Runs a connection to its end.
pub(crate) async fn run<S: Service>(
    service: Arc<S>,
    config: ServerConfig,
    inbound: Streaming<Frame>,
    frames: mpsc::Sender<Result<Frame, Status>>,
    shutdown: Shutdown,
) {
    let (said, heard) = mpsc::channel(SAID_MAX);
    let core = CalloutServer::new(core_config(&service.describe(), &config), 0);
    let mut connection = Connection {
        service,
        core,
        window: config.window_octets,
        adapted_credit: 0,
        takes_copies: false,
        groups: HashMap::new(),
        transactions: HashMap::new(),
        outgoing: Outgoing::default(),
        staging: Vec::new(),
        said,
        epoch: Instant::now(),
    };
    connection.drive(inbound, heard, &frames, &shutdown).await;
}

fn core_config(description: &Description, config: &ServerConfig) -> opes_ocp::ServerConfig {
    let selection = ProfileSelection {
        product: description.product.clone(),
        initial_credit: config.window_octets,
        command: Some(description.command.clone()),
        message: Some(description.message.clone()),
        max_transactions: config.transactions_max,
        copies: true,
    };
    opes_ocp::ServerConfig {
        profile: PROFILE_URI.to_owned(),
        select: Box::new(move |offer| select(offer, &selection)),
        limits: Limits {
            transactions_max: config.transactions_max,
            groups_max: config.groups_max,
            ..Limits::default()
        },
    }
}

/// Copies are selected only where they were offered.
fn select(offer: &Feature, selection: &ProfileSelection) -> Option<Selection> {
    let offer = ProfileOffer::decode(offer.parameters.clone()).ok()?;
    let selection = ProfileSelection {
        copies: selection.copies && offer.copies,
        ..selection.clone()
    };
    Some(Selection {
        parameters: selection.encode_to_vec().into(),
        original_credit: selection.initial_credit,
        adapted_credit: offer.initial_credit,
        extensions: Extensions::ALL,
    })
}

impl<S: Service> Connection<S> {
    async fn drive(
        &mut self,
        mut inbound: Streaming<Frame>,
        mut heard: mpsc::Receiver<(u32, Said)>,
        frames: &mpsc::Sender<Result<Frame, Status>>,
        shutdown: &Shutdown,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut draining = false;
        loop {
            self.listen(&mut heard);
            self.send_ready(frames);
            let (ended, room) = (self.core.has_ended(), self.has_room());
            if ended && self.outgoing.is_empty() {
                return;
            }
            // In order, so that a simulation can be repeated. Nobody starves: each round serves handlers and transport above.
            tokio::select! {
                biased;
                () = shutdown.now.cancelled(), if !ended => self.core.close(Some("shutting down")),
                () = shutdown.drain.cancelled(), if !draining => {
                    draining = true;
                    self.core.drain();
                }
                _ = ticks.tick() => self.core.tick(self.now_ms()),
                frame = inbound.message(), if !ended => self.on_inbound(frame),
                Some((xid, said)) = heard.recv(), if room && !ended => self.on_said(xid, said),
                permit = frames.reserve(), if !self.outgoing.is_empty() => match permit {
                    Ok(permit) => permit.send(Ok(self.outgoing.next_frame())),
                    Err(_) => return self.core.connection_lost(),
                },
            }
        }
    }

    fn has_room(&self) -> bool {
        self.outgoing.octets() < OUTGOING_OCTETS_MAX
    }

    fn listen(&mut self, heard: &mut mpsc::Receiver<(u32, Said)>) {
        for _ in 0..BATCH_MAX {
            if !self.has_room() {
                return;
            }
            let Ok((xid, said)) = heard.try_recv() else {
                return;
            };
            self.on_said(xid, said);
            self.collect();
        }
    }

    fn send_ready(&mut self, frames: &mpsc::Sender<Result<Frame, Status>>) {
        self.collect();
        while !self.outgoing.is_empty() {
            let Ok(permit) = frames.try_reserve() else {
                return;
            };
            permit.send(Ok(self.outgoing.next_frame()));
        }
    }

    fn collect(&mut self) {
        self.on_events();
        self.core.drain_output(&mut self.staging);
        for message in self.staging.drain(..) {
            self.outgoing.push(message);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    // ---- handlers ------------------------------------------------------------------------------------------------

    fn on_said(&mut self, xid: u32, said: Said) {
        // What is said for a transaction that has ended crossed its end.
        let Some(transaction) = self.transactions.get_mut(&xid) else {
            return;
        };
        match said {
            Said::Credit(limit) => {
                let _ended = self.core.grant(xid, limit);
            }
            Said::StopReceiving => {
                let received = self.core.received(xid);
                let _ended = self.core.want_stop_receiving(xid, received);
            }
            Said::Failed(reason) => {
                // AMS first: it tells the processor that this was begun, so that it is not tried again elsewhere.
                let _ended = transaction.start(xid, &mut self.core);
                self.give_up(xid, &reason);
            }
            said => {
                transaction.say(said);
                self.pump(xid);
            }
        }
    }

    fn pump(&mut self, xid: u32) {
        let Some(transaction) = self.transactions.get_mut(&xid) else {
            return;
        };
        if let Err(error) = transaction.pump(xid, &mut self.core) {
            self.give_up(xid, &error.to_string());
        }
    }

    fn give_up(&mut self, xid: u32, reason: &str) {
        let _ended = self.core.end(xid, Err(reason));
    }

    // ---- the processor -------------------------------------------------------------------------------------------

    fn on_inbound(&mut self, frame: Result<Option<Frame>, Status>) {
        match frame {
            Ok(Some(frame)) => {
                self.core.tick(self.now_ms());
                for message in frame.messages {
                    self.core.receive(message);
                    self.on_events();
                }
            }
            Ok(None) => self.core.connection_lost(),
            Err(status) => {
                tracing::debug!(code = %status.code(), reason = status.message(), "stream lost");
                self.core.connection_lost();
            }
        }
    }

    fn on_events(&mut self) {
        while let Some(event) = self.core.next_event() {
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::Negotiated { offer } => self.on_negotiated(&offer),
            ServerEvent::GroupCreated { sg_id, services } => self.on_group(sg_id, services),
            ServerEvent::GroupDestroyed { sg_id } => {
                self.groups.remove(&sg_id);
            }
            ServerEvent::Started {
                xid,
                sg_id,
                traceparent,
                ..
            } => {
                let parameters = self.groups.get(&sg_id).map(Arc::clone).unwrap_or_default();
                let transaction = Transaction::new(parameters, traceparent, self.adapted_credit);
                self.transactions.insert(xid, transaction);
            }
            ServerEvent::OriginalStart {
                xid,
                am_el,
                profile,
            } => self.on_start(xid, am_el, profile),
            ServerEvent::OriginalData { xid, payload, .. } => self.on_data(xid, payload),
            ServerEvent::OriginalEnd { xid, end } => self.on_end(xid, &end),
            ServerEvent::Sendable { xid } => self.pump(xid),
            ServerEvent::Ended { xid, result } => {
                tracing::trace!(xid, ?result, "transaction ended");
                self.transactions.remove(&xid);
            }
            ServerEvent::ConnectionEnded {
                result: Err(failure),
            } => {
                tracing::info!(%failure, "connection ended");
            }
            // DSS answers DWSS, which is never sent here: the standing stop needs neither.
            ServerEvent::ConnectionEnded { result: Ok(()) }
            | ServerEvent::StopSending { .. }
            | ServerEvent::OfferAnswered { .. }
            | ServerEvent::Progress { .. }
            | ServerEvent::Ability { .. } => {}
        }
    }

    fn on_negotiated(&mut self, offer: &Feature) {
        if let Ok(offer) = ProfileOffer::decode(offer.parameters.clone()) {
            self.adapted_credit = offer.initial_credit;
            self.takes_copies = offer.copies;
            tracing::info!(system = %offer.system, "connection open");
        }
    }

    /// One service per group: this one. A group that cannot be served ends the connection (RFC 4037 §11.3).
    fn on_group(&mut self, sg_id: u32, services: Vec<OcpService>) {
        let parameters = services
            .into_iter()
            .next()
            .map(|s| ServiceParameters::decode(s.parameters));
        match parameters {
            Some(Ok(parameters)) => {
                self.groups.insert(sg_id, Arc::new(parameters.into()));
            }
            Some(Err(_)) | None => self.core.close(Some("a group without readable parameters")),
        }
    }

    fn on_start(&mut self, xid: u32, am_el: Option<u64>, profile: Bytes) {
        let Ok(start) = MessageStart::decode(profile) else {
            return self.give_up(xid, "AMS without a readable profile");
        };
        let Some(transaction) = self.transactions.get_mut(&xid) else {
            return;
        };
        if start.point() < Point::Content {
            transaction.command = Some(PendingCommand {
                start,
                line: BytesMut::new(),
            });
            return;
        }
        let message = Message {
            point: start.point(),
            context: start.context.unwrap_or_default(),
            parameters: Arc::clone(&transaction.parameters),
            link: Arc::clone(&transaction.link),
            outbox: Outbox {
                xid,
                sender: self.said.clone(),
            },
            window: self.window,
            granted: self.window,
            taken: 0,
            size: am_el,
            takes_copies: self.takes_copies,
        };
        self.work(xid, Work::Message(Box::new(message)));
    }

    fn on_data(&mut self, xid: u32, payload: Bytes) {
        let Some(transaction) = self.transactions.get_mut(&xid) else {
            return;
        };
        match &mut transaction.command {
            None => transaction.link.push(payload),
            Some(command) if command.line.len() + payload.len() <= COMMAND_OCTETS_MAX => {
                command.line.extend_from_slice(&payload);
            }
            Some(_) => self.give_up(xid, "the command line is too long"),
        }
    }

    fn on_end(&mut self, xid: u32, end: &OriginalEnd) {
        let Some(transaction) = self.transactions.get_mut(&xid) else {
            return;
        };
        let whole = match end {
            OriginalEnd::Complete => true,
            OriginalEnd::Partial => false,
            OriginalEnd::Failed(reason) => {
                let reason = format!("the original failed: {reason}");
                return self.give_up(xid, &reason);
            }
        };
        match transaction.command.take() {
            None => transaction.link.end(whole),
            Some(PendingCommand { start, line }) => {
                let command = Command {
                    point: start.point(),
                    line: line.freeze(),
                    context: start.context.unwrap_or_default(),
                    parameters: Arc::clone(&transaction.parameters),
                };
                self.work(xid, Work::Command(Box::new(command)));
            }
        }
    }

    fn work(&mut self, xid: u32, work: Work) {
        let Some(transaction) = self.transactions.get_mut(&xid) else {
            return;
        };
        let span = tracing::info_span!(
            "transaction", xid, rule = %transaction.parameters.rule, traceparent = %transaction.traceparent
        );
        let outbox = Outbox {
            xid,
            sender: self.said.clone(),
        };
        transaction.handler = Some(handler::start(
            Arc::clone(&self.service),
            work,
            outbox,
            span,
        ));
    }
}
