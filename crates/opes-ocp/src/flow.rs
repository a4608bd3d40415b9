//! One flow of one application message, at its sender ([`sender::Sender`]) and at its recipient ([`receiver::Receiver`]).
//!
//! `idle –AMS→ open –DUM/DUY*→ open –AME→ ended`. Both sides count the same two numbers: `offset`, octets of the flow so
//! far, and `payload`, octets of it that came in DUM. Credit limits the latter, because a DUY costs its sender nothing.

pub(crate) mod receiver;
pub(crate) mod sender;

/// Life of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Before AMS.
    Idle,
    /// Between AMS and AME.
    Open,
    /// After AME with 200 or 400.
    Ended,
    /// After AME 206.
    EndedEarly,
}

impl Life {
    pub(crate) fn has_ended(self) -> bool {
        match self {
            Self::Idle | Self::Open => false,
            Self::Ended | Self::EndedEarly => true,
        }
    }
}

/// What the two ends of a connection agreed for flows; copied into each transaction when it starts, so that later
/// negotiation does not touch it (RFC 4037 §6).
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlowTerms {
    /// First credit limit in octets; `None` without the credit extension.
    pub(crate) credit: Option<u64>,
    /// Highest offset.
    pub(crate) offset_max: u64,
}
