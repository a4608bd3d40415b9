//! Small constructors of OCP messages and the reading of results, so that the machines read like the RFC.

use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{
    ApplicationMessageEnd, ConnectionEnd, Feature, Message, PausedMyData, Result as Code, Service,
    TransactionEnd, WantMoreData,
};

use crate::limits::{Limits, REASON_OCTETS_MAX};
use crate::violation::Rule;

/// RFC 4037 §10.10.
pub(crate) const OK: u32 = 200;
/// RFC 4037 §10.10: AME only.
pub(crate) const PARTIAL: u32 = 206;
/// RFC 4037 §10.10.
pub(crate) const FAILURE: u32 = 400;

/// A result code as its context sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Ok,
    Partial,
    Failure,
}

pub(crate) fn message(kind: Kind) -> Message {
    Message { kind: Some(kind) }
}

pub(crate) fn failure(reason: &str) -> Code {
    Code {
        code: FAILURE,
        reason: cut(reason).to_owned(),
    }
}

pub(crate) fn transaction_end(xid: u32, result: Option<Code>) -> Message {
    message(Kind::TransactionEnd(TransactionEnd { xid, result }))
}

pub(crate) fn connection_end(result: Option<Code>) -> Message {
    message(Kind::ConnectionEnd(ConnectionEnd { result }))
}

pub(crate) fn message_end(xid: u32, result: Option<Code>) -> ApplicationMessageEnd {
    ApplicationMessageEnd {
        xid,
        result,
        ..Default::default()
    }
}

pub(crate) fn partial() -> Code {
    Code {
        code: PARTIAL,
        reason: String::new(),
    }
}

pub(crate) fn paused(xid: u32) -> Message {
    message(Kind::PausedMyData(PausedMyData { xid }))
}

pub(crate) fn more(xid: u32, limit_offset: Option<u64>) -> Message {
    message(Kind::WantMoreData(WantMoreData {
        xid,
        size_request: None,
        limit_offset,
    }))
}

/// A result outside of AME: absent = 200, and 206 is as unknown there as any other code, so a failure.
pub(crate) fn ending(result: Option<&Code>) -> Ending {
    match result.map_or(OK, |r| r.code) {
        OK => Ending::Ok,
        _ => Ending::Failure,
    }
}

/// A result of AME.
pub(crate) fn message_ending(result: Option<&Code>) -> Ending {
    match result.map_or(OK, |r| r.code) {
        OK => Ending::Ok,
        PARTIAL => Ending::Partial,
        _ => Ending::Failure,
    }
}

pub(crate) fn reason(result: Option<Code>) -> String {
    result.map_or_else(String::new, |r| cut(&r.reason).to_owned())
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(REASON_OCTETS_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

pub(crate) fn check_features(features: &[Feature], limits: &Limits) -> Result<(), Rule> {
    check_count("features", features.len(), limits.features_max)?;
    features
        .iter()
        .try_for_each(|f| check_parameters(f.parameters.len().max(f.uri.len()), limits))
}

pub(crate) fn check_services(services: &[Service], limits: &Limits) -> Result<(), Rule> {
    check_count("services", services.len(), limits.services_max)?;
    services
        .iter()
        .try_for_each(|s| check_parameters(s.parameters.len().max(s.uri.len()), limits))
}

pub(crate) fn check_parameters(octets: usize, limits: &Limits) -> Result<(), Rule> {
    check_count("octets of parameters", octets, limits.parameters_octets_max)
}

pub(crate) fn check_count(what: &'static str, count: usize, max: usize) -> Result<(), Rule> {
    if count > max {
        Err(Rule::TooMany {
            what,
            max: max as u64,
        })
    } else {
        Ok(())
    }
}

/// End of a range, if neither it nor its parts exceed `max`.
pub(crate) fn range_end(offset: u64, size: u64, max: u64) -> Result<u64, Rule> {
    if offset > max || size > max {
        return Err(Rule::OffsetTooLarge);
    }
    offset.checked_add(size).ok_or(Rule::OffsetTooLarge)
}
