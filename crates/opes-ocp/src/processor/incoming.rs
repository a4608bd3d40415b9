//! What P does with each message of S.

use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{
    ConnectionEnd, NegotiationOffer, NegotiationResponse, ProgressAnswer, ServiceGroupCreated,
    StopSendingData, TransactionEnd,
};

use super::transaction::{Step, Transaction};
use super::{Processor, ProcessorEvent};
use crate::connection::check_id;
use crate::flow::Life;
use crate::limits::Limits;
use crate::negotiation::Opinion;
use crate::transactions::Stray;
use crate::violation::{Failure, Rule};
use crate::wire::{self, Ending};

impl Processor {
    /// Connection scope here, transaction scope in `dispatch_transaction`.
    pub(super) fn dispatch(&mut self, kind: Kind) {
        let result = match kind {
            Kind::ConnectionStart(_) => Ok(()),
            Kind::ConnectionEnd(m) => {
                self.on_connection_end(m);
                Ok(())
            }
            Kind::ServiceGroupCreated(m) => self.on_group_created(&m),
            Kind::ServiceGroupDestroyed(m) => self.connection.on_group_destroyed(m.sg_id),
            Kind::NegotiationOffer(m) => self.on_offer(&m),
            Kind::NegotiationResponse(m) => self.on_response(m),
            Kind::AbilityQuery(m) => self.connection.on_ability_query(&m),
            Kind::AbilityAnswer(m) => self.on_ability_answer(m.supported),
            Kind::ProgressQuery(m) => {
                self.answer_progress(m.xid);
                Ok(())
            }
            Kind::ProgressAnswer(m) => {
                self.events.push_back(ProcessorEvent::Progress {
                    xid: m.xid,
                    org_data: m.org_data,
                });
                Ok(())
            }
            Kind::ProgressReport(m) => {
                self.events.push_back(ProcessorEvent::Progress {
                    xid: m.xid,
                    org_data: m.org_data,
                });
                Ok(())
            }
            kind @ (Kind::TransactionStart(_)
            | Kind::TransactionEnd(_)
            | Kind::ApplicationMessageStart(_)
            | Kind::ApplicationMessageEnd(_)
            | Kind::DataUseMine(_)
            | Kind::DataUseYours(_)
            | Kind::DataPreservationInterest(_)
            | Kind::WantStopReceivingData(_)
            | Kind::WantStopSendingData(_)
            | Kind::StopSendingData(_)
            | Kind::WantDataPaused(_)
            | Kind::PausedMyData(_)
            | Kind::WantMoreData(_)) => self.dispatch_transaction(kind),
        };
        if let Err(rule) = result {
            self.fail_connection(Failure::Violation(rule));
        }
    }

    fn dispatch_transaction(&mut self, kind: Kind) -> Result<(), Rule> {
        let now = self.connection.now_ms();
        match kind {
            Kind::TransactionEnd(m) => self.on_transaction_end(m),
            Kind::ApplicationMessageStart(m) => self.with(m.xid, |t, limits| t.on_start(m, limits)),
            Kind::ApplicationMessageEnd(m) => {
                self.with(m.xid, |t, limits| t.on_end(m, limits, now))
            }
            Kind::DataUseMine(m) => self.with(m.xid, |t, limits| t.on_data(m, limits, now)),
            Kind::DataUseYours(m) => self.with(m.xid, |t, _| t.on_reference(m, now)),
            Kind::DataPreservationInterest(m) => self.with(m.xid, |t, _| t.on_interest(&m)),
            Kind::WantStopReceivingData(m) => {
                self.with(m.xid, |t, _| t.on_stop_receiving(m.xid, m.size))
            }
            Kind::WantStopSendingData(m) => self.with(m.xid, |t, _| t.on_stop_sending(m.xid)),
            Kind::WantDataPaused(m) => self.with(m.xid, |t, _| t.on_pause_wanted(m.offset)),
            Kind::WantMoreData(m) => self.with(m.xid, |t, _| t.on_more_wanted(&m)),
            Kind::PausedMyData(m) => self.with(m.xid, |t, _| {
                t.adapted.on_paused();
                Ok(Step::Done)
            }),
            Kind::TransactionStart(m) => self.with(m.xid, |_, _| Err(Rule::WrongRole("TS"))),
            Kind::StopSendingData(StopSendingData { xid, .. }) => {
                self.with(xid, |_, _| Err(Rule::WrongRole("DSS")))
            }
            // `dispatch` has taken all others.
            _ => Ok(()),
        }
    }

    fn with(
        &mut self,
        xid: u32,
        action: impl FnOnce(&mut Transaction, &Limits) -> Result<Step, Rule>,
    ) -> Result<(), Rule> {
        check_id(xid)?;
        let Some(transaction) = self.transactions.get_mut(xid) else {
            self.on_stray(xid, true);
            return Ok(());
        };
        match action(transaction, self.connection.limits()).unwrap_or_else(Step::from) {
            Step::Done => {}
            Step::Tell(event) => self.events.push_back(event),
            Step::Pause => self.connection.send_message(wire::paused(xid)),
            Step::Grant(original_offset) => {
                self.connection.send(Kind::StopSendingData(StopSendingData {
                    xid,
                    original_offset,
                }));
            }
            Step::Fail(failure) => self.fail_transaction(xid, failure),
        }
        Ok(())
    }

    /// Late messages are dropped; a never started xid gets one TE 400, unless it was a TE itself.
    fn on_stray(&mut self, xid: u32, answer: bool) {
        match self.transactions.stray(xid) {
            Stray::Late => self.connection.counters.late_messages += 1,
            Stray::Answered => self.connection.counters.stray_messages += 1,
            Stray::Unknown => {
                self.connection.counters.stray_messages += 1;
                if answer {
                    let reason = Rule::UnknownTransaction(xid).to_string();
                    self.connection
                        .send_message(wire::transaction_end(xid, Some(wire::failure(&reason))));
                }
            }
        }
    }

    fn on_transaction_end(&mut self, m: TransactionEnd) -> Result<(), Rule> {
        check_id(m.xid)?;
        let Some(transaction) = self.transactions.get(m.xid) else {
            self.on_stray(m.xid, false);
            return Ok(());
        };
        let result = match (
            wire::ending(m.result.as_ref()),
            transaction.adapted.life().has_ended(),
        ) {
            (Ending::Ok, true) => Ok(()),
            (Ending::Ok, false) => Err(Failure::Unfinished),
            (Ending::Partial | Ending::Failure, _) => Err(Failure::Peer {
                reason: wire::reason(m.result),
            }),
        };
        self.end_transaction(m.xid, result);
        Ok(())
    }

    fn on_connection_end(&mut self, m: ConnectionEnd) {
        let result = match wire::ending(m.result.as_ref()) {
            Ending::Ok => Ok(()),
            Ending::Partial | Ending::Failure => Err(Failure::Peer {
                reason: wire::reason(m.result),
            }),
        };
        self.end_connection(result);
    }

    /// Groups of S mean nothing to P, but they may be named in offers, so the ids are kept.
    fn on_group_created(&mut self, m: &ServiceGroupCreated) -> Result<(), Rule> {
        if !self.connection.profile_agreed() {
            return Err(Rule::NotNegotiated("SGC"));
        }
        wire::check_services(&m.services, self.connection.limits())?;
        let limits = self.connection.limits().clone();
        self.connection.peer_groups.create(m.sg_id, &limits)
    }

    /// Only P offers the profile, and P knows no other feature.
    fn on_offer(&mut self, m: &NegotiationOffer) -> Result<(), Rule> {
        let was_open = self.connection.phase_open();
        let profile = self.connection.profile().to_owned();
        self.connection.on_offer(m, |feature| {
            if feature.uri == profile {
                Opinion::Rejected
            } else {
                Opinion::Unknown
            }
        })?;
        self.after_phase(was_open);
        Ok(())
    }

    fn on_response(&mut self, m: NegotiationResponse) -> Result<(), Rule> {
        let was_open = self.connection.phase_open();
        let settled = self.connection.on_response(&m);
        if self.connection.profile_agreed() {
            settled?;
            self.after_phase(was_open);
            self.events.push_back(ProcessorEvent::OfferAnswered {
                selected: m.feature,
                sg_id: m.sg_id,
            });
            return Ok(());
        }
        match (settled, m.feature) {
            (Ok(()), Some(feature)) if feature.uri == self.connection.profile() => {
                let Some(terms) = (self.config.accept)(&feature) else {
                    self.negotiation_failed(Vec::new(), Vec::new());
                    return Err(Rule::NoProfile);
                };
                self.terms = Some(terms);
                self.connection.agree_profile();
                self.connection.note_unsettled();
                self.events
                    .push_back(ProcessorEvent::Negotiated { feature });
                Ok(())
            }
            (settled, _) => {
                self.negotiation_failed(uris(m.rejects), uris(m.unknowns));
                settled?;
                if self.connection.phase_open() {
                    Ok(())
                } else {
                    Err(Rule::NoProfile)
                }
            }
        }
    }

    fn negotiation_failed(&mut self, rejects: Vec<String>, unknowns: Vec<String>) {
        self.events
            .push_back(ProcessorEvent::NegotiationFailed { rejects, unknowns });
    }

    fn on_ability_answer(&mut self, supported: bool) -> Result<(), Rule> {
        self.connection.on_ability_answer()?;
        self.events.push_back(ProcessorEvent::Ability { supported });
        Ok(())
    }

    /// A phase that has closed lets data flow again.
    fn after_phase(&mut self, was_open: bool) {
        if was_open && !self.connection.phase_open() {
            let events = self
                .transactions
                .iter()
                .map(|(xid, _)| ProcessorEvent::Sendable { xid });
            self.events.extend(events);
        }
    }

    /// PA at once; xid exactly if P works on it, Org-Data exactly while the original flow is open (RFC 4037 §11.23).
    fn answer_progress(&mut self, asked: Option<u32>) {
        let (xid, org_data) =
            match asked.and_then(|xid| self.transactions.get(xid).map(|t| (xid, t))) {
                Some((xid, t)) if t.original.life() == Life::Open => {
                    (Some(xid), Some(t.original.offset()))
                }
                Some((xid, _)) => (Some(xid), None),
                None => (None, None),
            };
        self.connection
            .send_progress(Kind::ProgressAnswer(ProgressAnswer { xid, org_data }));
    }
}

fn uris(features: Vec<opes_proto::ocp::Feature>) -> Vec<String> {
    features.into_iter().map(|f| f.uri).collect()
}
