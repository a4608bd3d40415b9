//! What the service says, and what it means for the transactions of the connection.

use bytes::Bytes;
use opes_ocp::{AdaptedEnd, Failure, ProcessorEvent};
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{Frame, Message};
use tonic::Status;

use super::{Task, describe};
use crate::ask::{Lost, Raw};
use crate::balance::{Loss, NotOpened};
use crate::naming::Naming;
use crate::negotiated::{self, Negotiated};
use crate::reassembly::{End, Refused};
use crate::transaction::Transaction;
use crate::wire;

// === impl Task ===

impl Task {
    pub(super) fn on_inbound(&mut self, frame: Result<Option<Frame>, Status>) {
        match frame {
            Ok(Some(frame)) => self.on_frame(frame),
            Ok(None) => self.stream_lost("the service closed the stream"),
            Err(status) => self.stream_lost(&describe(&status)),
        }
        self.on_events();
    }

    fn on_frame(&mut self, frame: Frame) {
        let now = self.now_ms();
        self.core.tick(now);
        self.pulse.heard();
        self.availability.set_responsive(true);
        for message in frame.messages {
            self.note(&message);
            self.core.receive(message);
            // At once, so that what a transaction cost is counted before it ends.
            self.collect();
        }
    }

    fn note(&mut self, message: &Message) {
        let Some(xid) = wire::xid(message) else {
            return;
        };
        let Some(transaction) = self.transactions.get_mut(&xid) else {
            return;
        };
        transaction.octets_received += prost::Message::encoded_len(message) as u64;
        let progress = matches!(
            &message.kind,
            Some(
                Kind::ApplicationMessageStart(_)
                    | Kind::ApplicationMessageEnd(_)
                    | Kind::DataUseMine(_)
                    | Kind::DataUseYours(_)
            )
        );
        if progress {
            transaction.note_progress(self.epoch.elapsed());
        }
        match &message.kind {
            Some(Kind::ApplicationMessageStart(_) | Kind::ApplicationMessageEnd(_)) => {
                transaction.begun = true;
            }
            Some(Kind::TransactionEnd(_)) => transaction.refused = !transaction.begun,
            _ => {}
        }
    }

    pub(super) fn stream_lost(&mut self, reason: &str) {
        reason.clone_into(&mut self.lost);
        self.core.connection_lost();
        self.on_events();
    }

    pub(super) fn on_events(&mut self) {
        while let Some(event) = self.core.next_event() {
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: ProcessorEvent) {
        match event {
            ProcessorEvent::Negotiated { feature } => {
                let Some(selection) = negotiated::selection(&feature) else {
                    return;
                };
                self.report_ready(Ok(Negotiated::new(selection)));
            }
            ProcessorEvent::AdaptedData {
                xid,
                payload,
                as_is,
                ..
            } => {
                self.adapted(xid, payload, as_is);
            }
            ProcessorEvent::UseOriginal { xid, offset, size } => {
                self.reassemble(xid, |t| t.reassembly.yours(offset, size));
            }
            ProcessorEvent::AdaptedEnd { xid, end, profile } => self.adapted_end(xid, end, profile),
            ProcessorEvent::Ended { xid, result } => self.ended(xid, result),
            ProcessorEvent::Sendable { xid } => self.pump(xid),
            ProcessorEvent::StopReceiving { xid, size } => {
                if let Some(transaction) = self.transactions.get_mut(&xid) {
                    transaction.stop_receiving(size);
                    self.pump(xid);
                }
            }
            ProcessorEvent::ConnectionEnded { result } => self.connection_ended(&result),
            // All of the original is kept by the caller, so there is nothing to release or to grant by hand. Answers to
            // progress queries are signs of life like any frame. The rest is for logs and tools.
            ProcessorEvent::NegotiationFailed { .. }
            | ProcessorEvent::OfferAnswered { .. }
            | ProcessorEvent::AdaptedStart { .. }
            | ProcessorEvent::StopSendingWanted { .. }
            | ProcessorEvent::Released { .. }
            | ProcessorEvent::Progress { .. }
            | ProcessorEvent::Ability { .. } => {}
        }
    }

    fn adapted(&mut self, xid: u32, payload: Bytes, as_is: Option<u64>) {
        let Some(from) = as_is else {
            return self.reassemble(xid, |transaction| transaction.mine(payload));
        };
        let octets = payload.len() as u64;
        self.reassemble(xid, |transaction| {
            transaction.reassembly.yours(from, octets)
        });
        if let Some(transaction) = self.transactions.get_mut(&xid) {
            transaction.received(xid, octets, &mut self.core);
        }
    }

    fn reassemble(&mut self, xid: u32, step: impl FnOnce(&mut Transaction) -> Result<(), Refused>) {
        let Some(transaction) = self.transactions.get_mut(&xid) else {
            return;
        };
        if let Err(refused) = step(transaction) {
            let refused = refused.to_string();
            self.answer(xid, |naming| Lost::Failed(naming.protocol(refused.clone())));
            let _ended = self.core.abort(xid, &refused);
        }
    }

    fn adapted_end(&mut self, xid: u32, end: AdaptedEnd, profile: Bytes) {
        if let Some(transaction) = self.transactions.get_mut(&xid) {
            let end = match end {
                AdaptedEnd::Complete => End::Whole,
                AdaptedEnd::Rest { from } => End::Rest(from),
            };
            let reassembly = std::mem::take(&mut transaction.reassembly);
            transaction.answer = Some((profile, reassembly.finish(end)));
        }
    }

    fn ended(&mut self, xid: u32, result: Result<(), Failure>) {
        let Some(mut transaction) = self.transactions.remove(&xid) else {
            return;
        };
        match (result, transaction.answer.take()) {
            (Ok(()), Some((profile, adapted))) => {
                let (octets_sent, octets_received) =
                    (transaction.octets_sent, transaction.octets_received);
                let raw = Raw {
                    profile,
                    adapted,
                    octets_sent,
                    octets_received,
                };
                // The caller may have gone; then nobody wants the answer.
                let _gone = transaction.reply.send(Ok(raw));
            }
            (Err(Failure::ConnectionLost), _) => self.orphans.push(transaction),
            (result, _) => {
                let failure = result.err().unwrap_or(Failure::Unfinished);
                let lost = match &failure {
                    Failure::Peer { reason } if transaction.refused => self.refused(reason),
                    failure => Lost::Failed(self.naming.failure(failure, "")),
                };
                let _gone = transaction.reply.send(Err(lost));
            }
        }
    }

    /// TE 400 before anything else: the service takes no new transactions here. What runs goes on.
    fn refused(&mut self, reason: &str) -> Lost {
        let error = self
            .naming
            .unavailable(format!("it takes no transactions: {reason}"));
        self.retire(Loss::Drained);
        Lost::NotTaken(error)
    }

    /// Answers a transaction that goes on for a moment.
    pub(super) fn answer(&mut self, xid: u32, lost: impl FnOnce(&Naming) -> Lost) {
        if let Some(transaction) = self.transactions.remove(&xid) {
            let _gone = transaction.reply.send(Err(lost(&self.naming)));
        }
    }

    fn connection_ended(&mut self, result: &Result<(), Failure>) {
        let error = match result {
            Err(Failure::Violation(rule)) => self.naming.protocol(rule.to_string()),
            Err(Failure::Peer { reason }) => {
                self.naming.unavailable(format!("it closed: {reason}"))
            }
            Err(Failure::NoProgress(_)) if self.ready.is_some() => {
                self.naming.protocol("no answer to the negotiation")
            }
            Err(failure) => self.naming.failure(failure, &self.lost),
            Ok(()) => self.naming.unavailable("it closed the connection"),
        };
        self.availability.close(match result {
            Ok(()) => Loss::Drained,
            Err(_) => Loss::Broken(error.clone()),
        });
        self.report_ready(Err(NotOpened {
            error: error.clone(),
            in_good_order: result.is_ok(),
        }));
        for orphan in self.orphans.drain(..) {
            // CE 200 means that nothing was open there: what was not begun has crossed it on the way.
            let crossed = result.is_ok() && !orphan.begun;
            let lost = if crossed {
                Lost::NotTaken
            } else {
                Lost::Failed
            };
            let _gone = orphan.reply.send(Err(lost(error.clone())));
        }
    }

    fn report_ready(&mut self, result: Result<Negotiated, NotOpened>) {
        if let Some(ready) = self.ready.take() {
            // Whoever wanted the connection may have run out of time.
            let _gone = ready.send(result);
        }
    }
}
