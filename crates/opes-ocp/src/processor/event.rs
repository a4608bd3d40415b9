//! What P tells its shell.

use std::ops::Range;

use bytes::Bytes;
use opes_proto::ocp::{Feature, Service};

use crate::violation::Failure;

/// How the adapted flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdaptedEnd {
    /// AME 200: what came is the whole adapted message.
    Complete,
    /// AME 206: the adapted message is what came, then the original from octet `from` (J) on.
    Rest {
        /// J, octets from the start of the original.
        from: u64,
    },
}

/// What P has to know or do. Of each started transaction exactly one `Ended` comes, as its last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessorEvent {
    /// The profile is in force: groups and transactions are possible.
    Negotiated {
        /// As S selected it.
        feature: Feature,
    },
    /// S did not take the profile, or its answer was unusable; `ConnectionEnded` follows unless S announced an offer.
    NegotiationFailed {
        /// Known to S but impossible now.
        rejects: Vec<String>,
        /// Unknown to S.
        unknowns: Vec<String>,
    },
    /// Answer to [`Processor::offer`].
    OfferAnswered {
        /// What S selected.
        selected: Option<Feature>,
        /// Scope of the offer.
        sg_id: Option<u32>,
    },
    /// AMS of S.
    AdaptedStart {
        /// Transaction.
        xid: u32,
        /// Services that S applies, where they differ from the group.
        services: Vec<Service>,
        /// AMS.profile, opaque.
        profile: Bytes,
    },
    /// DUM of S with a payload.
    AdaptedData {
        /// Transaction.
        xid: u32,
        /// Number of the part.
        part: u32,
        /// The octets that follow in the adapted message.
        payload: Bytes,
        /// The payload equals the original from here on, says S. Only if that range was sent; else it was ignored.
        as_is: Option<u64>,
        /// Per cent of certainty that the message is modified, if S said so here.
        modp: Option<u32>,
    },
    /// DUY: this range of the original follows in the adapted message. Within what was announced as kept, and within
    /// the original as far as its length is known here; the caller checks against the real length.
    UseOriginal {
        /// Transaction.
        xid: u32,
        /// First octet in the original.
        offset: u64,
        /// Octets.
        size: u64,
    },
    /// AME 200 or 206 of S.
    AdaptedEnd {
        /// Transaction.
        xid: u32,
        /// How.
        end: AdaptedEnd,
        /// AME.profile, opaque.
        profile: Bytes,
    },
    /// The transaction is over. `Ok`: TE 200 after a whole adapted message. `Err`: nothing that came for it may be used
    /// (RFC 4037 §10.10).
    Ended {
        /// Transaction.
        xid: u32,
        /// How.
        result: Result<(), Failure>,
    },
    /// More of the original may be sent: see [`Processor::sendable`].
    Sendable {
        /// Transaction.
        xid: u32,
    },
    /// DWSR: the first `size` octets are enough. Send at least these, then `finish(xid, false)`.
    StopReceiving {
        /// Transaction.
        xid: u32,
        /// Octets from the start of the original.
        size: u64,
    },
    /// DWSS that P could not answer by itself because it does not keep all from here on: [`Processor::stop_sending`].
    StopSendingWanted {
        /// Transaction.
        xid: u32,
    },
    /// DPI: only this range of the original may still be named by S.
    Released {
        /// Transaction.
        xid: u32,
        /// What has to be kept for DUY.
        reusable: Range<u64>,
    },
    /// PA or PR.
    Progress {
        /// Transaction that S works on.
        xid: Option<u32>,
        /// Octets of original that S has received.
        org_data: Option<u64>,
    },
    /// AA; answers come in the order of the questions.
    Ability {
        /// Whether S supports the feature.
        supported: bool,
    },
    /// The connection is over; all transactions have had their `Ended`. Write the remaining output, then close.
    ConnectionEnded {
        /// `Ok`: CE 200.
        result: Result<(), Failure>,
    },
}
