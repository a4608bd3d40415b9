//! One transaction as P sees it: the original flow going out, the adapted flow coming in, and the early ends of both.

use bytes::Bytes;
use opes_proto::ocp::{
    ApplicationMessageEnd, ApplicationMessageStart, DataPreservationInterest, DataUseMine,
    DataUseYours, WantMoreData,
};

use super::{AdaptedEnd, ProcessorEvent, Profile, StartTransaction, Terms};
use crate::connection::Clock;
use crate::error::CallError;
use crate::flow::receiver::Receiver;
use crate::flow::sender::{PauseNow, Sender};
use crate::flow::{FlowTerms, Life};
use crate::limits::{Extensions, Limits};
use crate::preservation::Preservation;
use crate::violation::{Failure, Rule};
use crate::wire::{self, Ending};

#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) original: Sender,
    pub(super) adapted: Receiver,
    pub(super) preservation: Preservation,
    pub(super) clock: Clock,
    extensions: Extensions,
    stop: Stop,
    /// DWSR: octets that are enough for S.
    enough: Option<u64>,
    modp: Option<u32>,
}

/// DWSS → DSS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    None,
    Wanted,
    /// DSS was sent with this J.
    Granted(u64),
}

/// What a message of S leads to.
#[derive(Debug)]
pub(super) enum Step {
    Done,
    Tell(ProcessorEvent),
    /// Send DPM.
    Pause,
    /// Send DSS with this J.
    Grant(u64),
    /// Send TE 400 and end.
    Fail(Failure),
}

impl From<Rule> for Step {
    fn from(rule: Rule) -> Self {
        Self::Fail(Failure::Violation(rule))
    }
}

impl Transaction {
    pub(super) fn start(
        profile: &Profile,
        terms: Terms,
        start: &StartTransaction,
        now_ms: u64,
    ) -> Result<Self, CallError> {
        let extensions = profile.extensions;
        let flow = |credit: u64| FlowTerms {
            credit: extensions.credit.then_some(credit),
            offset_max: extensions.offset_max(),
        };
        let mut original = Sender::new(flow(terms.original_credit));
        original.start(start.am_el)?;
        Ok(Self {
            original,
            adapted: Receiver::new(flow(profile.adapted_credit)),
            preservation: Preservation::new(extensions.keeps_all),
            clock: Clock::new(now_ms, start.budget_ms),
            extensions,
            stop: Stop::None,
            enough: None,
            modp: None,
        })
    }

    pub(super) fn sendable(&self) -> u64 {
        let of_use = self
            .enough
            .map_or(u64::MAX, |size| size.saturating_sub(self.original.offset()));
        self.original.sendable().min(of_use)
    }

    /// DWSS came and is not answered, and the adapted flow goes on.
    pub(super) fn stop_is_pending(&self) -> bool {
        self.stop == Stop::Wanted && !self.adapted.life().has_ended()
    }

    /// J, if DSS can be sent now: asked for, adapted flow open, no AME 206 sent (RFC 4037 §8.3).
    pub(super) fn grant_stop(&mut self) -> Option<u64> {
        if !self.stop_is_pending() || self.original.life() == Life::EndedEarly {
            return None;
        }
        let joint = self.original.offset();
        self.stop = Stop::Granted(joint);
        Some(joint)
    }

    /// As `grant_stop`, if P is bound to hold all octets from J on, or none follow.
    pub(super) fn grant_stop_if_kept(&mut self) -> Option<u64> {
        let max = self.extensions.offset_max();
        let kept = self.preservation.keeps_from(self.original.offset(), max);
        if kept || self.original.life() == Life::Ended {
            self.grant_stop()
        } else {
            None
        }
    }

    /// Length of the whole original, if known here.
    fn original_length(&self) -> Option<u64> {
        match self.original.life() {
            Life::Ended => Some(self.original.offset()),
            Life::Idle | Life::Open | Life::EndedEarly => self.original.length(),
        }
    }

    // ---- messages of S ------------------------------------------------------------------------------------------------

    pub(super) fn on_start(
        &mut self,
        m: ApplicationMessageStart,
        limits: &Limits,
    ) -> Result<Step, Rule> {
        wire::check_services(&m.services, limits)?;
        wire::check_parameters(m.profile.len(), limits)?;
        self.adapted.on_start(m.am_el)?;
        let ApplicationMessageStart {
            xid,
            services,
            profile,
            ..
        } = m;
        Ok(Step::Tell(ProcessorEvent::AdaptedStart {
            xid,
            services,
            profile,
        }))
    }

    pub(super) fn on_data(
        &mut self,
        m: DataUseMine,
        limits: &Limits,
        now_ms: u64,
    ) -> Result<Step, Rule> {
        let payload = m.payload.ok_or(Rule::Missing("DUM payload"))?;
        wire::check_count(
            "octets of payload",
            payload.len(),
            limits.payload_octets_max,
        )?;
        let modp = self.on_modp(m.modp)?;
        let octets = payload.len() as u64;
        self.adapted.on_payload(m.offset, m.part, octets)?;
        if octets == 0 {
            return Ok(Step::Done);
        }
        self.clock.progress(now_ms);
        let sent = self.original.offset();
        let as_is = m
            .as_is
            .filter(|from| from.checked_add(octets).is_some_and(|end| end <= sent));
        Ok(Step::Tell(ProcessorEvent::AdaptedData {
            xid: m.xid,
            part: m.part,
            payload,
            as_is,
            modp,
        }))
    }

    fn on_modp(&mut self, modp: Option<u32>) -> Result<Option<u32>, Rule> {
        let Some(value) = modp else { return Ok(None) };
        if value > 100 {
            return Err(Rule::Modp(value));
        }
        match self.modp {
            Some(sure @ (0 | 100)) if value != sure => return Err(Rule::ModpBroken(sure)),
            _ => self.modp = modp,
        }
        Ok(modp)
    }

    pub(super) fn on_reference(&mut self, m: DataUseYours, now_ms: u64) -> Result<Step, Rule> {
        let DataUseYours {
            xid,
            original_offset: offset,
            size,
        } = m;
        let end = wire::range_end(offset, size, self.extensions.offset_max())?;
        self.adapted.on_reference(size)?;
        if self.original_length().is_some_and(|length| end > length) {
            return Err(Rule::NotPreserved { offset, size });
        }
        self.preservation.take(&(offset..end))?;
        if size == 0 {
            return Ok(Step::Done);
        }
        self.clock.progress(now_ms);
        Ok(Step::Tell(ProcessorEvent::UseOriginal {
            xid,
            offset,
            size,
        }))
    }

    pub(super) fn on_end(
        &mut self,
        m: ApplicationMessageEnd,
        limits: &Limits,
        now_ms: u64,
    ) -> Result<Step, Rule> {
        wire::check_parameters(m.profile.len(), limits)?;
        let end = match wire::message_ending(m.result.as_ref()) {
            Ending::Ok => AdaptedEnd::Complete,
            Ending::Partial => AdaptedEnd::Rest {
                from: self.joint(m.original_offset)?,
            },
            Ending::Failure => {
                self.adapted.on_failure()?;
                return Ok(Step::Fail(Failure::Peer {
                    reason: wire::reason(m.result),
                }));
            }
        };
        self.adapted.on_end(end == AdaptedEnd::Complete)?;
        self.check_unmodified(end)?;
        self.clock.progress(now_ms);
        let (xid, profile): (u32, Bytes) = (m.xid, m.profile);
        Ok(Step::Tell(ProcessorEvent::AdaptedEnd { xid, end, profile }))
    }

    /// J of an AME 206. With the standing stop S states it; otherwise DSS has said it before.
    fn joint(&self, stated: Option<u64>) -> Result<u64, Rule> {
        let joint = match (self.stop, stated) {
            (_, Some(stated)) if self.extensions.standing_stop => stated,
            (Stop::Granted(joint), stated) if stated.is_none_or(|j| j == joint) => joint,
            (Stop::Granted(_), _) => return Err(Rule::StopOffset),
            (Stop::None | Stop::Wanted, _) if self.extensions.standing_stop => {
                return Err(Rule::StopOffset);
            }
            (Stop::None | Stop::Wanted, _) => return Err(Rule::StopNotGranted),
        };
        let beyond = self.original_length().is_some_and(|length| joint > length);
        if beyond || joint > self.extensions.offset_max() {
            Err(Rule::StopOffset)
        } else {
            Ok(joint)
        }
    }

    /// Modp 0 means that not even the length may differ. The octets are compared where they are held, outside.
    fn check_unmodified(&self, end: AdaptedEnd) -> Result<(), Rule> {
        let expected = match end {
            AdaptedEnd::Complete => self.original_length(),
            AdaptedEnd::Rest { from } => Some(from),
        };
        match (self.modp, expected) {
            (Some(0), Some(expected)) if expected != self.adapted.offset() => {
                Err(Rule::ModpBroken(0))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn on_interest(&mut self, m: &DataPreservationInterest) -> Result<Step, Rule> {
        let DataPreservationInterest {
            xid,
            original_offset,
            size,
        } = *m;
        let end = wire::range_end(original_offset, size, self.extensions.offset_max())?;
        self.preservation.limit_interest(original_offset..end)?;
        let reusable = self.preservation.reusable();
        Ok(Step::Tell(ProcessorEvent::Released { xid, reusable }))
    }

    pub(super) fn on_stop_receiving(&mut self, xid: u32, size: u64) -> Result<Step, Rule> {
        if size > self.extensions.offset_max() {
            return Err(Rule::OffsetTooLarge);
        }
        if self.original.life().has_ended() {
            return Ok(Step::Done);
        }
        let size = self.enough.map_or(size, |enough| enough.min(size));
        self.enough = Some(size);
        Ok(Step::Tell(ProcessorEvent::StopReceiving { xid, size }))
    }

    pub(super) fn on_stop_sending(&mut self, xid: u32) -> Result<Step, Rule> {
        match self.adapted.life() {
            Life::Idle => return Err(Rule::FlowNotStarted),
            Life::Ended | Life::EndedEarly => return Err(Rule::FlowEnded),
            Life::Open => {}
        }
        match self.stop {
            // A repeated wish changes nothing; a granted one waits for AME 206.
            Stop::Wanted | Stop::Granted(_) => return Ok(Step::Done),
            Stop::None => self.stop = Stop::Wanted,
        }
        match self.grant_stop_if_kept() {
            Some(joint) => Ok(Step::Grant(joint)),
            None if self.original.life() == Life::EndedEarly => Ok(Step::Done),
            None => Ok(Step::Tell(ProcessorEvent::StopSendingWanted { xid })),
        }
    }

    pub(super) fn on_pause_wanted(&mut self, offset: u64) -> Result<Step, Rule> {
        if offset > self.extensions.offset_max() {
            return Err(Rule::OffsetTooLarge);
        }
        match self.original.on_pause_wanted(offset) {
            PauseNow::Yes => Ok(Step::Pause),
            PauseNow::No => Ok(Step::Done),
        }
    }

    pub(super) fn on_more_wanted(&mut self, m: &WantMoreData) -> Result<Step, Rule> {
        self.original.on_more_wanted(m.limit_offset)?;
        if self.original.life() == Life::Open {
            Ok(Step::Tell(ProcessorEvent::Sendable { xid: m.xid }))
        } else {
            Ok(Step::Done)
        }
    }
}
