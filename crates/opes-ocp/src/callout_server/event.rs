//! What S tells its shell.

use bytes::Bytes;
use opes_proto::ocp::{Feature, Service};

use crate::violation::{Failure, OriginalEnd};

/// What S has to know or do. Of each `Started` transaction exactly one `Ended` comes, as its last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// The profile is in force.
    Negotiated {
        /// As P offered it.
        offer: Feature,
    },
    /// Answer to [`CalloutServer::offer`]; `None` also when it was dropped for an offer of P (RFC 4037 §11.18).
    OfferAnswered {
        /// What P selected.
        selected: Option<Feature>,
        /// Scope of the offer.
        sg_id: Option<u32>,
    },
    /// SGC: services in the order of application. A group that cannot be served ends the connection
    /// (RFC 4037 §11.3): [`CalloutServer::close`].
    GroupCreated {
        /// Group.
        sg_id: u32,
        /// Its services.
        services: Vec<Service>,
    },
    /// SGD: running transactions go on, new ones cannot name it.
    GroupDestroyed {
        /// Group.
        sg_id: u32,
    },
    /// TS.
    Started {
        /// Transaction.
        xid: u32,
        /// A live group.
        sg_id: u32,
        /// Time budget in milliseconds, enforced here too; 0 = not stated.
        budget_ms: u32,
        /// W3C trace context; empty = none.
        traceparent: String,
    },
    /// AMS of P.
    OriginalStart {
        /// Transaction.
        xid: u32,
        /// Exact size of the whole original in octets, if P knows it.
        am_el: Option<u64>,
        /// AMS.profile, opaque.
        profile: Bytes,
    },
    /// DUM of P with a payload.
    OriginalData {
        /// Transaction.
        xid: u32,
        /// Octets of original before this payload.
        offset: u64,
        /// Number of the part.
        part: u32,
        /// The octets.
        payload: Bytes,
    },
    /// AME of P.
    OriginalEnd {
        /// Transaction.
        xid: u32,
        /// How.
        end: OriginalEnd,
    },
    /// DSS: send the adapted form of exactly the first `from` octets, then `Rest { from }`, at once.
    StopSending {
        /// Transaction.
        xid: u32,
        /// J.
        from: u64,
    },
    /// More of the adapted flow may be sent: see [`CalloutServer::sendable`].
    Sendable {
        /// Transaction.
        xid: u32,
    },
    /// The transaction is over. `Err`: what was received has to be purged.
    Ended {
        /// Transaction.
        xid: u32,
        /// How.
        result: Result<(), Failure>,
    },
    /// PA or PR.
    Progress {
        /// Transaction that P works on.
        xid: Option<u32>,
        /// Octets of original that P has sent.
        org_data: Option<u64>,
    },
    /// AA; answers come in the order of the questions.
    Ability {
        /// Whether P supports the feature.
        supported: bool,
    },
    /// The connection is over; all transactions have had their `Ended`. Write the remaining output, then close.
    ConnectionEnded {
        /// `Ok`: CE 200.
        result: Result<(), Failure>,
    },
}
