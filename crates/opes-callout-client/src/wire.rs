//! Frames: which transaction a message belongs to, what it costs, how many go together.

use std::collections::VecDeque;

use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{Frame, Message};
use prost::Message as _;

/// A frame is full from this many octets on; a single larger message goes alone.
const FRAME_OCTETS: usize = 64 * 1024;

/// Messages on their way out.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    messages: VecDeque<(usize, Message)>,
    octets: usize,
}

impl Outgoing {
    /// Gives back what it costs.
    pub(crate) fn push(&mut self, message: Message) -> usize {
        let octets = message.encoded_len();
        self.octets += octets;
        self.messages.push_back((octets, message));
        octets
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) fn octets(&self) -> usize {
        self.octets
    }

    pub(crate) fn next_frame(&mut self) -> Frame {
        let mut frame = Frame {
            messages: Vec::with_capacity(self.messages.len().min(256)),
        };
        let mut octets = 0;
        while octets < FRAME_OCTETS {
            let Some((size, message)) = self.messages.pop_front() else {
                break;
            };
            octets += size;
            frame.messages.push(message);
        }
        self.octets -= octets;
        frame
    }
}

/// The transaction that a message belongs to; `None`: connection scope.
pub(crate) fn xid(message: &Message) -> Option<u32> {
    match message.kind.as_ref()? {
        Kind::TransactionStart(m) => Some(m.xid),
        Kind::TransactionEnd(m) => Some(m.xid),
        Kind::ApplicationMessageStart(m) => Some(m.xid),
        Kind::ApplicationMessageEnd(m) => Some(m.xid),
        Kind::DataUseMine(m) => Some(m.xid),
        Kind::DataUseYours(m) => Some(m.xid),
        Kind::DataPreservationInterest(m) => Some(m.xid),
        Kind::WantStopReceivingData(m) => Some(m.xid),
        Kind::WantStopSendingData(m) => Some(m.xid),
        Kind::StopSendingData(m) => Some(m.xid),
        Kind::WantDataPaused(m) => Some(m.xid),
        Kind::PausedMyData(m) => Some(m.xid),
        Kind::WantMoreData(m) => Some(m.xid),
        Kind::ProgressQuery(m) => m.xid,
        Kind::ProgressAnswer(m) => m.xid,
        Kind::ProgressReport(m) => m.xid,
        Kind::ConnectionStart(_)
        | Kind::ConnectionEnd(_)
        | Kind::ServiceGroupCreated(_)
        | Kind::ServiceGroupDestroyed(_)
        | Kind::NegotiationOffer(_)
        | Kind::NegotiationResponse(_)
        | Kind::AbilityQuery(_)
        | Kind::AbilityAnswer(_) => None,
    }
}
