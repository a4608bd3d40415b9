//! S: the callout server's end of one OCP connection.

mod ending;
mod event;
mod incoming;
mod transaction;

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{
    ApplicationMessageEnd, ApplicationMessageStart, DataPreservationInterest, DataUseMine,
    DataUseYours, Feature, Message, NegotiationOffer, ProgressReport, Service, WantDataPaused,
    WantStopReceivingData, WantStopSendingData,
};

use crate::connection::{Connection, Counters};
use crate::error::CallError;
use crate::limits::{Extensions, Limits};
use crate::negotiation::Role;
use crate::processor::AdaptedEnd;
use crate::transactions::Transactions;
use crate::violation::Failure;
use crate::wire;
pub use event::ServerEvent;
use transaction::Transaction;

/// S's answer to the offered profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Encoded parameters for NR.
    pub parameters: Bytes,
    /// Octets of original that P may send per transaction before [`CalloutServer::grant`]; as stated in `parameters`.
    pub original_credit: u64,
    /// Octets of adapted payload that S may send per transaction before P grants more; from P's offer.
    pub adapted_credit: u64,
    /// Extensions that the profile implies.
    pub extensions: Extensions,
}

/// Chooses the answer to the offered profile feature; `None` = not in this form: the offer is rejected.
pub type Select = Box<dyn Fn(&Feature) -> Option<Selection> + Send + Sync>;

/// Configuration of one connection of S.
pub struct ServerConfig {
    /// URI of the profile that S speaks.
    pub profile: String,
    /// Answers P's offer of it.
    pub select: Select,
    /// Bounds of this connection.
    pub limits: Limits,
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("profile", &self.profile)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// S's end of one connection. See the crate's documentation for how it is driven.
pub struct CalloutServer {
    connection: Connection,
    select: Select,
    selection: Option<Selection>,
    transactions: Transactions<Transaction>,
    events: VecDeque<ServerEvent>,
}

impl CalloutServer {
    /// CS is in the output at once. `now_ms`: see [`CalloutServer::tick`].
    pub fn new(config: ServerConfig, now_ms: u64) -> Self {
        let ServerConfig {
            profile,
            select,
            limits,
        } = config;
        Self {
            connection: Connection::new(Role::CalloutServer, profile, limits, now_ms),
            select,
            selection: None,
            transactions: Transactions::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes one message of P.
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
    pub fn next_event(&mut self) -> Option<ServerEvent> {
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

    /// Messages that changed nothing.
    pub fn counters(&self) -> Counters {
        self.connection.counters
    }

    /// AMS: begins the adapted flow. `services` where they differ from the group, else empty.
    pub fn adapted_start(
        &mut self,
        xid: u32,
        services: Vec<Service>,
        profile: Bytes,
    ) -> Result<(), CallError> {
        let transaction = open(&mut self.transactions, xid)?;
        transaction.adapted.start(None)?;
        transaction.clock.progress(self.connection.now_ms());
        let start = ApplicationMessageStart {
            xid,
            services,
            am_el: None,
            profile,
        };
        self.connection.send(Kind::ApplicationMessageStart(start));
        Ok(())
    }

    /// Octets of adapted payload that may be sent now: bounded by credit, pause and a negotiation phase. 0 for a
    /// transaction that is not open.
    pub fn sendable(&self, xid: u32) -> u64 {
        if self.connection.phase_open() {
            return 0;
        }
        self.transactions
            .get(xid)
            .map_or(0, |t| t.adapted.sendable())
    }

    /// Octets of original received so far.
    pub fn received(&self, xid: u32) -> u64 {
        self.transactions
            .get(xid)
            .map_or(0, |t| t.original.offset())
    }

    /// DUM: the next octets of the adapted message. `as_is`: they equal the original from there on. `modp`: per cent of
    /// certainty that the message is modified; once per value, and 0 and 100 are final.
    pub fn adapted_data(
        &mut self,
        xid: u32,
        part: u32,
        payload: Bytes,
        as_is: Option<u64>,
        modp: Option<u32>,
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
        transaction.check_modp(modp)?;
        let (offset, pause) = transaction.adapted.payload(part, octets as u64)?;
        let modp = transaction.note_modp(modp);
        if octets > 0 {
            transaction.clock.progress(self.connection.now_ms());
        }
        let dum = DataUseMine {
            xid,
            offset,
            payload: Some(payload),
            as_is,
            modp,
            kept: None,
            part,
        };
        self.connection.send(Kind::DataUseMine(dum));
        self.confirm_pause(xid, pause);
        Ok(())
    }

    /// DUY: P puts this range of its preserved original next into the adapted message. Needs no credit.
    pub fn use_original(&mut self, xid: u32, offset: u64, size: u64) -> Result<(), CallError> {
        let phase = self.connection.phase_open();
        let transaction = open(&mut self.transactions, xid)?;
        if phase && size > 0 {
            return Err(CallError::NotSendable {
                asked: size,
                sendable: 0,
            });
        }
        let pause = transaction.use_original(offset, size)?;
        transaction.clock.progress(self.connection.now_ms());
        self.connection.send(Kind::DataUseYours(DataUseYours {
            xid,
            original_offset: offset,
            size,
        }));
        self.confirm_pause(xid, pause);
        Ok(())
    }

    /// AME: 200 for `Complete`, 206 for `Rest`. `Rest` needs DSS (with its J) or the standing stop; after DSS nothing but
    /// `Rest` is possible.
    pub fn adapted_end(
        &mut self,
        xid: u32,
        end: AdaptedEnd,
        profile: Bytes,
    ) -> Result<(), CallError> {
        let transaction = open(&mut self.transactions, xid)?;
        transaction.end_adapted(end)?;
        transaction.clock.progress(self.connection.now_ms());
        let (result, original_offset) = match end {
            AdaptedEnd::Complete => (None, None),
            AdaptedEnd::Rest { from } => (Some(wire::partial()), Some(from)),
        };
        let end = ApplicationMessageEnd {
            xid,
            result,
            original_offset,
            profile,
        };
        self.connection.send(Kind::ApplicationMessageEnd(end));
        Ok(())
    }

    /// TE: 200 for `Ok`, possible once the adapted flow has ended; 400 with the reason for `Err`, at any time.
    pub fn end(&mut self, xid: u32, result: Result<(), &str>) -> Result<(), CallError> {
        let transaction = open(&mut self.transactions, xid)?;
        match result {
            Ok(()) if !transaction.adapted.life().has_ended() => {
                return Err(CallError::AdaptedNotEnded);
            }
            Ok(()) => {
                self.connection
                    .send_message(wire::transaction_end(xid, None));
                self.end_transaction(xid, Ok(()));
            }
            Err(reason) => self.fail_transaction(xid, Failure::local(reason)),
        }
        Ok(())
    }

    /// Refuses the transaction before or while it is worked on: TE 400, as [`CalloutServer::end`] with `Err`.
    pub fn refuse(&mut self, xid: u32, reason: &str) -> Result<(), CallError> {
        self.end(xid, Err(reason))
    }

    /// DWM with a credit limit: P may send up to `limit` octets of original in all. The same limit again is no message.
    pub fn grant(&mut self, xid: u32, limit: u64) -> Result<(), CallError> {
        let original = &mut open(&mut self.transactions, xid)?.original;
        if original.grant(limit)? && !original.life().has_ended() {
            original.resume();
            self.connection.send_message(wire::more(xid, Some(limit)));
        }
        Ok(())
    }

    /// DWP: no original from `offset` on for now, please.
    pub fn pause(&mut self, xid: u32, offset: u64) -> Result<(), CallError> {
        open(&mut self.transactions, xid)?;
        self.connection
            .send(Kind::WantDataPaused(WantDataPaused { xid, offset }));
        Ok(())
    }

    /// DWM without a new limit.
    pub fn resume(&mut self, xid: u32) -> Result<(), CallError> {
        open(&mut self.transactions, xid)?.original.resume();
        self.connection.send_message(wire::more(xid, None));
        Ok(())
    }

    /// DWSR: the first `size` octets of the original are enough. The adapted message has to be whole nevertheless.
    pub fn want_stop_receiving(&mut self, xid: u32, size: u64) -> Result<(), CallError> {
        open(&mut self.transactions, xid)?.check_offset(size)?;
        self.connection
            .send(Kind::WantStopReceivingData(WantStopReceivingData {
                xid,
                size,
            }));
        Ok(())
    }

    /// DWSS: wishes to leave the loop; go on as usual until `StopSending` comes. To stop receiving too, call
    /// [`CalloutServer::want_stop_receiving`] after this (RFC 4037 §8.3).
    pub fn want_stop_sending(&mut self, xid: u32) -> Result<(), CallError> {
        if open(&mut self.transactions, xid)?.want_stop_sending()? {
            self.connection
                .send(Kind::WantStopSendingData(WantStopSendingData { xid }));
        }
        Ok(())
    }

    /// DPI: only this range of the original may still be named in [`CalloutServer::use_original`]; size 0 = none.
    pub fn preservation_interest(
        &mut self,
        xid: u32,
        offset: u64,
        size: u64,
    ) -> Result<(), CallError> {
        open(&mut self.transactions, xid)?.limit_interest(offset, size)?;
        let interest = DataPreservationInterest {
            xid,
            original_offset: offset,
            size,
        };
        self.connection
            .send(Kind::DataPreservationInterest(interest));
        Ok(())
    }

    /// PR: a sign of life for a slow service. It is no progress (RFC 4037 §2.7).
    pub fn progress_report(&mut self, xid: Option<u32>) -> Result<(), CallError> {
        self.connection.require_alive()?;
        let (xid, org_data) = self.progress_of(xid);
        self.connection
            .send_progress(Kind::ProgressReport(ProgressReport { xid, org_data }));
        Ok(())
    }

    /// PQ.
    pub fn progress_query(&mut self, xid: Option<u32>) -> Result<(), CallError> {
        self.connection.query_progress(xid)
    }

    /// AQ.
    pub fn ability_query(&mut self, feature: Feature) -> Result<(), CallError> {
        self.connection.query_ability(feature)
    }

    /// NO of S, after the profile.
    pub fn offer(&mut self, offer: NegotiationOffer) -> Result<(), CallError> {
        if !self.connection.profile_agreed() {
            return Err(CallError::NotNegotiated);
        }
        self.connection.offer(offer)
    }

    /// Refuses new transactions with TE 400 and closes with CE 200 when the last one has ended.
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
    /// makes no progress. Call it before `receive` and when [`CalloutServer::deadline_ms`] is reached.
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

    /// When the next [`CalloutServer::tick`] has something to end, if nothing moves before.
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

impl fmt::Debug for CalloutServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CalloutServer")
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
