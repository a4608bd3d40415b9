//! Both roles with a small profile, and short names for the messages of RFC 4037.

use bytes::Bytes;
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{
    AbilityQuery, ApplicationMessageEnd, ApplicationMessageStart, ConnectionEnd, ConnectionStart,
    DataPreservationInterest, DataUseMine, DataUseYours, Feature, Message, NegotiationOffer,
    NegotiationResponse, PausedMyData, ProgressQuery, Range, Result as Code, Service,
    ServiceGroupCreated, ServiceGroupDestroyed, StopSendingData, TransactionEnd, TransactionStart,
    WantDataPaused, WantMoreData, WantStopReceivingData, WantStopSendingData,
};

use crate::{
    CalloutServer, Extensions, Failure, Limits, Processor, ProcessorConfig, ProcessorEvent,
    Selection, ServerConfig, ServerEvent, StartTransaction, Terms,
};

pub(super) const PROFILE: &str = "https://example.com/ocp/test";
/// First credit of both flows where credit is in force.
pub(super) const CREDIT: u64 = 16;
/// Core as the RFC has it.
pub(super) const PLAIN: Extensions = Extensions {
    credit: false,
    standing_stop: false,
    keeps_all: false,
    large_offsets: false,
};
/// Core with a P that keeps everything.
pub(super) const KEEPS: Extensions = Extensions {
    keeps_all: true,
    ..PLAIN
};

pub(super) fn limits() -> Limits {
    Limits {
        payload_octets_max: 64,
        transactions_max: 4,
        groups_max: 3,
        ..Limits::default()
    }
}

pub(super) fn feature(uri: &str) -> Feature {
    Feature {
        uri: uri.into(),
        parameters: Bytes::new(),
    }
}

pub(super) fn service(uri: &str) -> Service {
    Service {
        uri: uri.into(),
        parameters: Bytes::new(),
    }
}

pub(super) fn new_processor(extensions: Extensions, limits: Limits) -> Processor {
    let accept = Box::new(|_: &Feature| {
        Some(Terms {
            original_credit: CREDIT,
            transactions_max: 0,
        })
    });
    let config = ProcessorConfig {
        offer: feature(PROFILE),
        accept,
        adapted_credit: CREDIT,
        extensions,
        limits,
    };
    Processor::new(config, 0)
}

pub(super) fn new_server(extensions: Extensions, limits: Limits) -> CalloutServer {
    let select = Box::new(move |_: &Feature| {
        Some(Selection {
            parameters: Bytes::new(),
            original_credit: CREDIT,
            adapted_credit: CREDIT,
            extensions,
        })
    });
    CalloutServer::new(
        ServerConfig {
            profile: PROFILE.into(),
            select,
            limits,
        },
        0,
    )
}

/// P after negotiation, with group 0, output drained.
pub(super) fn processor(extensions: Extensions) -> Processor {
    processor_with(extensions, limits())
}

pub(super) fn processor_with(extensions: Extensions, limits: Limits) -> Processor {
    let mut p = new_processor(extensions, limits);
    feed(&mut p, [cs(), nr(Some(PROFILE))]);
    assert_eq!(p.create_group(vec![service("a")]), Ok(0));
    out(&mut p);
    events(&mut p);
    p
}

/// P with one transaction, xid 0, output drained.
pub(super) fn working_processor(extensions: Extensions) -> Processor {
    let mut p = processor(extensions);
    assert_eq!(p.start(StartTransaction::default()), Ok(0));
    out(&mut p);
    p
}

/// S after negotiation, with group 0, output drained.
pub(super) fn server(extensions: Extensions) -> CalloutServer {
    server_with(extensions, limits())
}

pub(super) fn server_with(extensions: Extensions, limits: Limits) -> CalloutServer {
    let mut s = new_server(extensions, limits);
    feed(&mut s, [cs(), no(&[PROFILE]), sgc(0)]);
    out(&mut s);
    events(&mut s);
    s
}

/// S with transaction 0, its AMS received and its own sent, output drained.
pub(super) fn working_server(extensions: Extensions) -> CalloutServer {
    let mut s = server(extensions);
    feed(&mut s, [ts(0, 0), ams(0)]);
    s.adapted_start(0, vec![], Bytes::new())
        .expect("an open transaction");
    out(&mut s);
    events(&mut s);
    s
}

/// What is the same for both roles.
pub(super) trait Agent {
    type Event: PartialEq + std::fmt::Debug;
    fn take(&mut self, message: Message);
    fn give(&mut self, into: &mut Vec<Message>);
    fn event(&mut self) -> Option<Self::Event>;
}

macro_rules! agent {
    ($role:ty, $event:ty) => {
        impl Agent for $role {
            type Event = $event;
            fn take(&mut self, message: Message) {
                self.receive(message);
            }
            fn give(&mut self, into: &mut Vec<Message>) {
                self.drain_output(into);
            }
            fn event(&mut self) -> Option<$event> {
                self.next_event()
            }
        }
    };
}
agent!(Processor, ProcessorEvent);
agent!(CalloutServer, ServerEvent);

pub(super) fn feed<A: Agent>(agent: &mut A, messages: impl IntoIterator<Item = Message>) {
    messages.into_iter().for_each(|m| agent.take(m));
}

pub(super) fn out<A: Agent>(agent: &mut A) -> Vec<Message> {
    let mut messages = Vec::new();
    agent.give(&mut messages);
    messages
}

pub(super) fn events<A: Agent>(agent: &mut A) -> Vec<A::Event> {
    std::iter::from_fn(|| agent.event()).collect()
}

/// Abbreviations of the RFC, with the code where there is one: `TE 400`.
pub(super) fn names(messages: &[Message]) -> Vec<String> {
    messages.iter().map(name).collect()
}

pub(super) fn sent<A: Agent>(agent: &mut A) -> Vec<String> {
    names(&out(agent))
}

fn name(message: &Message) -> String {
    let code = |c: &Option<Code>| c.as_ref().map_or(200, |c| c.code);
    match message.kind.as_ref() {
        None => "?".into(),
        Some(Kind::ConnectionStart(_)) => "CS".into(),
        Some(Kind::ConnectionEnd(m)) => format!("CE {}", code(&m.result)),
        Some(Kind::ServiceGroupCreated(_)) => "SGC".into(),
        Some(Kind::ServiceGroupDestroyed(_)) => "SGD".into(),
        Some(Kind::TransactionStart(_)) => "TS".into(),
        Some(Kind::TransactionEnd(m)) => format!("TE {}", code(&m.result)),
        Some(Kind::ApplicationMessageStart(_)) => "AMS".into(),
        Some(Kind::ApplicationMessageEnd(m)) => format!("AME {}", code(&m.result)),
        Some(Kind::DataUseMine(_)) => "DUM".into(),
        Some(Kind::DataUseYours(_)) => "DUY".into(),
        Some(Kind::DataPreservationInterest(_)) => "DPI".into(),
        Some(Kind::WantStopReceivingData(_)) => "DWSR".into(),
        Some(Kind::WantStopSendingData(_)) => "DWSS".into(),
        Some(Kind::StopSendingData(_)) => "DSS".into(),
        Some(Kind::WantDataPaused(_)) => "DWP".into(),
        Some(Kind::PausedMyData(_)) => "DPM".into(),
        Some(Kind::WantMoreData(_)) => "DWM".into(),
        Some(Kind::NegotiationOffer(_)) => "NO".into(),
        Some(Kind::NegotiationResponse(m)) => {
            if m.feature.is_some() {
                "NR+".into()
            } else {
                "NR-".into()
            }
        }
        Some(Kind::AbilityQuery(_)) => "AQ".into(),
        Some(Kind::AbilityAnswer(m)) => format!("AA {}", m.supported),
        Some(Kind::ProgressQuery(_)) => "PQ".into(),
        Some(Kind::ProgressAnswer(_)) => "PA".into(),
        Some(Kind::ProgressReport(_)) => "PR".into(),
    }
}

/// How transaction `xid` of P ended.
pub(super) fn ending_of_p(events: &[ProcessorEvent], xid: u32) -> Option<Result<(), Failure>> {
    events.iter().find_map(|e| match e {
        ProcessorEvent::Ended { xid: x, result } if *x == xid => Some(result.clone()),
        _ => None,
    })
}

/// How transaction `xid` of S ended.
pub(super) fn ending_of_s(events: &[ServerEvent], xid: u32) -> Option<Result<(), Failure>> {
    events.iter().find_map(|e| match e {
        ServerEvent::Ended { xid: x, result } if *x == xid => Some(result.clone()),
        _ => None,
    })
}

/// Feeds `messages` to P in transaction 0 and expects TE 400 as the only answer, for a violation.
pub(super) fn p_refuses(
    p: &mut Processor,
    messages: impl IntoIterator<Item = Message>,
) -> crate::Rule {
    feed(p, messages);
    assert_eq!(sent(p), ["TE 400"]);
    match ending_of_p(&events(p), 0) {
        Some(Err(Failure::Violation(rule))) => rule,
        other => panic!("not a violation: {other:?}"),
    }
}

/// As `p_refuses`, for S.
pub(super) fn s_refuses(
    s: &mut CalloutServer,
    messages: impl IntoIterator<Item = Message>,
) -> crate::Rule {
    feed(s, messages);
    assert_eq!(sent(s), ["TE 400"]);
    match ending_of_s(&events(s), 0) {
        Some(Err(Failure::Violation(rule))) => rule,
        other => panic!("not a violation: {other:?}"),
    }
}

pub(super) fn kind(kind: Kind) -> Message {
    Message { kind: Some(kind) }
}
pub(super) fn code(code: u32) -> Code {
    Code {
        code,
        reason: String::new(),
    }
}
pub(super) fn cs() -> Message {
    kind(Kind::ConnectionStart(ConnectionStart {}))
}
pub(super) fn ce(result: u32) -> Message {
    kind(Kind::ConnectionEnd(ConnectionEnd {
        result: Some(code(result)),
    }))
}
pub(super) fn offer(uris: &[&str]) -> NegotiationOffer {
    NegotiationOffer {
        features: uris.iter().map(|u| feature(u)).collect(),
        ..Default::default()
    }
}
pub(super) fn no(uris: &[&str]) -> Message {
    kind(Kind::NegotiationOffer(offer(uris)))
}
pub(super) fn no_pending(uris: &[&str]) -> Message {
    kind(Kind::NegotiationOffer(NegotiationOffer {
        offer_pending: true,
        ..offer(uris)
    }))
}
pub(super) fn nr(uri: Option<&str>) -> Message {
    kind(Kind::NegotiationResponse(NegotiationResponse {
        feature: uri.map(feature),
        ..Default::default()
    }))
}
pub(super) fn sgc(sg_id: u32) -> Message {
    kind(Kind::ServiceGroupCreated(ServiceGroupCreated {
        sg_id,
        services: vec![service("a")],
    }))
}
pub(super) fn sgd(sg_id: u32) -> Message {
    kind(Kind::ServiceGroupDestroyed(ServiceGroupDestroyed { sg_id }))
}
pub(super) fn ts(xid: u32, sg_id: u32) -> Message {
    kind(Kind::TransactionStart(TransactionStart {
        xid,
        sg_id,
        ..Default::default()
    }))
}
pub(super) fn te(xid: u32, result: u32) -> Message {
    kind(Kind::TransactionEnd(TransactionEnd {
        xid,
        result: Some(code(result)),
    }))
}
pub(super) fn ams(xid: u32) -> Message {
    kind(Kind::ApplicationMessageStart(ApplicationMessageStart {
        xid,
        ..Default::default()
    }))
}
pub(super) fn ams_of(xid: u32, am_el: u64) -> Message {
    kind(Kind::ApplicationMessageStart(ApplicationMessageStart {
        xid,
        am_el: Some(am_el),
        ..Default::default()
    }))
}
pub(super) fn ame(xid: u32, result: u32) -> Message {
    kind(Kind::ApplicationMessageEnd(ApplicationMessageEnd {
        xid,
        result: Some(code(result)),
        ..Default::default()
    }))
}
pub(super) fn ame_from(xid: u32, joint: u64) -> Message {
    let end = ApplicationMessageEnd {
        xid,
        result: Some(code(206)),
        original_offset: Some(joint),
        ..Default::default()
    };
    kind(Kind::ApplicationMessageEnd(end))
}
pub(super) fn data(xid: u32, offset: u64, payload: &str) -> DataUseMine {
    let payload = Some(Bytes::copy_from_slice(payload.as_bytes()));
    DataUseMine {
        xid,
        offset,
        payload,
        ..Default::default()
    }
}
pub(super) fn dum(xid: u32, offset: u64, payload: &str) -> Message {
    kind(Kind::DataUseMine(data(xid, offset, payload)))
}
pub(super) fn kept(xid: u32, offset: u64, (from, size): (u64, u64)) -> Message {
    let kept = Some(Range { offset: from, size });
    kind(Kind::DataUseMine(DataUseMine {
        kept,
        ..data(xid, offset, "")
    }))
}
pub(super) fn duy(xid: u32, original_offset: u64, size: u64) -> Message {
    kind(Kind::DataUseYours(DataUseYours {
        xid,
        original_offset,
        size,
    }))
}
pub(super) fn dpi(xid: u32, original_offset: u64, size: u64) -> Message {
    kind(Kind::DataPreservationInterest(DataPreservationInterest {
        xid,
        original_offset,
        size,
    }))
}
pub(super) fn dwsr(xid: u32, size: u64) -> Message {
    kind(Kind::WantStopReceivingData(WantStopReceivingData {
        xid,
        size,
    }))
}
pub(super) fn dwss(xid: u32) -> Message {
    kind(Kind::WantStopSendingData(WantStopSendingData { xid }))
}
pub(super) fn dss(xid: u32, original_offset: u64) -> Message {
    kind(Kind::StopSendingData(StopSendingData {
        xid,
        original_offset,
    }))
}
pub(super) fn dwp(xid: u32, offset: u64) -> Message {
    kind(Kind::WantDataPaused(WantDataPaused { xid, offset }))
}
pub(super) fn dpm(xid: u32) -> Message {
    kind(Kind::PausedMyData(PausedMyData { xid }))
}
pub(super) fn dwm(xid: u32, limit_offset: Option<u64>) -> Message {
    kind(Kind::WantMoreData(WantMoreData {
        xid,
        size_request: Some(1),
        limit_offset,
    }))
}
pub(super) fn aq(uri: &str) -> Message {
    kind(Kind::AbilityQuery(AbilityQuery {
        feature: Some(feature(uri)),
    }))
}
pub(super) fn pq(xid: Option<u32>) -> Message {
    kind(Kind::ProgressQuery(ProgressQuery { xid }))
}
