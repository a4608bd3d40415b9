//! One transaction as S sees it: the original flow coming in, the adapted flow going out, and the early ends of both.

use opes_proto::ocp::{
    ApplicationMessageEnd, ApplicationMessageStart, DataUseMine, StopSendingData, WantMoreData,
};

use super::{AdaptedEnd, Selection, ServerEvent};
use crate::connection::Clock;
use crate::error::CallError;
use crate::flow::receiver::Receiver;
use crate::flow::sender::{PauseNow, Sender};
use crate::flow::{FlowTerms, Life};
use crate::limits::{Extensions, Limits};
use crate::preservation::Preservation;
use crate::violation::{Failure, OriginalEnd, Rule};
use crate::wire::{self, Ending};

#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) original: Receiver,
    pub(super) adapted: Sender,
    pub(super) clock: Clock,
    preservation: Preservation,
    extensions: Extensions,
    stop: Stop,
    modp: Option<u32>,
}

/// DWSS → DSS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    None,
    Wanted,
    /// DSS came with this J.
    Granted(u64),
}

/// What a message of P leads to.
#[derive(Debug)]
pub(super) enum Step {
    Done,
    Tell(ServerEvent),
    /// Send DPM.
    Pause,
    /// Send TE 400 and end.
    Fail(Failure),
}

impl From<Rule> for Step {
    fn from(rule: Rule) -> Self {
        Self::Fail(Failure::Violation(rule))
    }
}

impl Transaction {
    pub(super) fn new(selection: &Selection, budget_ms: u32, now_ms: u64) -> Self {
        let extensions = selection.extensions;
        let flow = |credit: u64| FlowTerms {
            credit: extensions.credit.then_some(credit),
            offset_max: extensions.offset_max(),
        };
        Self {
            original: Receiver::new(flow(selection.original_credit)),
            adapted: Sender::new(flow(selection.adapted_credit)),
            clock: Clock::new(now_ms, budget_ms),
            preservation: Preservation::new(extensions.keeps_all),
            extensions,
            stop: Stop::None,
            modp: None,
        }
    }

    // ---- calls of the service ---------------------------------------------------------------------------------------

    pub(super) fn check_offset(&self, offset: u64) -> Result<(), CallError> {
        if offset > self.extensions.offset_max() {
            Err(CallError::OffsetTooLarge)
        } else {
            Ok(())
        }
    }

    pub(super) fn check_modp(&self, modp: Option<u32>) -> Result<(), CallError> {
        match (self.modp, modp) {
            (_, Some(value)) if value > 100 => Err(CallError::Modp(value)),
            (Some(sure @ (0 | 100)), Some(value)) if value != sure => Err(CallError::Modp(value)),
            _ => Ok(()),
        }
    }

    /// The same value is sent once for each message (RFC 4037 §11.9).
    pub(super) fn note_modp(&mut self, modp: Option<u32>) -> Option<u32> {
        let news = modp.filter(|value| self.modp != Some(*value));
        self.modp = news.or(self.modp);
        news
    }

    pub(super) fn use_original(&mut self, offset: u64, size: u64) -> Result<PauseNow, CallError> {
        let not_kept = || CallError::NotPreserved { offset, size };
        let end = wire::range_end(offset, size, self.extensions.offset_max())
            .map_err(|_| CallError::OffsetTooLarge)?;
        if self.original_length().is_some_and(|length| end > length) {
            return Err(not_kept());
        }
        if !self.preservation.allows(&(offset..end)) {
            return Err(not_kept());
        }
        let pause = self.adapted.reference(size)?;
        self.preservation
            .take(&(offset..end))
            .map_err(|_| not_kept())?;
        Ok(pause)
    }

    pub(super) fn limit_interest(&mut self, offset: u64, size: u64) -> Result<(), CallError> {
        let end = wire::range_end(offset, size, self.extensions.offset_max())
            .map_err(|_| CallError::OffsetTooLarge)?;
        self.preservation
            .limit_interest(offset..end)
            .map_err(|_| CallError::InterestGrows)
    }

    /// Whether DWSS has to be sent: not twice.
    pub(super) fn want_stop_sending(&mut self) -> Result<bool, CallError> {
        match self.adapted.life() {
            Life::Idle => return Err(CallError::FlowNotStarted),
            Life::Ended | Life::EndedEarly => return Err(CallError::FlowEnded),
            Life::Open => {}
        }
        match self.stop {
            Stop::None => {
                self.stop = Stop::Wanted;
                Ok(true)
            }
            Stop::Wanted | Stop::Granted(_) => Ok(false),
        }
    }

    pub(super) fn end_adapted(&mut self, end: AdaptedEnd) -> Result<(), CallError> {
        let stated = match end {
            AdaptedEnd::Complete => None,
            AdaptedEnd::Rest { from } => Some(from),
        };
        match (self.stop, stated) {
            (Stop::Granted(joint), None) => return Err(CallError::StopGranted(joint)),
            (Stop::Granted(joint), Some(from)) if from == joint => {}
            (_, Some(from)) if !self.extensions.standing_stop => {
                return Err(CallError::StopNotGranted(from));
            }
            (_, Some(from)) if self.original_length().is_some_and(|length| from > length) => {
                return Err(CallError::OffsetTooLarge);
            }
            (_, Some(from)) => self.check_offset(from)?,
            (Stop::None | Stop::Wanted, None) => {}
        }
        self.check_unmodified(stated)?;
        self.adapted.end(stated.is_none())
    }

    fn check_unmodified(&self, from: Option<u64>) -> Result<(), CallError> {
        match (self.modp, from.or_else(|| self.original_length())) {
            (Some(0), Some(expected)) if expected != self.adapted.offset() => {
                Err(CallError::Modp(0))
            }
            _ => Ok(()),
        }
    }

    /// Length of the whole original, if known here.
    fn original_length(&self) -> Option<u64> {
        match self.original.life() {
            Life::Ended => Some(self.original.offset()),
            Life::Idle | Life::Open | Life::EndedEarly => self.original.length(),
        }
    }

    // ---- messages of P ------------------------------------------------------------------------------------------------

    pub(super) fn on_start(
        &mut self,
        m: ApplicationMessageStart,
        limits: &Limits,
    ) -> Result<Step, Rule> {
        wire::check_parameters(m.profile.len(), limits)?;
        self.original.on_start(m.am_el)?;
        let ApplicationMessageStart {
            xid,
            am_el,
            profile,
            ..
        } = m;
        Ok(Step::Tell(ServerEvent::OriginalStart {
            xid,
            am_el,
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
        let octets = payload.len() as u64;
        self.original.on_payload(m.offset, m.part, octets)?;
        if let Some(kept) = m.kept {
            let end = wire::range_end(kept.offset, kept.size, self.extensions.offset_max())?;
            self.preservation.on_kept(kept.offset..end)?;
        }
        if octets == 0 {
            return Ok(Step::Done);
        }
        self.clock.progress(now_ms);
        let DataUseMine {
            xid, offset, part, ..
        } = m;
        Ok(Step::Tell(ServerEvent::OriginalData {
            xid,
            offset,
            part,
            payload,
        }))
    }

    pub(super) fn on_end(&mut self, m: ApplicationMessageEnd, now_ms: u64) -> Result<Step, Rule> {
        let end = match wire::message_ending(m.result.as_ref()) {
            Ending::Ok => OriginalEnd::Complete,
            Ending::Partial => OriginalEnd::Partial,
            Ending::Failure => OriginalEnd::Failed(wire::reason(m.result)),
        };
        match end {
            OriginalEnd::Complete => self.original.on_end(true)?,
            OriginalEnd::Partial => self.original.on_end(false)?,
            OriginalEnd::Failed(_) => self.original.on_failure()?,
        }
        self.clock.progress(now_ms);
        Ok(Step::Tell(ServerEvent::OriginalEnd { xid: m.xid, end }))
    }

    /// J is what P sent before DSS, and the transport keeps the order: it must be what was received.
    pub(super) fn on_stop_sending(&mut self, m: &StopSendingData) -> Result<Step, Rule> {
        if self.adapted.life().has_ended() {
            return Ok(Step::Done);
        }
        match self.stop {
            Stop::None | Stop::Granted(_) => return Err(Rule::StopUnsolicited),
            Stop::Wanted => {}
        }
        if m.original_offset != self.original.offset() || self.original.life() == Life::EndedEarly {
            return Err(Rule::StopOffset);
        }
        self.stop = Stop::Granted(m.original_offset);
        Ok(Step::Tell(ServerEvent::StopSending {
            xid: m.xid,
            from: m.original_offset,
        }))
    }

    pub(super) fn on_pause_wanted(&mut self, offset: u64) -> Result<Step, Rule> {
        if offset > self.extensions.offset_max() {
            return Err(Rule::OffsetTooLarge);
        }
        match self.adapted.on_pause_wanted(offset) {
            PauseNow::Yes => Ok(Step::Pause),
            PauseNow::No => Ok(Step::Done),
        }
    }

    pub(super) fn on_more_wanted(&mut self, m: &WantMoreData) -> Result<Step, Rule> {
        self.adapted.on_more_wanted(m.limit_offset)?;
        if self.adapted.life() == Life::Open {
            Ok(Step::Tell(ServerEvent::Sendable { xid: m.xid }))
        } else {
            Ok(Step::Done)
        }
    }
}
