//! P: the processor's end of one OCP connection.

mod ending;
mod event;
mod incoming;
mod transaction;

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{
    ApplicationMessageEnd, ApplicationMessageStart, DataUseMine, Feature, Message,
    NegotiationOffer, Range as Kept, Service, ServiceGroupCreated, ServiceGroupDestroyed,
    StopSendingData, TransactionStart, WantDataPaused,
};

use crate::connection::{Connection, Counters};
use crate::error::CallError;
use crate::limits::{Extensions, ID_MAX, Limits};
use crate::negotiation::Role;
use crate::transactions::Transactions;
use crate::violation::Failure;
use crate::wire;
pub use event::{AdaptedEnd, ProcessorEvent};
use transaction::Transaction;

/// What P learns from the parameters of the profile that S selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Octets of original that S lets P send per transaction before it grants more. Ignored without credit.
    pub original_credit: u64,
    /// Most transactions that S wants open at once; 0 = no limit of its own.
    pub transactions_max: u32,
}

/// Reads the selected profile feature; `None` = the parameters are unusable, the negotiation fails.
pub type Accept = Box<dyn Fn(&Feature) -> Option<Terms> + Send + Sync>;

/// Configuration of one connection of P.
pub struct ProcessorConfig {
    /// The profile that P offers: URI and encoded parameters.
    pub offer: Feature,
    /// Reads S's answer to it.
    pub accept: Accept,
    /// Octets of adapted payload that S may send per transaction before [`Processor::grant`]; as stated in the offer.
    pub adapted_credit: u64,
    /// Extensions that the profile implies.
    pub extensions: Extensions,
    /// Bounds of this connection.
    pub limits: Limits,
}

impl fmt::Debug for ProcessorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessorConfig")
            .field("offer", &self.offer)
            .field("adapted_credit", &self.adapted_credit)
            .field("extensions", &self.extensions)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What [`Processor::start`] sends as TS and AMS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StartTransaction {
    /// A live group of [`Processor::create_group`].
    pub sg_id: u32,
    /// Time budget in milliseconds, enforced on both sides; 0 = none.
    pub budget_ms: u32,
    /// W3C trace context; empty = none.
    pub traceparent: String,
    /// Exact size of the whole original in octets; only if it is exact.
    pub am_el: Option<u64>,
    /// AMS.profile, opaque.
    pub profile: Bytes,
}

/// P's end of one connection. See the crate's documentation for how it is driven.
pub struct Processor {
    connection: Connection,
    config: Profile,
    terms: Option<Terms>,
    transactions: Transactions<Transaction>,
    events: VecDeque<ProcessorEvent>,
}

/// The part of the configuration that outlives `new`.
struct Profile {
    accept: Accept,
    adapted_credit: u64,
    extensions: Extensions,
}

impl Processor {
    /// CS and the offer of the profile are in the output at once (RFC 4037 §6.1). `now_ms`: see [`Processor::tick`].
    pub fn new(config: ProcessorConfig, now_ms: u64) -> Self {
        let ProcessorConfig {
            offer,
            accept,
            adapted_credit,
            extensions,
            limits,
        } = config;
        let mut connection = Connection::new(Role::Processor, offer.uri.clone(), limits, now_ms);
        let offer = NegotiationOffer {
            features: vec![offer],
            ..Default::default()
        };
        // A new connection is alive and has no offer outstanding.
        let _sent = connection.offer(offer);
        Self {
            connection,
            config: Profile {
                accept,
                adapted_credit,
                extensions,
            },
            terms: None,
            transactions: Transactions::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes one message of S.
    pub fn receive(&mut self, message: Message) {
        match self.connection.admit(message) {
            Ok(None) => {}
            Ok(Some(kind)) => self.dispatch(kind),
            Err(rule) => self.fail_connection(Failure::Violation(rule)),
        }
    }

    /// The stream is gone without CE: counts as CE 400 (RFC 4037 §11.2).
    pub fn connection_lost(&mut self) {
        if !self.connection.has_ended() {
            self.end_connection(Err(Failure::ConnectionLost));
        }
    }

    /// The next event, in order.
    pub fn next_event(&mut self) -> Option<ProcessorEvent> {
        self.events.pop_front()
    }

    /// Moves what has to be sent to the end of `into`, in order.
    pub fn drain_output(&mut self, into: &mut Vec<Message>) {
        self.connection.drain_output(into);
    }

    /// Whether there is something to send.
    pub fn has_output(&self) -> bool {
        self.connection.has_output()
    }

    /// The connection is over.
    pub fn has_ended(&self) -> bool {
        self.connection.has_ended()
    }

    /// Transactions open now.
    pub fn transactions_open(&self) -> usize {
        self.transactions.len()
    }

    /// Whether [`Processor::start`] is possible now, as far as the connection is concerned.
    pub fn may_start(&self) -> bool {
        self.check_start().is_ok()
    }

    /// Messages that changed nothing.
    pub fn counters(&self) -> Counters {
        self.connection.counters
    }

    /// SGC: binds an id to an ordered list of services.
    pub fn create_group(&mut self, services: Vec<Service>) -> Result<u32, CallError> {
        self.connection.require_agreed()?;
        if wire::check_services(&services, self.connection.limits()).is_err() {
            let max = self.connection.limits().services_max as u64;
            return Err(CallError::TooMany {
                what: "services or octets of their parameters",
                max,
            });
        }
        let limits = self.connection.limits().clone();
        let sg_id = self
            .connection
            .own_groups
            .next_id(limits.id_max)
            .ok_or(CallError::IdsExhausted)?;
        let max = u64::from(limits.groups_max);
        self.connection
            .own_groups
            .create(sg_id, &limits)
            .map_err(|_| CallError::TooMany {
                what: "service groups",
                max,
            })?;
        self.connection
            .send(Kind::ServiceGroupCreated(ServiceGroupCreated {
                sg_id,
                services,
            }));
        Ok(sg_id)
    }

    /// SGD: the id is dead for new transactions; running ones go on.
    pub fn destroy_group(&mut self, sg_id: u32) -> Result<(), CallError> {
        self.connection.require_alive()?;
        self.connection.forget_own_group(sg_id)?;
        self.connection
            .send(Kind::ServiceGroupDestroyed(ServiceGroupDestroyed { sg_id }));
        Ok(())
    }

    /// TS and AMS: begins a transaction and its original flow. Gives back the xid.
    pub fn start(&mut self, start: StartTransaction) -> Result<u32, CallError> {
        let (xid, terms) = self.check_start()?;
        if !self.connection.own_groups.contains(start.sg_id) {
            return Err(CallError::UnknownGroup(start.sg_id));
        }
        let transaction =
            Transaction::start(&self.config, terms, &start, self.connection.now_ms())?;
        let StartTransaction {
            sg_id,
            budget_ms,
            traceparent,
            am_el,
            profile,
        } = start;
        self.transactions.insert(xid, transaction);
        self.connection
            .send(Kind::TransactionStart(TransactionStart {
                xid,
                sg_id,
                budget_ms,
                traceparent,
            }));
        let start = ApplicationMessageStart {
            xid,
            services: Vec::new(),
            am_el,
            profile,
        };
        self.connection.send(Kind::ApplicationMessageStart(start));
        Ok(xid)
    }

    fn check_start(&self) -> Result<(u32, Terms), CallError> {
        self.connection.require_agreed()?;
        let terms = self.terms.ok_or(CallError::NotNegotiated)?;
        if self.connection.draining {
            return Err(CallError::Draining);
        }
        let ours = self.connection.limits().transactions_max;
        let max = if terms.transactions_max == 0 {
            ours
        } else {
            ours.min(terms.transactions_max)
        };
        if self.transactions.len() as u64 >= u64::from(max) {
            return Err(CallError::TooMany {
                what: "transactions",
                max: u64::from(max),
            });
        }
        Ok((self.next_xid().ok_or(CallError::IdsExhausted)?, terms))
    }

    fn next_xid(&self) -> Option<u32> {
        let next = self
            .transactions
            .highest()
            .map_or(Some(0), |highest| highest.checked_add(1));
        next.filter(|xid| *xid <= self.connection.limits().id_max.min(ID_MAX))
    }

    /// Octets of original that may be sent now and are of use: bounded by credit, pause, a negotiation phase and DWSR.
    /// 0 for a transaction that is not open.
    pub fn sendable(&self, xid: u32) -> u64 {
        if self.connection.phase_open() {
            return 0;
        }
        self.transactions.get(xid).map_or(0, Transaction::sendable)
    }

    /// Octets of original sent so far.
    pub fn sent(&self, xid: u32) -> u64 {
        self.transactions
            .get(xid)
            .map_or(0, |t| t.original.offset())
    }

    /// DUM: the next octets of the original. `part` must not be lower than before; an empty payload is sent as it is.
    pub fn data(&mut self, xid: u32, part: u32, payload: Bytes) -> Result<(), CallError> {
        self.send_payload(xid, part, payload, None)
    }

    /// Kept, on an empty DUM: P commits itself to hold this range of the original for DUY (RFC 4037 §7).
    pub fn keep(&mut self, xid: u32, offset: u64, size: u64) -> Result<(), CallError> {
        let max = self.config.extensions.offset_max();
        let end = wire::range_end(offset, size, max).map_err(|_| CallError::OffsetTooLarge)?;
        let transaction = open(&mut self.transactions, xid)?;
        transaction
            .preservation
            .keep(offset..end)
            .map_err(|_| CallError::KeptShrinks)?;
        self.send_payload(xid, 0, Bytes::new(), Some((offset, size)))?;
        self.grant_stop(xid);
        Ok(())
    }

    fn send_payload(
        &mut self,
        xid: u32,
        part: u32,
        payload: Bytes,
        kept: Option<(u64, u64)>,
    ) -> Result<(), CallError> {
        let max = self.connection.limits().payload_octets_max;
        let (octets, phase) = (payload.len(), self.connection.phase_open());
        let transaction = open(&mut self.transactions, xid)?;
        if octets > max || (phase && octets > 0) {
            let sendable = if phase { 0 } else { max as u64 };
            return Err(CallError::NotSendable {
                asked: octets as u64,
                sendable,
            });
        }
        let (offset, pause) = transaction.original.payload(part, octets as u64)?;
        if octets > 0 {
            transaction.clock.progress(self.connection.now_ms());
        }
        let kept = kept.map(|(offset, size)| Kept { offset, size });
        let dum = DataUseMine {
            xid,
            offset,
            payload: Some(payload),
            kept,
            part,
            ..Default::default()
        };
        self.connection.send(Kind::DataUseMine(dum));
        self.confirm_pause(xid, pause);
        Ok(())
    }

    /// AME: 200 if `complete`, else 206. After DWSS, 206 has to wait for DSS ([`CallError::StopPending`]).
    pub fn finish(&mut self, xid: u32, complete: bool) -> Result<(), CallError> {
        let transaction = open(&mut self.transactions, xid)?;
        if !complete && transaction.stop_is_pending() {
            return Err(CallError::StopPending);
        }
        transaction.original.end(complete)?;
        transaction.clock.progress(self.connection.now_ms());
        let result = if complete {
            None
        } else {
            Some(wire::partial())
        };
        let end = ApplicationMessageEnd {
            result,
            ..wire::message_end(xid, None)
        };
        self.connection.send(Kind::ApplicationMessageEnd(end));
        self.grant_stop(xid);
        Ok(())
    }

    /// DSS: grants the early end that S asked for. The caller keeps every octet of the original from here on until the
    /// transaction ends, or sends none.
    pub fn stop_sending(&mut self, xid: u32) -> Result<(), CallError> {
        let transaction = open(&mut self.transactions, xid)?;
        let original_offset = transaction.grant_stop().ok_or(CallError::StopImpossible)?;
        self.connection.send(Kind::StopSendingData(StopSendingData {
            xid,
            original_offset,
        }));
        Ok(())
    }

    /// DWM with a credit limit: S may send DUM payload up to `limit` octets in all. The same limit again is no message.
    pub fn grant(&mut self, xid: u32, limit: u64) -> Result<(), CallError> {
        let adapted = &mut open(&mut self.transactions, xid)?.adapted;
        if adapted.grant(limit)? && !adapted.life().has_ended() {
            adapted.resume();
            self.connection.send_message(wire::more(xid, Some(limit)));
        }
        Ok(())
    }

    /// DWP: no adapted data from `offset` on for now, please.
    pub fn pause(&mut self, xid: u32, offset: u64) -> Result<(), CallError> {
        open(&mut self.transactions, xid)?;
        self.connection
            .send(Kind::WantDataPaused(WantDataPaused { xid, offset }));
        Ok(())
    }

    /// DWM without a new limit.
    pub fn resume(&mut self, xid: u32) -> Result<(), CallError> {
        open(&mut self.transactions, xid)?.adapted.resume();
        self.connection.send_message(wire::more(xid, None));
        Ok(())
    }

    /// TE 200, once the adapted flow has ended. Usually S does that.
    pub fn end(&mut self, xid: u32) -> Result<(), CallError> {
        if !open(&mut self.transactions, xid)?
            .adapted
            .life()
            .has_ended()
        {
            return Err(CallError::AdaptedNotEnded);
        }
        self.connection
            .send_message(wire::transaction_end(xid, None));
        self.end_transaction(xid, Ok(()));
        Ok(())
    }

    /// TE 400: gives the transaction up.
    pub fn abort(&mut self, xid: u32, reason: &str) -> Result<(), CallError> {
        open(&mut self.transactions, xid)?;
        self.fail_transaction(xid, Failure::local(reason));
        Ok(())
    }

    /// NO, after the profile: features at connection scope or for one group of ours.
    pub fn offer(&mut self, offer: NegotiationOffer) -> Result<(), CallError> {
        self.connection.offer(offer)
    }

    /// PQ: about a transaction, or only whether S is there.
    pub fn progress_query(&mut self, xid: Option<u32>) -> Result<(), CallError> {
        self.connection.query_progress(xid)
    }

    /// AQ.
    pub fn ability_query(&mut self, feature: Feature) -> Result<(), CallError> {
        self.connection.query_ability(feature)
    }

    /// Takes no new transactions and closes with CE 200 when the last one has ended.
    pub fn drain(&mut self) {
        self.connection.draining = true;
        self.close_if_done();
    }

    /// CE at once: 200, or 400 with a reason. All open transactions fail.
    pub fn close(&mut self, failure: Option<&str>) {
        if self.connection.has_ended() {
            return;
        }
        self.connection.close(failure);
        self.end_connection(failure.map_or(Ok(()), |reason| Err(Failure::local(reason))));
    }

    /// Takes the time in milliseconds of any clock that does not run backwards, and ends what is over its budget or
    /// makes no progress. Call it before `receive` and when [`Processor::deadline_ms`] is reached.
    pub fn tick(&mut self, now_ms: u64) {
        if self.connection.has_ended() {
            return;
        }
        if let Err(failure) = self.connection.tick(now_ms) {
            return self.fail_connection(failure);
        }
        let (now, limits) = (self.connection.now_ms(), self.connection.limits());
        let check =
            |(xid, t): (u32, &Transaction)| t.clock.check(now, limits).err().map(|f| (xid, f));
        let overdue: Vec<_> = self.transactions.iter().filter_map(check).collect();
        for (xid, failure) in overdue {
            self.fail_transaction(xid, failure);
        }
    }

    /// When the next [`Processor::tick`] has something to end, if nothing moves before. Looks at every open transaction.
    pub fn deadline_ms(&self) -> Option<u64> {
        let limits = self.connection.limits();
        let transactions = self
            .transactions
            .iter()
            .filter_map(|(_, t)| t.clock.deadline_ms(limits));
        transactions
            .chain(self.connection.negotiation_deadline_ms())
            .min()
    }
}

impl fmt::Debug for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processor")
            .field("connection", &self.connection)
            .field("transactions", &self.transactions)
            .finish_non_exhaustive()
    }
}

fn open(
    transactions: &mut Transactions<Transaction>,
    xid: u32,
) -> Result<&mut Transaction, CallError> {
    transactions
        .get_mut(xid)
        .ok_or(CallError::UnknownTransaction(xid))
}
