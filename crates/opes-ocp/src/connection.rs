//! What both roles share at connection scope: CS and CE, output with the hold-back of a negotiation phase, ability
//! queries, groups, time and counters.

use std::collections::VecDeque;

use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{
    AbilityAnswer, AbilityQuery, ConnectionStart, Feature, Message, NegotiationOffer,
    NegotiationResponse, ProgressQuery, Result as Code,
};

use crate::error::CallError;
use crate::groups::Groups;
use crate::limits::{ID_MAX, Limits};
use crate::negotiation::{Answer, Negotiation, Opinion, Role};
use crate::violation::{Failure, Rule};
use crate::wire;

/// Events of one connection that changed nothing, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages of a kind that we do not know.
    pub unknown_messages: u64,
    /// Messages for transactions that had ended.
    pub late_messages: u64,
    /// Messages for transactions that were never started.
    pub stray_messages: u64,
    /// Messages after the end of the connection.
    pub after_end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// CS of the peer has not come.
    AwaitingStart,
    Running,
    Ended,
}

#[derive(Debug)]
pub(crate) struct Connection {
    life: Life,
    limits: Limits,
    out: VecDeque<Message>,
    /// Ordinary messages that wait for the end of a negotiation phase.
    held: Vec<Message>,
    negotiation: Negotiation,
    pub(crate) own_groups: Groups,
    pub(crate) peer_groups: Groups,
    /// URI of the one profile that this side knows.
    profile: String,
    profile_agreed: bool,
    /// AQ without AA.
    queries: u32,
    pub(crate) draining: bool,
    pub(crate) counters: Counters,
    now_ms: u64,
    unsettled_since_ms: Option<u64>,
}

impl Connection {
    /// CS is the first message of each side (RFC 4037 §11.1).
    pub(crate) fn new(role: Role, profile: String, limits: Limits, now_ms: u64) -> Self {
        Self {
            life: Life::AwaitingStart,
            limits,
            out: VecDeque::from([wire::message(Kind::ConnectionStart(ConnectionStart {}))]),
            held: Vec::new(),
            negotiation: Negotiation::new(role),
            own_groups: Groups::default(),
            peer_groups: Groups::default(),
            profile,
            profile_agreed: false,
            queries: 0,
            draining: false,
            counters: Counters::default(),
            now_ms,
            unsettled_since_ms: Some(now_ms),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn profile(&self) -> &str {
        &self.profile
    }

    pub(crate) fn profile_agreed(&self) -> bool {
        self.profile_agreed
    }

    pub(crate) fn agree_profile(&mut self) {
        self.profile_agreed = true;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.life == Life::Ended
    }

    pub(crate) fn require_alive(&self) -> Result<(), CallError> {
        if self.has_ended() {
            Err(CallError::ConnectionEnded)
        } else {
            Ok(())
        }
    }

    /// Groups and transactions need the profile and a closed phase.
    pub(crate) fn require_agreed(&self) -> Result<(), CallError> {
        self.require_alive()?;
        if self.profile_agreed && !self.phase_open() {
            Ok(())
        } else {
            Err(CallError::NotNegotiated)
        }
    }

    pub(crate) fn phase_open(&self) -> bool {
        self.negotiation.phase_open()
    }

    // ---- output --------------------------------------------------------------------------------------------------

    /// A message that a phase holds back.
    pub(crate) fn send(&mut self, kind: Kind) {
        self.send_message(wire::message(kind));
    }

    pub(crate) fn send_message(&mut self, message: Message) {
        if self.phase_open() {
            self.held.push(message);
        } else {
            self.out.push_back(message);
        }
    }

    /// One of NO, NR, AQ, AA, PQ, PA, PR, CE.
    fn send_in_phase(&mut self, kind: Kind) {
        self.out.push_back(wire::message(kind));
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    pub(crate) fn drain_output(&mut self, into: &mut Vec<Message>) {
        into.extend(self.out.drain(..));
    }

    // ---- start and end ---------------------------------------------------------------------------------------------

    /// The first look at a message. `Ok(None)`: nothing to do.
    pub(crate) fn admit(&mut self, message: Message) -> Result<Option<Kind>, Rule> {
        match (self.life, message.kind) {
            (Life::Ended, _) => {
                self.counters.after_end += 1;
                Ok(None)
            }
            (Life::AwaitingStart, Some(Kind::ConnectionStart(_))) => {
                self.life = Life::Running;
                Ok(None)
            }
            (Life::AwaitingStart, _) => Err(Rule::FirstNotStart),
            // A repeated CS is ignored.
            (Life::Running, Some(Kind::ConnectionStart(_))) => Ok(None),
            (Life::Running, None) => {
                self.counters.unknown_messages += 1;
                Ok(None)
            }
            (Life::Running, kind) => Ok(kind),
        }
    }

    /// Sends CE, with 400 if there is a reason, and frees the state.
    pub(crate) fn close(&mut self, failure: Option<&str>) {
        let result: Option<Code> = failure.map(wire::failure);
        self.held.clear();
        self.out.push_back(wire::connection_end(result));
        self.free();
    }

    /// CE came or the stream is gone.
    pub(crate) fn free(&mut self) {
        self.life = Life::Ended;
        self.held.clear();
        self.own_groups.clear();
        self.peer_groups.clear();
        self.unsettled_since_ms = None;
    }

    // ---- negotiation ------------------------------------------------------------------------------------------------

    pub(crate) fn offer(&mut self, offer: NegotiationOffer) -> Result<(), CallError> {
        self.require_alive()?;
        if let Some(sg_id) = offer.sg_id.filter(|id| !self.own_groups.contains(*id)) {
            return Err(CallError::UnknownGroup(sg_id));
        }
        self.negotiation.offer(&offer)?;
        self.send_in_phase(Kind::NegotiationOffer(offer));
        self.note_unsettled();
        Ok(())
    }

    /// NO of the peer: answered here. Gives back whether an own offer was dropped for it.
    pub(crate) fn on_offer(
        &mut self,
        offer: &NegotiationOffer,
        opinion: impl FnMut(&Feature) -> Opinion,
    ) -> Result<bool, Rule> {
        wire::check_features(&offer.features, &self.limits)?;
        if let Some(sg_id) = offer.sg_id.filter(|id| !self.peer_groups.contains(*id)) {
            return Err(Rule::UnknownGroup(sg_id));
        }
        match self.negotiation.on_offer(offer, opinion)? {
            Answer::Disregarded => Ok(false),
            Answer::Respond {
                response,
                own_dropped,
            } => {
                self.send_in_phase(Kind::NegotiationResponse(response));
                self.settle();
                Ok(own_dropped)
            }
        }
    }

    pub(crate) fn on_response(&mut self, response: &NegotiationResponse) -> Result<(), Rule> {
        let features = response.rejects.len().max(response.unknowns.len());
        wire::check_count("features", features, self.limits.features_max)?;
        if let Some(feature) = &response.feature {
            wire::check_parameters(feature.parameters.len(), &self.limits)?;
        }
        self.negotiation.on_response(response)?;
        self.settle();
        Ok(())
    }

    fn settle(&mut self) {
        if !self.phase_open() {
            self.out.extend(self.held.drain(..));
        }
        self.note_unsettled();
    }

    /// Starts or stops the clock of the negotiation; a chain of offers does not start it again (RFC 4037 §2.7).
    pub(crate) fn note_unsettled(&mut self) {
        let unsettled = !self.profile_agreed || self.negotiation.is_unsettled();
        self.unsettled_since_ms = match (unsettled, self.unsettled_since_ms) {
            (true, None) => Some(self.now_ms),
            (true, since) => since,
            (false, _) => None,
        };
    }

    // ---- groups --------------------------------------------------------------------------------------------------------

    pub(crate) fn on_group_destroyed(&mut self, sg_id: u32) -> Result<(), Rule> {
        self.peer_groups.destroy(sg_id)?;
        self.negotiation.forget_group(sg_id);
        Ok(())
    }

    pub(crate) fn forget_own_group(&mut self, sg_id: u32) -> Result<(), CallError> {
        self.own_groups
            .destroy(sg_id)
            .map_err(|_| CallError::UnknownGroup(sg_id))?;
        self.negotiation.forget_group(sg_id);
        Ok(())
    }

    // ---- ability and progress --------------------------------------------------------------------------------------------

    pub(crate) fn query_ability(&mut self, feature: Feature) -> Result<(), CallError> {
        self.require_alive()?;
        self.queries += 1;
        self.send_in_phase(Kind::AbilityQuery(AbilityQuery {
            feature: Some(feature),
        }));
        Ok(())
    }

    pub(crate) fn on_ability_query(&mut self, query: &AbilityQuery) -> Result<(), Rule> {
        let feature = query.feature.as_ref().ok_or(Rule::Missing("AQ feature"))?;
        let supported = feature.uri == self.profile;
        self.send_in_phase(Kind::AbilityAnswer(AbilityAnswer { supported }));
        Ok(())
    }

    pub(crate) fn on_ability_answer(&mut self) -> Result<(), Rule> {
        self.queries = self
            .queries
            .checked_sub(1)
            .ok_or(Rule::AnswerWithoutQuery)?;
        Ok(())
    }

    pub(crate) fn query_progress(&mut self, xid: Option<u32>) -> Result<(), CallError> {
        self.require_alive()?;
        self.send_in_phase(Kind::ProgressQuery(ProgressQuery { xid }));
        Ok(())
    }

    /// PA and PR.
    pub(crate) fn send_progress(&mut self, kind: Kind) {
        self.send_in_phase(kind);
    }

    // ---- time --------------------------------------------------------------------------------------------------------------

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Takes the time, which never runs backwards here. The negotiation may be over time.
    pub(crate) fn tick(&mut self, now_ms: u64) -> Result<(), Failure> {
        self.now_ms = self.now_ms.max(now_ms);
        let limit = self.limits.negotiation_ms;
        match self.unsettled_since_ms {
            Some(since) if limit > 0 && self.now_ms.saturating_sub(since) >= limit => {
                Err(Failure::NoProgress(limit))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn negotiation_deadline_ms(&self) -> Option<u64> {
        let limit = self.limits.negotiation_ms;
        self.unsettled_since_ms
            .filter(|_| limit > 0)
            .map(|since| since.saturating_add(limit))
    }
}

/// The clock of one transaction: budget and progress (RFC 4037 §2.7).
#[derive(Debug)]
// The unit belongs to the name of a time.
#[allow(clippy::struct_field_names)]
pub(crate) struct Clock {
    started_ms: u64,
    progress_ms: u64,
    budget_ms: u32,
}

impl Clock {
    pub(crate) fn new(now_ms: u64, budget_ms: u32) -> Self {
        Self {
            started_ms: now_ms,
            progress_ms: now_ms,
            budget_ms,
        }
    }

    /// A flow moved. PA, PR, empty DUM and grants are no progress.
    pub(crate) fn progress(&mut self, now_ms: u64) {
        self.progress_ms = now_ms;
    }

    pub(crate) fn check(&self, now_ms: u64, limits: &Limits) -> Result<(), Failure> {
        let budget = u64::from(self.budget_ms);
        if budget > 0 && now_ms.saturating_sub(self.started_ms) >= budget {
            return Err(Failure::BudgetSpent(self.budget_ms));
        }
        let quiet = limits.no_progress_ms;
        if quiet > 0 && now_ms.saturating_sub(self.progress_ms) >= quiet {
            return Err(Failure::NoProgress(quiet));
        }
        Ok(())
    }

    pub(crate) fn deadline_ms(&self, limits: &Limits) -> Option<u64> {
        let budget = Some(u64::from(self.budget_ms)).filter(|b| *b > 0);
        let budget = budget.map(|b| self.started_ms.saturating_add(b));
        let quiet = Some(limits.no_progress_ms).filter(|q| *q > 0);
        let quiet = quiet.map(|q| self.progress_ms.saturating_add(q));
        match (budget, quiet) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// Whether an id on the wire is possible at all; if not, the scope of its message cannot be determined.
pub(crate) fn check_id(id: u32) -> Result<(), Rule> {
    if id > ID_MAX {
        Err(Rule::IdTooLarge(id))
    } else {
        Ok(())
    }
}
