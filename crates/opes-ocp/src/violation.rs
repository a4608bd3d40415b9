//! What a peer can do wrong ([`Rule`]) and why a transaction or a connection did not end well ([`Failure`]).

use thiserror::Error;

/// A rule that a received message broke. The text goes as the reason into the TE 400 or CE 400 (RFC 4037 §5).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rule {
    /// RFC 4037 §11.1.
    #[error("the first message was not CS")]
    FirstNotStart,
    /// RFC 4037 §6.1; the profile comes before groups and transactions.
    #[error("{0} before the profile was agreed")]
    NotNegotiated(&'static str),
    /// The role of the sender does not send this message (RFC 4037 Appendix A).
    #[error("{0} is not for this role to send")]
    WrongRole(&'static str),
    /// A required member is absent.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// RFC 4037 §10.2.
    #[error("id {0} is above 2147483647")]
    IdTooLarge(u32),
    /// RFC 4037 §10.2.
    #[error("id {id} is not above {highest}, the highest one so far")]
    IdNotIncreasing {
        /// The id that came.
        id: u32,
        /// The highest one so far.
        highest: u32,
    },
    /// RFC 4037 §11.5, §11.4, §11.18.
    #[error("service group {0} does not exist")]
    UnknownGroup(u32),
    /// The id was never started.
    #[error("transaction {0} was never started")]
    UnknownTransaction(u32),
    /// A limit of ours (RFC 4037 §13).
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: u64,
    },
    /// Sent in CE or TE when we are about to close.
    #[error("no new transactions: the connection is draining")]
    Draining,
    /// RFC 4037 §11.18.
    #[error("NO while an earlier offer was unanswered")]
    OfferWhilePending,
    /// RFC 4037 §11.19.
    #[error("NR without an offer")]
    ResponseWithoutOffer,
    /// RFC 4037 §11.19.
    #[error("NR for another scope than the offer")]
    ResponseScope,
    /// RFC 4037 §11.19.
    #[error("NR selected a feature that was not offered")]
    FeatureNotOffered,
    /// The profile is not agreed and no further offer is announced.
    #[error("no common profile")]
    NoProfile,
    /// RFC 4037 §11.21.
    #[error("AA without AQ")]
    AnswerWithoutQuery,
    /// RFC 4037 §11.7, §11.8.
    #[error("data or end of a flow before its AMS")]
    FlowNotStarted,
    /// RFC 4037 §2.4: one application message for each flow.
    #[error("second AMS in one flow")]
    FlowStartedTwice,
    /// RFC 4037 §11.8.
    #[error("data or end of a flow after its AME")]
    FlowEnded,
    /// RFC 4037 §11.9: no gap, no overlap.
    #[error("offset {got} where {expected} has to follow")]
    Offset {
        /// Octets of the flow so far.
        expected: u64,
        /// What the message said.
        got: u64,
    },
    /// RFC 4037 §10.3, §10.4.
    #[error("size or offset above the agreed maximum")]
    OffsetTooLarge,
    /// RFC 4236 §3.3: AM-EL is exact.
    #[error("the message does not have the announced length of {0} octets")]
    Length(u64),
    /// Credit extension.
    #[error("data beyond the credit limit {0}")]
    BeyondCredit(u64),
    /// Credit extension: limits only grow.
    #[error("the credit limit shrinks to {0}")]
    CreditShrinks(u64),
    /// RFC 4037 §11.16.
    #[error("data in spite of DPM")]
    DataWhilePaused,
    /// RFC 4236 §3.2.1.
    #[error("part {got} after part {last}")]
    PartOrder {
        /// The part so far.
        last: u32,
        /// The part that came.
        got: u32,
    },
    /// RFC 4236 §3.2.1: an absent part is skipped, not sent empty.
    #[error("part {0} begins with an empty payload")]
    EmptyPart(u32),
    /// RFC 4037 §8, §11.13.
    #[error("AME 206 without DSS")]
    StopNotGranted,
    /// RFC 4037 §11.14: we take an unsolicited DSS as invalid.
    #[error("DSS that was not asked for")]
    StopUnsolicited,
    /// J of DSS or AME 206 is wrong, or AME 206 has none.
    #[error("the joint (original_offset) is missing or wrong")]
    StopOffset,
    /// DUY outside of what is kept (RFC 4037 §7, §11.10).
    #[error("DUY of octets {offset}+{size} that are not kept for it")]
    NotPreserved {
        /// First octet.
        offset: u64,
        /// Octets.
        size: u64,
    },
    /// RFC 4037 §11.11.
    #[error("DPI for octets that were given up before")]
    InterestGrows,
    /// RFC 4037 §11.9.
    #[error("Kept shrinks over octets that were not released")]
    KeptShrinks,
    /// RFC 4037 §10.5.
    #[error("Modp {0} is above 100")]
    Modp(u32),
    /// Modp 0 and 100 may be relied on (RFC 4037 §10.5, §10.9).
    #[error("what was sent contradicts Modp {0}")]
    ModpBroken(u32),
}

/// Why a transaction or a connection failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The peer ended it with a failure code, or with a code unknown there (RFC 4037 §10.10).
    #[error("the peer gave up: {reason}")]
    Peer {
        /// For people; cut to 512 octets.
        reason: String,
    },
    /// The peer broke the protocol.
    #[error("protocol violation by the peer: {0}")]
    Violation(#[from] Rule),
    /// We gave up.
    #[error("given up here: {reason}")]
    Local {
        /// For people.
        reason: String,
    },
    /// TE 200 before the adapted flow had ended.
    #[error("the peer ended the transaction before its answer was complete")]
    Unfinished,
    /// The connection ended under the transaction, or was lost.
    #[error("the connection ended")]
    ConnectionLost,
    /// RFC 4037 §2.7: no octet of either flow moved for too long.
    #[error("no progress for {0} ms")]
    NoProgress(u64),
    /// The time budget of the transaction is spent.
    #[error("the time budget of {0} ms is spent")]
    BudgetSpent(u32),
}

impl Failure {
    pub(crate) fn local(reason: &str) -> Self {
        Self::Local {
            reason: reason.to_owned(),
        }
    }
}

/// How the original flow ended, seen by S.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginalEnd {
    /// AME 200: that was the whole message.
    Complete,
    /// AME 206: P stopped early; there is more that was not sent.
    Partial,
    /// AME 400, with the reason for people: what was received has to be purged.
    Failed(String),
}
