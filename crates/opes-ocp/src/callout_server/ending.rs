//! How transactions and connections of S end.

use super::{CalloutServer, ServerEvent};
use crate::flow::sender::PauseNow;
use crate::violation::Failure;
use crate::wire;

impl CalloutServer {
    pub(super) fn confirm_pause(&mut self, xid: u32, pause: PauseNow) {
        match pause {
            PauseNow::Yes => self.connection.send_message(wire::paused(xid)),
            PauseNow::No => {}
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
            self.events.push_back(ServerEvent::Ended { xid, result });
            self.close_if_done();
        }
    }

    pub(super) fn close_if_done(&mut self) {
        if self.connection.draining && self.transactions.is_empty() {
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
            self.events.push_back(ServerEvent::Ended { xid, result });
        }
        self.events
            .push_back(ServerEvent::ConnectionEnded { result });
    }
}
