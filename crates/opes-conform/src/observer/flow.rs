//! One transaction as both sides have it so far, and the rules of its adapted flow.

use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{
    ApplicationMessageEnd, DataPreservationInterest, DataUseMine, DataUseYours, WantMoreData,
};

use crate::fault::{Fault, require};
use crate::messages::{code, shown};

/// docs/ocp-smtp.md, B3.
const COMMAND_PART: u32 = 1;

/// Where a flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Life {
    #[default]
    Idle,
    Open,
    Ended,
}

#[derive(Debug, Default)]
// Independent facts of the protocol; not a state.
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct Flow {
    /// Octets of original sent, and the size of all of it once it is certain.
    pub(crate) sent: u64,
    /// The original is a command line.
    command: bool,
    original: Option<u64>,
    /// Octets of adapted flow so far.
    pub(crate) adapted: u64,
    life: Life,
    payload: u64,
    credit: u64,
    part: u32,
    am_el: Option<u64>,
    modp: Option<u32>,
    interest: Option<(u64, u64)>,
    /// J of the DSS that P sent.
    joint: Option<u64>,
    asked_to_stop: bool,
    /// Highest DWM.limit_offset of S.
    granted: u64,
    paused: bool,
    /// P has sent DWM: a DPM may be older.
    resumed: bool,
    over: bool,
    ended_by_p: bool,
}

impl Flow {
    pub(crate) fn new(credit: u64) -> Self {
        Self {
            credit,
            ..Self::default()
        }
    }

    /// Octets of the whole original, if certain.
    pub(crate) fn original(&self) -> Option<u64> {
        self.original
    }

    /// S has given a command a new line.
    pub(crate) fn has_new_line(&self) -> bool {
        self.command && self.adapted > 0
    }

    pub(crate) fn end(&mut self) {
        self.over = true;
    }

    pub(crate) fn sent(&mut self, kind: &Kind) {
        match kind {
            Kind::ApplicationMessageStart(m) => self.original = m.am_el,
            Kind::DataUseMine(m) => {
                self.command |= m.part == COMMAND_PART;
                self.sent += m.payload.as_ref().map_or(0, bytes::Bytes::len) as u64;
            }
            Kind::ApplicationMessageEnd(m) if code(m.result.as_ref()) == 200 => {
                self.original = Some(self.sent);
            }
            Kind::WantMoreData(m) => {
                self.credit = self.credit.max(m.limit_offset.unwrap_or_default());
                self.resumed = true;
                self.paused = false;
            }
            Kind::StopSendingData(m) => self.joint = Some(m.original_offset),
            Kind::TransactionEnd(_) => self.ended_by_p = true,
            _ => {}
        }
    }

    pub(crate) fn received(&mut self, kind: &Kind) -> Result<(), Fault> {
        if self.ended_by_p {
            // May have crossed.
            return Ok(());
        }
        require(!self.over, "C-22", || {
            format!("it sends {} after its own TE", shown(kind))
        })?;
        match kind {
            Kind::ApplicationMessageStart(m) => {
                require(self.life == Life::Idle, "C-31", || {
                    "a second AMS in one flow".to_owned()
                })?;
                self.life = Life::Open;
                self.am_el = m.am_el;
                Ok(())
            }
            Kind::DataUseMine(m) => self.mine(m),
            Kind::DataUseYours(m) => self.yours(m),
            Kind::ApplicationMessageEnd(m) => self.finish(m),
            Kind::TransactionEnd(m) => {
                self.over = true;
                let finished = self.life == Life::Ended || code(m.result.as_ref()) != 200;
                require(finished, "C-41", || {
                    "its TE 200 comes before its AME: there is no adapted message".to_owned()
                })
            }
            Kind::DataPreservationInterest(m) => self.limit_interest(m),
            Kind::WantMoreData(m) => self.grant(m),
            Kind::WantStopSendingData(_) => {
                require(self.life == Life::Open, "C-44", || {
                    "DWSS outside of its adapted flow".to_owned()
                })?;
                self.asked_to_stop = true;
                Ok(())
            }
            Kind::PausedMyData(_) => {
                self.paused = !self.resumed;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// P owes DSS.
    pub(crate) fn owes_stop(&self) -> bool {
        self.asked_to_stop && self.joint.is_none() && self.life == Life::Open
    }

    fn require_open(&self) -> Result<(), Fault> {
        require(self.life == Life::Open, "C-31", || {
            "data outside of its flow: before AMS or after AME".to_owned()
        })
    }

    fn data(&mut self, octets: u64) -> Result<(), Fault> {
        self.require_open()?;
        require(!self.paused || octets == 0, "C-47", || {
            "data after its DPM".to_owned()
        })?;
        self.adapted = self.adapted.saturating_add(octets);
        Ok(())
    }

    fn mine(&mut self, m: &DataUseMine) -> Result<(), Fault> {
        let payload = m.payload.as_ref();
        let payload = payload.ok_or_else(|| Fault::broken("C-24", "its DUM has no payload"))?;
        let octets = payload.len() as u64;
        self.require_open()?;
        require(m.offset == self.adapted, "C-30", || {
            format!(
                "its DUM has offset {}, {} is the next octet",
                m.offset, self.adapted
            )
        })?;
        self.data(octets)?;
        require(octets > 0 || m.part <= self.part, "C-53", || {
            "an empty DUM introduces a part".to_owned()
        })?;
        require(octets == 0 || m.part >= self.part, "C-53", || {
            format!("part {} after part {}", m.part, self.part)
        })?;
        self.part = self.part.max(m.part);
        self.payload += octets;
        require(self.payload <= self.credit, "A5", || {
            format!(
                "{} octets of payload with a credit of {}",
                self.payload, self.credit
            )
        })?;
        let kept_word = match (self.modp, m.modp) {
            (_, Some(modp)) if modp > 100 => false,
            (Some(sure @ (0 | 100)), Some(modp)) => modp == sure,
            _ => true,
        };
        self.modp = m.modp.or(self.modp);
        require(kept_word, "C-24", || {
            format!("Modp {:?} cannot be, or was promised otherwise", m.modp)
        })
    }

    fn yours(&mut self, m: &DataUseYours) -> Result<(), Fault> {
        let end = m.original_offset.saturating_add(m.size);
        let inside = self.original.is_none_or(|size| end <= size);
        let wanted = self
            .interest
            .is_none_or(|(from, to)| m.original_offset >= from && end <= to);
        require(inside && wanted, "C-36", || {
            format!(
                "it uses octets {} to {end} of an original of {:?}, interest {:?}",
                m.original_offset, self.original, self.interest
            )
        })?;
        self.data(m.size)
    }

    fn limit_interest(&mut self, m: &DataPreservationInterest) -> Result<(), Fault> {
        let end = m.original_offset.saturating_add(m.size);
        let shrinks = self
            .interest
            .is_none_or(|(from, to)| m.size == 0 || (m.original_offset >= from && end <= to));
        self.interest = Some((m.original_offset, end));
        require(shrinks, "C-37", || "its DPI grows".to_owned())
    }

    fn grant(&mut self, m: &WantMoreData) -> Result<(), Fault> {
        let Some(limit) = m.limit_offset else {
            return Ok(());
        };
        let grows = limit >= self.granted;
        self.granted = limit;
        require(grows, "A5", || format!("its credit shrinks to {limit}"))
    }

    fn finish(&mut self, m: &ApplicationMessageEnd) -> Result<(), Fault> {
        let code = code(m.result.as_ref());
        let open =
            self.life == Life::Open || (self.life == Life::Idle && code != 200 && code != 206);
        require(open, "C-31", || {
            "AME outside of its flow: before AMS or a second one".to_owned()
        })?;
        self.life = Life::Ended;
        match code {
            206 => self.joined(m),
            200 => {
                let exact = self.am_el.is_none_or(|size| size == self.adapted);
                require(exact, "C-55", || {
                    format!(
                        "it announced {:?} octets and sent {}",
                        self.am_el, self.adapted
                    )
                })
            }
            _ => Ok(()),
        }
    }

    fn joined(&mut self, m: &ApplicationMessageEnd) -> Result<(), Fault> {
        if let Some(joint) = self.joint {
            return require(
                m.original_offset.is_none_or(|stated| stated == joint),
                "C-44",
                || format!("DSS said {joint}, its AME 206 {:?}", m.original_offset),
            );
        }
        let from = m
            .original_offset
            .ok_or_else(|| Fault::broken("C-42", "AME 206 without J, and no DSS before it"))?;
        let inside = self.original.is_none_or(|size| from <= size);
        require(inside, "C-42", || {
            format!(
                "J = {from}, but the original has {:?} octets",
                self.original
            )
        })?;
        // What P joins to it counts for ranges.
        if let Some(size) = self.original {
            self.adapted = self.adapted.saturating_add(size - from);
        }
        Ok(())
    }
}
