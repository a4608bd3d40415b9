//! Offers and responses (RFC 4037 §6, §11.18, §11.19): one offer at a time for each side, P wins a collision, a phase stays
//! open exactly if the offer or the response of a pair announced another offer.

use opes_proto::ocp::{Feature, NegotiationOffer, NegotiationResponse};

use crate::error::CallError;
use crate::violation::Rule;

/// The role on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Processor,
    CalloutServer,
}

#[derive(Debug)]
pub(crate) struct Negotiation {
    role: Role,
    ours: Option<Ours>,
    /// P: an offer of S crossed ours and was disregarded.
    disregarded: bool,
    phase_open: bool,
    in_force: Vec<InForce>,
}

/// Our unanswered offer.
#[derive(Debug)]
struct Ours {
    features: Vec<String>,
    sg_id: Option<u32>,
    pending: bool,
}

#[derive(Debug)]
struct InForce {
    uri: String,
    sg_id: Option<u32>,
}

/// What became of an offer of the peer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// P only: our own offer goes first.
    Disregarded,
    /// Send this at once.
    Respond {
        response: NegotiationResponse,
        /// S only: the own offer was dropped in favour of P's.
        own_dropped: bool,
    },
}

/// What we think of one offered feature.
pub(crate) enum Opinion {
    Selected(Feature),
    Rejected,
    Unknown,
}

impl Negotiation {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            ours: None,
            disregarded: false,
            phase_open: false,
            in_force: Vec::new(),
        }
    }

    /// In a phase: only NO, NR, AQ, AA, PQ, PA, PR and CE may be sent.
    pub(crate) fn phase_open(&self) -> bool {
        self.phase_open
    }

    pub(crate) fn is_unsettled(&self) -> bool {
        self.phase_open || self.ours.is_some()
    }

    /// Records an offer of ours.
    pub(crate) fn offer(&mut self, offer: &NegotiationOffer) -> Result<(), CallError> {
        if self.ours.is_some() {
            return Err(CallError::OfferOutstanding);
        }
        let features = offer.features.iter().map(|f| f.uri.clone()).collect();
        self.ours = Some(Ours {
            features,
            sg_id: offer.sg_id,
            pending: offer.offer_pending,
        });
        Ok(())
    }

    /// NO of the peer. `opinion` is asked best first until a feature is selected; conflicts are settled before.
    pub(crate) fn on_offer(
        &mut self,
        offer: &NegotiationOffer,
        mut opinion: impl FnMut(&Feature) -> Opinion,
    ) -> Result<Answer, Rule> {
        let own_dropped = match (self.role, self.ours.is_some()) {
            (Role::Processor, true) if self.disregarded => return Err(Rule::OfferWhilePending),
            (Role::Processor, true) => {
                self.disregarded = true;
                return Ok(Answer::Disregarded);
            }
            (Role::CalloutServer, true) => true,
            (Role::Processor | Role::CalloutServer, false) => false,
        };
        self.ours = None;
        let response = self.respond(offer, &mut opinion);
        self.phase_open = offer.offer_pending;
        Ok(Answer::Respond {
            response,
            own_dropped,
        })
    }

    fn respond(
        &mut self,
        offer: &NegotiationOffer,
        opinion: &mut impl FnMut(&Feature) -> Opinion,
    ) -> NegotiationResponse {
        let mut response = NegotiationResponse {
            sg_id: offer.sg_id,
            ..Default::default()
        };
        for feature in &offer.features {
            if self.conflicts(&feature.uri, offer.sg_id) {
                response.rejects.push(by_name(feature));
                continue;
            }
            match opinion(feature) {
                Opinion::Rejected => response.rejects.push(by_name(feature)),
                Opinion::Unknown => response.unknowns.push(by_name(feature)),
                Opinion::Selected(selected) => {
                    self.enforce(&selected.uri, offer.sg_id);
                    response.feature = Some(selected);
                    break;
                }
            }
        }
        response
    }

    /// NR of the peer; gives back the selected feature.
    pub(crate) fn on_response(&mut self, response: &NegotiationResponse) -> Result<(), Rule> {
        let ours = self.ours.take().ok_or(Rule::ResponseWithoutOffer)?;
        self.disregarded = false;
        if ours.sg_id != response.sg_id {
            return Err(Rule::ResponseScope);
        }
        self.phase_open = ours.pending || response.offer_pending;
        match &response.feature {
            Some(feature) if !ours.features.contains(&feature.uri) => Err(Rule::FeatureNotOffered),
            Some(feature) => {
                self.enforce(&feature.uri, ours.sg_id);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The group is gone, and with it what was negotiated for it.
    pub(crate) fn forget_group(&mut self, sg_id: u32) {
        self.in_force.retain(|f| f.sg_id != Some(sg_id));
    }

    /// Checked between the connection and every group, both ways (RFC 4037 §6).
    fn conflicts(&self, uri: &str, sg_id: Option<u32>) -> bool {
        self.in_force
            .iter()
            .any(|f| f.uri == uri && (f.sg_id.is_none() || sg_id.is_none() || f.sg_id == sg_id))
    }

    fn enforce(&mut self, uri: &str, sg_id: Option<u32>) {
        if !self.conflicts(uri, sg_id) {
            self.in_force.push(InForce {
                uri: uri.to_owned(),
                sg_id,
            });
        }
    }
}

/// Rejects and Unknowns name features; the parameters are the offerer's own and need no echo.
fn by_name(feature: &Feature) -> Feature {
    Feature {
        uri: feature.uri.clone(),
        parameters: bytes::Bytes::new(),
    }
}
