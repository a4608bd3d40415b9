//! How transactions and connections of P end, and the answers that it gives by itself.

use opes_proto::ocp::StopSendingData;
use opes_proto::ocp::message::Kind;

use super::transaction::Transaction;
use super::{Processor, ProcessorEvent};
use crate::flow::sender::PauseNow;
use crate::violation::Failure;
use crate::wire;

impl Processor {
    pub(super) fn confirm_pause(&mut self, xid: u32, pause: PauseNow) {
        match pause {
            PauseNow::Yes => self.connection.send_message(wire::paused(xid)),
            PauseNow::No => {}
        }
    }

    /// DSS by itself, as soon as the message can be rebuilt whatever S does (RFC 4037 §11.13).
    pub(super) fn grant_stop(&mut self, xid: u32) {
        let granted = self
            .transactions
            .get_mut(xid)
            .and_then(Transaction::grant_stop_if_kept);
        if let Some(original_offset) = granted {
            self.connection.send(Kind::StopSendingData(StopSendingData {
                xid,
                original_offset,
            }));
        }
    }

    pub(super) fn fail_transaction(&mut self, xid: u32, failure: Failure) {
        self.connection.send_message(wire::transaction_end(
            xid,
            Some(wire::failure(&failure.to_string())),
        ));
        self.end_transaction(xid, Err(failure));
    }

    pub(super) fn end_transaction(&mut self, xid: u32, result: Result<(), Failure>) {
        if self.transactions.remove(xid).is_some() {
            self.events.push_back(ProcessorEvent::Ended { xid, result });
            self.close_if_done();
        }
    }

    pub(super) fn close_if_done(&mut self) {
        let worn_out = self.connection.draining || self.next_xid().is_none();
        if worn_out && self.transactions.is_empty() {
            self.close(None);
        }
    }

    pub(super) fn fail_connection(&mut self, failure: Failure) {
        self.connection.close(Some(&failure.to_string()));
        self.end_connection(Err(failure));
    }

    pub(super) fn end_connection(&mut self, result: Result<(), Failure>) {
        self.connection.free();
        for xid in self.transactions.take_all().into_keys() {
            let result = Err(Failure::ConnectionLost);
            self.events.push_back(ProcessorEvent::Ended { xid, result });
        }
        self.events
            .push_back(ProcessorEvent::ConnectionEnded { result });
    }
}
