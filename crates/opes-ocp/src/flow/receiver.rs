//! The receiving end of a flow: sequence, credit given, pauses (RFC 4037 §11.7–11.9, §11.16).

use super::{FlowTerms, Life};
use crate::error::CallError;
use crate::violation::Rule;

#[derive(Debug)]
pub(crate) struct Receiver {
    life: Life,
    offset: u64,
    payload: u64,
    credit: Option<u64>,
    offset_max: u64,
    part: u32,
    length: Option<u64>,
    paused: bool,
    /// DWM was sent at some time. A DPM that arrives later may be older than that DWM, and nothing on the wire tells, so
    /// data after it proves nothing: only a DPM before our first DWM binds.
    more_sent: bool,
}

impl Receiver {
    pub(crate) fn new(terms: FlowTerms) -> Self {
        Self {
            life: Life::Idle,
            offset: 0,
            payload: 0,
            credit: terms.credit,
            offset_max: terms.offset_max,
            part: 0,
            length: None,
            paused: false,
            more_sent: false,
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

    pub(crate) fn on_start(&mut self, length: Option<u64>) -> Result<(), Rule> {
        match self.life {
            Life::Idle => {}
            Life::Open => return Err(Rule::FlowStartedTwice),
            Life::Ended | Life::EndedEarly => return Err(Rule::FlowEnded),
        }
        if length.is_some_and(|l| l > self.offset_max) {
            return Err(Rule::OffsetTooLarge);
        }
        self.life = Life::Open;
        self.length = length;
        Ok(())
    }

    /// DUM.
    pub(crate) fn on_payload(&mut self, offset: u64, part: u32, octets: u64) -> Result<(), Rule> {
        self.require_open()?;
        if offset != self.offset {
            return Err(Rule::Offset {
                expected: self.offset,
                got: offset,
            });
        }
        self.check_part(part, octets)?;
        if self.paused && octets > 0 {
            return Err(Rule::DataWhilePaused);
        }
        match self.credit {
            Some(limit) if octets > limit.saturating_sub(self.payload) => {
                return Err(Rule::BeyondCredit(limit));
            }
            _ => {}
        }
        self.advance(octets)?;
        self.payload += octets;
        if octets > 0 {
            self.part = part;
        }
        Ok(())
    }

    /// DUY.
    pub(crate) fn on_reference(&mut self, octets: u64) -> Result<(), Rule> {
        self.require_open()?;
        if self.paused && octets > 0 {
            return Err(Rule::DataWhilePaused);
        }
        self.advance(octets)
    }

    /// AME with 200 (`complete`) or 206.
    pub(crate) fn on_end(&mut self, complete: bool) -> Result<(), Rule> {
        self.require_open()?;
        match self.length {
            Some(length) if complete && length != self.offset => Err(Rule::Length(length)),
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

    /// AME 400, which is legal before AMS too (RFC 4037 §11.7).
    pub(crate) fn on_failure(&mut self) -> Result<(), Rule> {
        if self.life.has_ended() {
            return Err(Rule::FlowEnded);
        }
        self.life = Life::Ended;
        Ok(())
    }

    /// DPM.
    pub(crate) fn on_paused(&mut self) {
        self.paused = !self.more_sent;
    }

    /// DWM is sent.
    pub(crate) fn resume(&mut self) {
        self.more_sent = true;
        self.paused = false;
    }

    /// Raises the credit limit; `false` if it is there already.
    pub(crate) fn grant(&mut self, limit: u64) -> Result<bool, CallError> {
        let credit = self.credit.ok_or(CallError::NoCredit)?;
        if limit < credit {
            return Err(CallError::CreditShrinks(limit));
        }
        self.credit = Some(limit);
        Ok(limit > credit)
    }

    fn advance(&mut self, octets: u64) -> Result<(), Rule> {
        let end = self
            .offset
            .checked_add(octets)
            .filter(|end| *end <= self.offset_max);
        let end = end.ok_or(Rule::OffsetTooLarge)?;
        match self.length {
            Some(length) if end > length => Err(Rule::Length(length)),
            _ => {
                self.offset = end;
                Ok(())
            }
        }
    }

    fn require_open(&self) -> Result<(), Rule> {
        match self.life {
            Life::Open => Ok(()),
            Life::Idle => Err(Rule::FlowNotStarted),
            Life::Ended | Life::EndedEarly => Err(Rule::FlowEnded),
        }
    }

    fn check_part(&self, part: u32, octets: u64) -> Result<(), Rule> {
        if octets == 0 && part > self.part {
            return Err(Rule::EmptyPart(part));
        }
        if octets > 0 && part < self.part {
            return Err(Rule::PartOrder {
                last: self.part,
                got: part,
            });
        }
        Ok(())
    }
}
