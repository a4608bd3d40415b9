//! What S does with each message of P.

use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{
    ConnectionEnd, Feature, NegotiationOffer, NegotiationResponse, ProgressAnswer,
    ServiceGroupCreated, ServiceGroupDestroyed, TransactionEnd, TransactionStart,
};

use super::transaction::{Step, Transaction};
use super::{CalloutServer, Selection, ServerEvent};
use crate::connection::check_id;
use crate::flow::Life;
use crate::limits::Limits;
use crate::negotiation::Opinion;
use crate::transactions::Stray;
use crate::violation::{Failure, Rule};
use crate::wire::{self, Ending};

impl CalloutServer {
    /// Connection scope here, transaction scope in `dispatch_transaction`.
    pub(super) fn dispatch(&mut self, kind: Kind) {
        let result = match kind {
            Kind::ConnectionStart(_) => Ok(()),
            Kind::ConnectionEnd(m) => {
                self.on_connection_end(m);
                Ok(())
            }
            Kind::ServiceGroupCreated(m) => self.on_group_created(m),
            Kind::ServiceGroupDestroyed(m) => self.on_group_destroyed(m),
            Kind::NegotiationOffer(m) => self.on_offer(&m),
            Kind::NegotiationResponse(m) => self.on_response(m),
            Kind::AbilityQuery(m) => self.connection.on_ability_query(&m),
            Kind::AbilityAnswer(m) => self.on_ability_answer(m.supported),
            Kind::ProgressQuery(m) => {
                let (xid, org_data) = self.progress_of(m.xid);
                self.connection
                    .send_progress(Kind::ProgressAnswer(ProgressAnswer { xid, org_data }));
                Ok(())
            }
            Kind::ProgressAnswer(m) => {
                self.events.push_back(ServerEvent::Progress {
                    xid: m.xid,
                    org_data: m.org_data,
                });
                Ok(())
            }
            Kind::ProgressReport(m) => {
                self.events.push_back(ServerEvent::Progress {
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
            Kind::TransactionStart(m) => self.on_transaction_start(m),
            Kind::TransactionEnd(m) => self.on_transaction_end(m),
            Kind::ApplicationMessageStart(m) => self.with(m.xid, |t, limits| t.on_start(m, limits)),
            Kind::ApplicationMessageEnd(m) => self.with(m.xid, |t, _| t.on_end(m, now)),
            Kind::DataUseMine(m) => self.with(m.xid, |t, limits| t.on_data(m, limits, now)),
            Kind::StopSendingData(m) => self.with(m.xid, |t, _| t.on_stop_sending(&m)),
            Kind::WantDataPaused(m) => self.with(m.xid, |t, _| t.on_pause_wanted(m.offset)),
            Kind::WantMoreData(m) => self.with(m.xid, |t, _| t.on_more_wanted(&m)),
            Kind::PausedMyData(m) => self.with(m.xid, |t, _| {
                t.original.on_paused();
                Ok(Step::Done)
            }),
            Kind::DataUseYours(m) => self.with(m.xid, |_, _| Err(Rule::WrongRole("DUY"))),
            Kind::DataPreservationInterest(m) => {
                self.with(m.xid, |_, _| Err(Rule::WrongRole("DPI")))
            }
            Kind::WantStopReceivingData(m) => self.with(m.xid, |_, _| Err(Rule::WrongRole("DWSR"))),
            Kind::WantStopSendingData(m) => self.with(m.xid, |_, _| Err(Rule::WrongRole("DWSS"))),
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
                    self.refuse_start(xid, &Rule::UnknownTransaction(xid));
                }
            }
        }
    }

    fn refuse_start(&mut self, xid: u32, rule: &Rule) {
        let reason = rule.to_string();
        self.connection
            .send_message(wire::transaction_end(xid, Some(wire::failure(&reason))));
    }

    fn on_transaction_start(&mut self, m: TransactionStart) -> Result<(), Rule> {
        check_id(m.xid)?;
        if let Some(highest) = self
            .transactions
            .highest()
            .filter(|highest| m.xid <= *highest)
        {
            let rule = Rule::IdNotIncreasing { id: m.xid, highest };
            if self.transactions.get(m.xid).is_some() {
                self.fail_transaction(m.xid, Failure::Violation(rule));
            } else {
                self.refuse_start(m.xid, &rule);
            }
            return Ok(());
        }
        match self.check_start(&m) {
            Ok(transaction) => self.transactions.insert(m.xid, transaction),
            Err(rule) => {
                self.transactions.skip(m.xid);
                self.refuse_start(m.xid, &rule);
                return Ok(());
            }
        }
        let TransactionStart {
            xid,
            sg_id,
            budget_ms,
            traceparent,
        } = m;
        self.events.push_back(ServerEvent::Started {
            xid,
            sg_id,
            budget_ms,
            traceparent,
        });
        Ok(())
    }

    fn check_start(&self, m: &TransactionStart) -> Result<Transaction, Rule> {
        let selection = self.selection.as_ref().ok_or(Rule::NotNegotiated("TS"))?;
        if self.connection.draining {
            return Err(Rule::Draining);
        }
        if !self.connection.peer_groups.contains(m.sg_id) {
            return Err(Rule::UnknownGroup(m.sg_id));
        }
        wire::check_parameters(m.traceparent.len(), self.connection.limits())?;
        let max = u64::from(self.connection.limits().transactions_max);
        if self.transactions.len() as u64 >= max {
            return Err(Rule::TooMany {
                what: "transactions",
                max,
            });
        }
        Ok(Transaction::new(
            selection,
            m.budget_ms,
            self.connection.now_ms(),
        ))
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

    fn on_group_created(&mut self, m: ServiceGroupCreated) -> Result<(), Rule> {
        if !self.connection.profile_agreed() {
            return Err(Rule::NotNegotiated("SGC"));
        }
        wire::check_services(&m.services, self.connection.limits())?;
        let limits = self.connection.limits().clone();
        self.connection.peer_groups.create(m.sg_id, &limits)?;
        let ServiceGroupCreated { sg_id, services } = m;
        self.events
            .push_back(ServerEvent::GroupCreated { sg_id, services });
        Ok(())
    }

    fn on_group_destroyed(&mut self, m: ServiceGroupDestroyed) -> Result<(), Rule> {
        self.connection.on_group_destroyed(m.sg_id)?;
        self.events
            .push_back(ServerEvent::GroupDestroyed { sg_id: m.sg_id });
        Ok(())
    }

    /// Every offer is answered at once; the profile is for the connection, not for a group.
    fn on_offer(&mut self, m: &NegotiationOffer) -> Result<(), Rule> {
        let was_open = self.connection.phase_open();
        let profile = self.connection.profile().to_owned();
        let (select, scope) = (&self.select, m.sg_id);
        let mut chosen: Option<(Feature, Selection)> = None;
        let own_dropped = self.connection.on_offer(m, |offered| {
            if offered.uri != profile {
                return Opinion::Unknown;
            }
            let Some(selection) = scope.is_none().then(|| select(offered)).flatten() else {
                return Opinion::Rejected;
            };
            let parameters = selection.parameters.clone();
            chosen = Some((offered.clone(), selection));
            Opinion::Selected(Feature {
                uri: profile.clone(),
                parameters,
            })
        })?;
        if own_dropped {
            self.events.push_back(ServerEvent::OfferAnswered {
                selected: None,
                sg_id: None,
            });
        }
        if let Some((offer, selection)) = chosen {
            self.selection = Some(selection);
            self.connection.agree_profile();
            self.connection.note_unsettled();
            self.events.push_back(ServerEvent::Negotiated { offer });
        }
        self.after_phase(was_open);
        Ok(())
    }

    fn on_response(&mut self, m: NegotiationResponse) -> Result<(), Rule> {
        let was_open = self.connection.phase_open();
        self.connection.on_response(&m)?;
        self.after_phase(was_open);
        self.events.push_back(ServerEvent::OfferAnswered {
            selected: m.feature,
            sg_id: m.sg_id,
        });
        Ok(())
    }

    fn on_ability_answer(&mut self, supported: bool) -> Result<(), Rule> {
        self.connection.on_ability_answer()?;
        self.events.push_back(ServerEvent::Ability { supported });
        Ok(())
    }

    /// A phase that has closed lets data flow again.
    fn after_phase(&mut self, was_open: bool) {
        if was_open && !self.connection.phase_open() {
            let events = self
                .transactions
                .iter()
                .map(|(xid, _)| ServerEvent::Sendable { xid });
            self.events.extend(events);
        }
    }

    /// xid exactly if S works on it, octets received exactly while the original flow is open (RFC 4037 §11.23).
    pub(super) fn progress_of(&self, asked: Option<u32>) -> (Option<u32>, Option<u64>) {
        match asked.and_then(|xid| self.transactions.get(xid).map(|t| (xid, t))) {
            Some((xid, t)) if t.original.life() == Life::Open => {
                (Some(xid), Some(t.original.offset()))
            }
            Some((xid, _)) => (Some(xid), None),
            None => (None, None),
        }
    }
}
