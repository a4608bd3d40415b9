//! The sending end of a flow: what may be sent now, and the pauses the peer asks for (RFC 4037 §11.15–11.17).

use super::{FlowTerms, Life};
use crate::error::CallError;
use crate::violation::Rule;

#[derive(Debug)]
pub(crate) struct Sender {
    life: Life,
    offset: u64,
    payload: u64,
    credit: Option<u64>,
    offset_max: u64,
    pause: Pause,
    part: u32,
    length: Option<u64>,
}

/// DWP → DPM → DWM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    None,
    /// The peer wants no data from this offset on.
    At(u64),
    /// DPM was sent.
    Paused,
}

/// Whether DPM has to be sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum PauseNow {
    Yes,
    No,
}

impl Sender {
    pub(crate) fn new(terms: FlowTerms) -> Self {
        Self {
            life: Life::Idle,
            offset: 0,
            payload: 0,
            credit: terms.credit,
            offset_max: terms.offset_max,
            pause: Pause::None,
            part: 0,
            length: None,
        }
    }

    pub(crate) fn life(&self) -> Life {
        self.life
    }

    /// Octets of the flow so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Announced exact length.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    pub(crate) fn start(&mut self, length: Option<u64>) -> Result<(), CallError> {
        match self.life {
            Life::Idle => {}
            Life::Open => return Err(CallError::FlowStartedTwice),
            Life::Ended | Life::EndedEarly => return Err(CallError::FlowEnded),
        }
        if length.is_some_and(|l| l > self.offset_max) {
            return Err(CallError::OffsetTooLarge);
        }
        self.life = Life::Open;
        self.length = length;
        Ok(())
    }

    /// Octets of payload that may be sent now.
    pub(crate) fn sendable(&self) -> u64 {
        if self.life != Life::Open {
            return 0;
        }
        let credit = self
            .credit
            .map_or(u64::MAX, |limit| limit.saturating_sub(self.payload));
        credit
            .min(self.before_pause())
            .min(self.offset_max.saturating_sub(self.offset))
    }

    fn before_pause(&self) -> u64 {
        match self.pause {
            Pause::None => u64::MAX,
            Pause::At(offset) => offset.saturating_sub(self.offset),
            Pause::Paused => 0,
        }
    }

    /// Takes a DUM of `octets`; gives its offset and whether DPM follows.
    pub(crate) fn payload(&mut self, part: u32, octets: u64) -> Result<(u64, PauseNow), CallError> {
        self.require_open()?;
        self.check_part(part, octets)?;
        let sendable = self.sendable();
        if octets > sendable {
            return Err(CallError::NotSendable {
                asked: octets,
                sendable,
            });
        }
        let at = self.offset;
        self.check_length(octets)?;
        self.payload += octets;
        self.offset += octets;
        if octets > 0 {
            self.part = part;
        }
        Ok((at, self.pause_now()))
    }

    /// Takes a DUY of `octets`: data for a pause, but free of credit.
    pub(crate) fn reference(&mut self, octets: u64) -> Result<PauseNow, CallError> {
        self.require_open()?;
        let room = self.offset_max.saturating_sub(self.offset);
        let sendable = self.before_pause().min(room);
        if octets > sendable {
            return Err(CallError::NotSendable {
                asked: octets,
                sendable,
            });
        }
        self.check_length(octets)?;
        self.offset += octets;
        Ok(self.pause_now())
    }

    /// AME. `complete` = 200.
    pub(crate) fn end(&mut self, complete: bool) -> Result<(), CallError> {
        self.require_open()?;
        match self.length {
            Some(length) if complete && length != self.offset => Err(CallError::Length(length)),
            _ => {
                self.life = if complete {
                    Life::Ended
                } else {
                    Life::EndedEarly
                };
                Ok(())
            }
        }
    }

    /// DWP of the peer.
    pub(crate) fn on_pause_wanted(&mut self, offset: u64) -> PauseNow {
        match (self.life.has_ended(), self.pause) {
            (true, _) | (false, Pause::Paused) => PauseNow::No,
            (false, Pause::None | Pause::At(_)) => {
                self.pause = Pause::At(offset);
                self.pause_now()
            }
        }
    }

    /// DWM of the peer.
    pub(crate) fn on_more_wanted(&mut self, limit: Option<u64>) -> Result<(), Rule> {
        self.pause = Pause::None;
        if let (Some(limit), Some(credit)) = (limit, self.credit) {
            if limit < credit {
                return Err(Rule::CreditShrinks(limit));
            }
            self.credit = Some(limit);
        }
        Ok(())
    }

    fn pause_now(&mut self) -> PauseNow {
        match self.pause {
            Pause::At(offset) if self.offset >= offset => {
                self.pause = Pause::Paused;
                PauseNow::Yes
            }
            Pause::None | Pause::At(_) | Pause::Paused => PauseNow::No,
        }
    }

    fn require_open(&self) -> Result<(), CallError> {
        match self.life {
            Life::Open => Ok(()),
            Life::Idle => Err(CallError::FlowNotStarted),
            Life::Ended | Life::EndedEarly => Err(CallError::FlowEnded),
        }
    }

    fn check_part(&self, part: u32, octets: u64) -> Result<(), CallError> {
        if octets == 0 && part > self.part {
            return Err(CallError::EmptyPart(part));
        }
        if octets > 0 && part < self.part {
            return Err(CallError::PartOrder {
                last: self.part,
                got: part,
            });
        }
        Ok(())
    }

    fn check_length(&self, octets: u64) -> Result<(), CallError> {
        match self.length {
            Some(length) if octets > length.saturating_sub(self.offset) => {
                Err(CallError::Length(length))
            }
            _ => Ok(()),
        }
    }
}
