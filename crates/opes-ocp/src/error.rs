//! [`CallError`]: local calls that the protocol or a limit forbids. Such a call changes nothing.

use thiserror::Error;

/// Why a call was refused. The state is as before the call.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// CE was sent or received, or the stream was lost.
    #[error("the connection has ended: open a new one")]
    ConnectionEnded,
    /// The profile is not in force yet: wait for `Negotiated`.
    #[error("the profile is not agreed yet: wait for Negotiated")]
    NotNegotiated,
    /// The connection takes no new transactions.
    #[error("the connection is draining: open a new one")]
    Draining,
    /// Id space used up (RFC 4037 §10.2); the connection ends when its last transaction has.
    #[error("the identifiers of this connection are used up: open a new one")]
    IdsExhausted,
    /// A limit of ours or of the peer.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: u64,
    },
    /// No such group.
    #[error("service group {0} does not exist")]
    UnknownGroup(u32),
    /// Never started or already ended; the latter is normal when calls cross a TE.
    #[error("transaction {0} is not open")]
    UnknownTransaction(u32),
    /// Data before the start of the flow.
    #[error("the flow has not been started")]
    FlowNotStarted,
    /// One message for each flow (RFC 4037 §2.4).
    #[error("the flow was started before")]
    FlowStartedTwice,
    /// Data after the end of the flow.
    #[error("the flow has ended")]
    FlowEnded,
    /// More than credit, a pause or the negotiation allows at this time: wait for `Sendable`.
    #[error("{asked} octets where {sendable} may be sent now: wait for Sendable")]
    NotSendable {
        /// Octets of the call.
        asked: u64,
        /// Octets possible now.
        sendable: u64,
    },
    /// RFC 4037 §10.3, §10.4.
    #[error("size or offset above the agreed maximum")]
    OffsetTooLarge,
    /// AM-EL was announced and would be wrong (RFC 4236 §3.3).
    #[error("the message does not have the announced length of {0} octets")]
    Length(u64),
    /// Parts come in the order of their numbers (RFC 4236 §3.2.1).
    #[error("part {got} after part {last}")]
    PartOrder {
        /// The part so far.
        last: u32,
        /// The part of the call.
        got: u32,
    },
    /// An absent part is skipped, not sent empty.
    #[error("part {0} would begin with an empty payload")]
    EmptyPart(u32),
    /// A limit only grows.
    #[error("the credit limit would shrink to {0}")]
    CreditShrinks(u64),
    /// Credit was not agreed.
    #[error("credit is not in force on this connection")]
    NoCredit,
    /// `Rest` without DSS and without the standing stop, or with another J than DSS said.
    #[error("ending early from {0} was not granted")]
    StopNotGranted(u64),
    /// After DSS only `Rest` is possible (RFC 4037 §11.14).
    #[error("the peer granted the early end: end with Rest from {0}")]
    StopGranted(u64),
    /// AME 206 must not precede DSS (RFC 4037 §8.3).
    #[error("the early end of the adapted flow has to be granted first")]
    StopPending,
    /// DSS is not possible: not asked for, or AME 206 was sent.
    #[error("the early end of the adapted flow cannot be granted")]
    StopImpossible,
    /// DUY of what P does not keep or S gave up.
    #[error("octets {offset}+{size} of the original are not kept for use")]
    NotPreserved {
        /// First octet.
        offset: u64,
        /// Octets.
        size: u64,
    },
    /// RFC 4037 §11.11.
    #[error("the interest in the original would grow again")]
    InterestGrows,
    /// RFC 4037 §7.
    #[error("the kept range would lose octets that were not released")]
    KeptShrinks,
    /// Modp above 100, or against an earlier 0 or 100.
    #[error("Modp {0} is impossible here")]
    Modp(u32),
    /// The adapted flow has not ended.
    #[error("the adapted flow has not ended: abort instead")]
    AdaptedNotEnded,
    /// RFC 4037 §11.18.
    #[error("an offer is unanswered")]
    OfferOutstanding,
}
