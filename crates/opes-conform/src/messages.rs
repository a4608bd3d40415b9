//! OCP messages in one word each, as docs/ocp-smtp.md names them, and how they are written down.

use bytes::Bytes;
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{
    AbilityAnswer, AbilityQuery, ApplicationMessageEnd, ApplicationMessageStart, ConnectionEnd,
    ConnectionStart, DataUseMine, Feature, NegotiationOffer, ProgressQuery, Result as OcpResult,
    Service, ServiceGroupCreated, ServiceGroupDestroyed, TransactionEnd, TransactionStart,
    WantDataPaused, WantMoreData,
};
use opes_proto::smtp::{PROFILE_URI, ProfileOffer};
use prost::Message as _;

/// Octets of one message in a transcript.
const SHOWN_MAX: usize = 400;

/// A feature that nobody knows.
pub(crate) const UNKNOWN_URI: &str = "https://example.com/ns/unknown";

pub(crate) fn result(code: u32) -> OcpResult {
    OcpResult {
        code,
        reason: "conformance".to_owned(),
    }
}

pub(crate) fn cs() -> Kind {
    Kind::ConnectionStart(ConnectionStart {})
}

pub(crate) fn ce() -> Kind {
    Kind::ConnectionEnd(ConnectionEnd { result: None })
}

pub(crate) fn profile_feature(offer: &ProfileOffer) -> Feature {
    Feature {
        uri: PROFILE_URI.to_owned(),
        parameters: offer.encode_to_vec().into(),
    }
}

pub(crate) fn unknown_feature() -> Feature {
    Feature {
        uri: UNKNOWN_URI.to_owned(),
        parameters: Bytes::new(),
    }
}

pub(crate) fn no(features: Vec<Feature>) -> NegotiationOffer {
    NegotiationOffer {
        features,
        sg_id: None,
        offer_pending: false,
    }
}

pub(crate) fn sgc(sg_id: u32, parameters: Bytes) -> Kind {
    let service = Service {
        uri: PROFILE_URI.to_owned(),
        parameters,
    };
    Kind::ServiceGroupCreated(ServiceGroupCreated {
        sg_id,
        services: vec![service],
    })
}

pub(crate) fn sgd(sg_id: u32) -> Kind {
    Kind::ServiceGroupDestroyed(ServiceGroupDestroyed { sg_id })
}

pub(crate) fn ts(xid: u32, sg_id: u32) -> Kind {
    Kind::TransactionStart(TransactionStart {
        xid,
        sg_id,
        budget_ms: 0,
        traceparent: String::new(),
    })
}

pub(crate) fn te(xid: u32, result: Option<OcpResult>) -> Kind {
    Kind::TransactionEnd(TransactionEnd { xid, result })
}

pub(crate) fn ams(xid: u32, profile: Bytes, am_el: Option<u64>) -> Kind {
    Kind::ApplicationMessageStart(ApplicationMessageStart {
        xid,
        services: Vec::new(),
        am_el,
        profile,
    })
}

pub(crate) fn ame(xid: u32, result: Option<OcpResult>) -> Kind {
    Kind::ApplicationMessageEnd(ApplicationMessageEnd {
        xid,
        result,
        original_offset: None,
        profile: Bytes::new(),
    })
}

pub(crate) fn dum(xid: u32, offset: u64, part: u32, payload: impl Into<Bytes>) -> Kind {
    Kind::DataUseMine(DataUseMine {
        xid,
        offset,
        payload: Some(payload.into()),
        as_is: None,
        modp: None,
        kept: None,
        part,
    })
}

pub(crate) fn dwp(xid: u32, offset: u64) -> Kind {
    Kind::WantDataPaused(WantDataPaused { xid, offset })
}

pub(crate) fn dwm(xid: u32, limit_offset: Option<u64>) -> Kind {
    Kind::WantMoreData(WantMoreData {
        xid,
        size_request: None,
        limit_offset,
    })
}

pub(crate) fn pq(xid: Option<u32>) -> Kind {
    Kind::ProgressQuery(ProgressQuery { xid })
}

pub(crate) fn aq(feature: Feature) -> Kind {
    Kind::AbilityQuery(AbilityQuery {
        feature: Some(feature),
    })
}

pub(crate) fn aa() -> Kind {
    Kind::AbilityAnswer(AbilityAnswer { supported: true })
}

/// The code that a result means: absent = 200.
pub(crate) fn code(result: Option<&OcpResult>) -> u32 {
    result.map_or(200, |result| result.code)
}

/// The transaction that a message belongs to.
pub(crate) fn xid(kind: &Kind) -> Option<u32> {
    match kind {
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
        _ => None,
    }
}

/// May be sent while a negotiation phase is open.
pub(crate) fn fits_a_phase(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::NegotiationOffer(_)
            | Kind::NegotiationResponse(_)
            | Kind::AbilityQuery(_)
            | Kind::AbilityAnswer(_)
            | Kind::ProgressQuery(_)
            | Kind::ProgressAnswer(_)
            | Kind::ProgressReport(_)
            | Kind::ConnectionEnd(_)
    )
}

/// For transcripts and findings.
pub(crate) fn shown(kind: &Kind) -> String {
    let mut text = match kind {
        Kind::DataUseMine(m) => format!(
            "DataUseMine {{ xid: {}, offset: {}, part: {}, payload: {} octets }}",
            m.xid,
            m.offset,
            m.part,
            m.payload.as_ref().map_or(0, Bytes::len)
        ),
        kind => {
            let text = format!("{kind:?}");
            // `Kind(Message { … })`: the inner name says it.
            let inner = text.split_once('(').map(|(_, inner)| inner.to_owned());
            inner.map_or(text, |mut inner| {
                inner.pop();
                inner
            })
        }
    };
    if text.len() > SHOWN_MAX {
        let cut = (0..=SHOWN_MAX).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(cut.unwrap_or_default());
        text.push('…');
    }
    text
}
