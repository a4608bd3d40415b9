//! One transaction from TS to TE as a processor that keeps every rule runs it: credit, stops and pauses included.

use bytes::Bytes;
use opes_proto::ocp::StopSendingData;
use opes_proto::ocp::message::Kind;
use opes_proto::smtp::{Outcome, Part, Point};
use prost::Message as _;

use crate::fault::{Fault, require};
use crate::mail;
use crate::messages::{ame, ams, code, dum, dwm, result, shown, ts, xid};
use crate::peer::{GROUP, Peer};

/// Octets in one DUM.
const FRAGMENT_OCTETS: usize = 16 * 1024;

/// The part that command lines, header sections and bodies are sent as.
pub(crate) const COMMAND: u32 = Part::Command as u32;
pub(crate) const HEADER: u32 = Part::Header as u32;
pub(crate) const BODY: u32 = Part::Body as u32;

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) xid: u32,
    pub(crate) point: Point,
    pub(crate) octets: Bytes,
    /// State the size in AMS.
    pub(crate) am_el: bool,
    /// End with AME 206 after the header section at most, whatever the server wants.
    pub(crate) header_only: bool,
    /// Octets of adapted flow granted at a time; 0: what was offered is enough.
    pub(crate) grant: u64,
}

impl Plan {
    pub(crate) fn command(xid: u32) -> Self {
        Self {
            point: Point::RcptTo,
            octets: Bytes::from_static(mail::COMMAND),
            ..Self::message(xid, 0)
        }
    }

    pub(crate) fn message(xid: u32, size: usize) -> Self {
        Self {
            xid,
            point: Point::Content,
            octets: mail::message(size).into(),
            am_el: true,
            header_only: false,
            grant: 0,
        }
    }

    /// The first frame without data: TS and AMS.
    pub(crate) fn start(&self, peer: &Peer) -> Vec<Kind> {
        let profile = mail::start(self.point, &peer.terms, &self.octets);
        let am_el = self.am_el.then_some(self.octets.len() as u64);
        vec![ts(self.xid, GROUP), ams(self.xid, profile.into(), am_el)]
    }

    fn wanted(&self, peer: &Peer) -> usize {
        if self.point < Point::Content {
            return self.octets.len();
        }
        let wanted = mail::wanted_octets(&peer.terms, &self.octets);
        if self.header_only {
            wanted.min(mail::header_octets(&self.octets))
        } else {
            wanted
        }
    }

    /// Where the part of the octet at `at` ends, and its number.
    fn part(&self, at: usize) -> (usize, u32) {
        let header = mail::header_octets(&self.octets);
        if self.point < Point::Content {
            (self.octets.len(), COMMAND)
        } else if at < header {
            (header, HEADER)
        } else {
            (self.octets.len(), BODY)
        }
    }
}

/// The state of one running plan.
struct Running {
    plan: Plan,
    wanted: usize,
    at: usize,
    limit: u64,
    paused: bool,
    ended: bool,
    granted: u64,
}

impl Peer {
    /// Runs `plan` to its TE 200. `id`: the row that is broken if there is none.
    pub(crate) async fn complete(
        &mut self,
        plan: Plan,
        id: &'static str,
    ) -> Result<Outcome, Fault> {
        let mut running = Running {
            wanted: plan.wanted(self),
            at: 0,
            limit: self.terms.initial_credit,
            paused: false,
            ended: false,
            granted: self.wire.observer.first_credit(),
            plan,
        };
        let mut first = running.plan.start(self);
        first.extend(running.sendable());
        self.send(first).await;
        let mut outcome = None;
        loop {
            let wanted = if outcome.is_some() {
                "TE after AME"
            } else {
                "AME, then TE,"
            };
            let id = if outcome.is_some() { "C-22" } else { id };
            let kind = self.next(id, wanted).await?;
            require(!matches!(kind, Kind::ConnectionEnd(_)), id, || {
                "it ends the connection during a transaction".to_owned()
            })?;
            if xid(&kind) != Some(running.plan.xid) {
                continue;
            }
            match &kind {
                Kind::TransactionEnd(m) => {
                    require(code(m.result.as_ref()) == 200, id, || {
                        format!(
                            "it refuses a transaction that keeps the rules: {}",
                            shown(&kind)
                        )
                    })?;
                    return outcome
                        .ok_or_else(|| Fault::broken("C-41", "its TE 200 comes without AME"));
                }
                Kind::ApplicationMessageEnd(m) => {
                    outcome = Some(Outcome::decode(m.profile.clone()).unwrap_or_default());
                }
                kind => running.react(kind),
            }
            let answers = running.answers(self);
            if !answers.is_empty() {
                self.send(answers).await;
            }
        }
    }
}

impl Running {
    fn react(&mut self, kind: &Kind) {
        match kind {
            Kind::WantMoreData(m) => {
                self.limit = self.limit.max(m.limit_offset.unwrap_or_default());
                self.paused = false;
            }
            Kind::WantDataPaused(m) => self.paused = m.offset <= self.at as u64,
            Kind::WantStopReceivingData(m) => {
                let size = usize::try_from(m.size).unwrap_or(usize::MAX);
                self.wanted = self.wanted.min(size.max(self.at));
            }
            _ => {}
        }
    }

    fn answers(&mut self, peer: &Peer) -> Vec<Kind> {
        let mut answers = Vec::new();
        let flow = peer.wire.observer.flow(self.plan.xid);
        if flow.is_some_and(crate::observer::Flow::owes_stop) {
            answers.push(Kind::StopSendingData(StopSendingData {
                xid: self.plan.xid,
                original_offset: self.at as u64,
            }));
        }
        if self.plan.grant > 0
            && let Some(flow) = flow
            && flow.adapted >= self.granted
        {
            self.granted = flow.adapted + self.plan.grant;
            answers.push(dwm(self.plan.xid, Some(self.granted)));
        }
        answers.extend(self.sendable());
        answers
    }

    /// Data as far as credit goes, and the end when all is sent.
    fn sendable(&mut self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        while !self.paused && self.at < self.wanted.min(limit) {
            let (part_end, part) = self.plan.part(self.at);
            let end = (self.at + FRAGMENT_OCTETS)
                .min(self.wanted)
                .min(limit)
                .min(part_end);
            let payload = self.plan.octets.slice(self.at..end);
            kinds.push(dum(self.plan.xid, self.at as u64, part, payload));
            self.at = end;
        }
        if self.at >= self.wanted && !self.ended {
            self.ended = true;
            let whole = self.at == self.plan.octets.len();
            let result = if whole { None } else { Some(result(206)) };
            kinds.push(ame(self.plan.xid, result));
        }
        kinds
    }
}
