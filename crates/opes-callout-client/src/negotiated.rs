//! The profile's side of the negotiation: our offer, the service's selection.

use bytes::Bytes;
use opes_ocp::Terms;
use opes_proto::ocp::Feature;
use opes_proto::smtp::{ContextField, PROFILE_URI, ProfileOffer, ProfileSelection};
use prost::Message as _;

use crate::context::Filter;
use crate::request::ContentWant;

/// Octets of adapted flow that a service may send before we grant more. So many may be on their way from the connection to where
/// they are held, for each transaction, and no budget knows of them.
pub(crate) const ADAPTED_CREDIT: u64 = 256 * 1024;

/// What the service selected, ready for use.
#[derive(Debug)]
pub(crate) struct Negotiated {
    pub(crate) selection: ProfileSelection,
    pub(crate) command: Filter,
    pub(crate) message: Filter,
    pub(crate) content: ContentWant,
}

impl Negotiated {
    pub(crate) fn new(selection: ProfileSelection) -> Self {
        let command = selection
            .command
            .as_ref()
            .map(Filter::new)
            .unwrap_or_default();
        let message = selection
            .message
            .as_ref()
            .map(Filter::new)
            .unwrap_or_default();
        let content = selection
            .message
            .as_ref()
            .map(ContentWant::of)
            .unwrap_or_default();
        Self {
            selection,
            command,
            message,
            content,
        }
    }
}

pub(crate) fn offer(system: &str, transactions_max: u32) -> Feature {
    let fields = i32::from(ContextField::Client)..=i32::from(ContextField::Answer);
    let offer = ProfileOffer {
        system: system.to_owned(),
        initial_credit: ADAPTED_CREDIT,
        available_context: fields.collect(),
        max_transactions: transactions_max,
        copies: true,
    };
    Feature {
        uri: PROFILE_URI.to_owned(),
        parameters: Bytes::from(offer.encode_to_vec()),
    }
}

pub(crate) fn selection(feature: &Feature) -> Option<ProfileSelection> {
    ProfileSelection::decode(feature.parameters.clone()).ok()
}

pub(crate) fn terms(feature: &Feature) -> Option<Terms> {
    let selection = selection(feature)?;
    Some(Terms {
        original_credit: selection.initial_credit,
        transactions_max: selection.max_transactions,
    })
}
