//! Looks at every message of a server, whatever scenario runs, and names the rule that it breaks.
//!
//! It sees what both sides send, in the order in which they are seen here. What may have crossed on the way is never held against
//! the server; scenarios that must know whether something crossed ask with PQ first.

mod flow;
mod outcome;

use std::collections::{BTreeMap, BTreeSet};

use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{NegotiationOffer, NegotiationResponse, Result as OcpResult};
use opes_proto::smtp::{ProfileOffer, ProfileSelection};

use crate::fault::{Fault, require};
use crate::messages::{code, fits_a_phase, shown, xid};
pub(crate) use flow::Flow;

#[derive(Debug, Default)]
pub(crate) struct Observer {
    started: bool,
    ended: bool,
    offered: ProfileOffer,
    selected: ProfileSelection,
    /// NO of P without NR: scope and pending.
    offer: Option<NegotiationOffer>,
    phase: bool,
    /// AQ and PQ without answer.
    abilities: usize,
    questions: usize,
    highest: Option<u32>,
    flows: BTreeMap<u32, Flow>,
    /// Never started or started again: one TE 400 each is due.
    refusable: BTreeSet<u32>,
    /// Rows about what a server need not do, and this one did.
    pub(crate) exercised: BTreeSet<&'static str>,
}

impl Observer {
    pub(crate) fn offered(&mut self, offer: &ProfileOffer) {
        self.offered.clone_from(offer);
    }

    pub(crate) fn selected(&mut self, selected: &ProfileSelection) -> Result<(), Fault> {
        self.selected.clone_from(selected);
        require(!selected.copies || self.offered.copies, "C-58", || {
            "it selects copies, which were not offered".to_owned()
        })
    }

    /// Octets of adapted flow that P granted at first.
    pub(crate) fn first_credit(&self) -> u64 {
        self.offered.initial_credit
    }

    /// CE came.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn flow(&self, xid: u32) -> Option<&Flow> {
        self.flows.get(&xid)
    }

    /// P sends this.
    pub(crate) fn sent(&mut self, kind: &Kind) {
        match kind {
            Kind::NegotiationOffer(m) => self.offer = Some(m.clone()),
            Kind::AbilityQuery(_) => self.abilities += 1,
            Kind::ProgressQuery(_) => self.questions += 1,
            Kind::TransactionStart(m) if self.highest.is_none_or(|highest| m.xid > highest) => {
                self.highest = Some(m.xid);
                let credit = self.offered.initial_credit;
                self.flows.insert(m.xid, Flow::new(credit));
            }
            Kind::TransactionStart(m) => {
                self.refusable.insert(m.xid);
            }
            kind => self.sent_in_transaction(kind),
        }
    }

    fn sent_in_transaction(&mut self, kind: &Kind) {
        let Some(xid) = xid(kind) else { return };
        match self.flows.get_mut(&xid) {
            Some(flow) => flow.sent(kind),
            None => {
                self.refusable.insert(xid);
            }
        }
    }

    /// S sends this.
    pub(crate) fn received(&mut self, kind: &Kind) -> Result<(), Fault> {
        require(
            self.started || matches!(kind, Kind::ConnectionStart(_)),
            "C-01",
            || format!("its first message is {}", shown(kind)),
        )?;
        self.started = true;
        require(!self.ended, "C-03", || {
            format!("it sends {} after CE", shown(kind))
        })?;
        require(!self.phase || fits_a_phase(kind), "C-11", || {
            format!("in a negotiation phase it sends {}", shown(kind))
        })?;
        match kind {
            Kind::ConnectionEnd(m) => {
                self.ended = true;
                not_partial(m.result.as_ref(), "CE")
            }
            Kind::NegotiationResponse(m) => self.response(m),
            Kind::AbilityAnswer(_) => {
                let left = self.abilities.checked_sub(1);
                self.abilities =
                    left.ok_or_else(|| Fault::broken("C-51", "it sends AA without AQ"))?;
                Ok(())
            }
            Kind::ProgressAnswer(_) => {
                let left = self.questions.checked_sub(1);
                self.questions =
                    left.ok_or_else(|| Fault::broken("C-50", "it sends PA without PQ"))?;
                Ok(())
            }
            Kind::TransactionStart(_) | Kind::StopSendingData(_) => {
                let what = format!("it sends {}, which is P's to send", shown(kind));
                Err(Fault::broken("C-24", what))
            }
            kind => self.in_transaction(kind),
        }
    }

    fn response(&mut self, m: &NegotiationResponse) -> Result<(), Fault> {
        let offer = self
            .offer
            .take()
            .ok_or_else(|| Fault::broken("C-06", "it sends NR without NO"))?;
        require(m.sg_id == offer.sg_id, "C-09", || {
            format!("NO had SG {:?}, its NR has {:?}", offer.sg_id, m.sg_id)
        })?;
        if let Some(feature) = &m.feature {
            let offered = offer.features.iter().any(|f| f.uri == feature.uri);
            require(offered, "C-10", || {
                format!("it selects {}, which was not offered", feature.uri)
            })?;
        }
        self.phase = offer.offer_pending || m.offer_pending;
        Ok(())
    }

    fn in_transaction(&mut self, kind: &Kind) -> Result<(), Fault> {
        let Some(xid) = xid(kind) else { return Ok(()) };
        if let Kind::TransactionEnd(m) = kind {
            not_partial(m.result.as_ref(), "TE")?;
            if code(m.result.as_ref()) != 200 && self.refusable.remove(&xid) {
                if let Some(flow) = self.flows.get_mut(&xid) {
                    flow.end();
                }
                return Ok(());
            }
        }
        let Some(flow) = self.flows.get_mut(&xid) else {
            let what = format!(
                "it speaks of a transaction that was never started: {}",
                shown(kind)
            );
            return Err(Fault::broken("C-24", what));
        };
        let exercised = match kind {
            Kind::DataUseYours(_) => Some("C-36"),
            Kind::DataPreservationInterest(_) => Some("C-37"),
            Kind::WantStopSendingData(_) => Some("C-44"),
            _ => None,
        };
        self.exercised.extend(exercised);
        flow.received(kind)?;
        if let Kind::ApplicationMessageEnd(m) = kind {
            let negotiated = self.offered.copies && self.selected.copies;
            let several = outcome::check(m, flow, negotiated)?;
            self.exercised.extend(several.then_some("B5"));
            self.exercised.extend(flow.has_new_line().then_some("C-54"));
        }
        Ok(())
    }
}

fn not_partial(result: Option<&OcpResult>, message: &str) -> Result<(), Fault> {
    require(code(result) != 206, "C-29", || {
        format!("its {message} has result 206")
    })
}

#[cfg(test)]
mod tests;
