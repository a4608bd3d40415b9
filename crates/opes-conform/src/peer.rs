//! The processor that the kit plays: connects, negotiates, makes a group, and waits for things with an end to its patience.

use std::time::Duration;

use bytes::Bytes;
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{NegotiationOffer, NegotiationResponse, ProgressAnswer};
use opes_proto::smtp::{
    ContextField, PROFILE_URI, Permission, ProfileOffer, ProfileSelection, ServiceParameters,
};
use prost::Message as _;
use tonic::transport::Channel;

use crate::fault::{Fault, require};
use crate::messages::{code, cs, no, pq, profile_feature, sgc, shown};
use crate::wire::{Incoming, Wire};

/// Octets of adapted flow that a server may send at first.
const CREDIT: u64 = 1024 * 1024;

/// The one group.
pub(crate) const GROUP: u32 = 0;

/// What scenarios share.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) channel: Channel,
    pub(crate) patience: Duration,
    /// How long "nothing comes" takes to show.
    pub(crate) quiet: Duration,
    /// Parameters of the rule, JSON.
    pub(crate) parameters: String,
}

pub(crate) struct Peer {
    pub(crate) wire: Wire,
    pub(crate) setting: Setting,
    pub(crate) terms: ProfileSelection,
}

pub(crate) fn offer() -> ProfileOffer {
    let fields = i32::from(ContextField::Client)..=i32::from(ContextField::Answer);
    ProfileOffer {
        system: String::new(),
        initial_credit: CREDIT,
        available_context: fields.collect(),
        max_transactions: 16,
        copies: true,
    }
}

impl Peer {
    /// Nothing is sent yet.
    pub(crate) fn connect(setting: &Setting) -> Self {
        Self {
            wire: Wire::open(setting.channel.clone()),
            setting: setting.clone(),
            terms: ProfileSelection::default(),
        }
    }

    /// CS and NO; with a server that keeps to the rules the profile is in force then.
    pub(crate) async fn negotiate(&mut self, offer: &ProfileOffer) -> Result<(), Fault> {
        self.wire.observer.offered(offer);
        let offer = no(vec![profile_feature(offer)]);
        self.send(vec![cs(), Kind::NegotiationOffer(offer)]).await;
        let response = self.response("C-06").await?;
        let feature = response.feature.ok_or_else(|| {
            Fault::broken(
                "C-06",
                "it does not select the profile, first thing offered",
            )
        })?;
        require(feature.uri == PROFILE_URI, "C-10", || {
            format!("it selects {}, which was not offered", feature.uri)
        })?;
        self.terms = ProfileSelection::decode(feature.parameters)
            .map_err(|error| Fault::broken("C-06", format!("its ProfileSelection: {error}")))?;
        self.wire.observer.selected(&self.terms)
    }

    /// Profile and group 0 in force.
    pub(crate) async fn ready(setting: &Setting) -> Result<Self, Fault> {
        Self::ready_with(setting, &offer()).await
    }

    pub(crate) async fn ready_with(setting: &Setting, offer: &ProfileOffer) -> Result<Self, Fault> {
        let mut peer = Self::connect(setting);
        peer.begin(offer).await?;
        Ok(peer)
    }

    pub(crate) async fn begin(&mut self, offer: &ProfileOffer) -> Result<(), Fault> {
        self.negotiate(offer).await?;
        let parameters = self.parameters();
        self.send(vec![sgc(GROUP, parameters)]).await;
        Ok(())
    }

    pub(crate) fn parameters(&self) -> Bytes {
        let allow = i32::from(Permission::Header)..=i32::from(Permission::Report);
        let parameters = ServiceParameters {
            rule: "conformance/test".to_owned(),
            revision: "1".to_owned(),
            parameters_json: self.setting.parameters.clone(),
            allow: allow.collect(),
        };
        parameters.encode_to_vec().into()
    }

    pub(crate) async fn send(&mut self, kinds: Vec<Kind>) {
        self.wire.send(kinds).await;
    }

    /// The next message; its absence breaks rule `id`.
    pub(crate) async fn next(&mut self, id: &'static str, wanted: &str) -> Result<Kind, Fault> {
        match self.wire.next(self.setting.patience).await? {
            Incoming::Message(kind) => Ok(kind),
            Incoming::Closed(said) => {
                require(self.wire.observer.has_ended(), "C-03", || {
                    format!("it closes without CE ({said}) where {wanted} was due")
                })?;
                Err(Fault::broken(
                    id,
                    format!("it ends the connection where {wanted} was due"),
                ))
            }
            Incoming::Silence => Err(Fault::broken(id, format!("{wanted} does not come"))),
        }
    }

    /// Passes over everything until `pick` finds what was waited for.
    pub(crate) async fn until<T>(
        &mut self,
        id: &'static str,
        wanted: &str,
        mut pick: impl FnMut(&Kind) -> Option<T>,
    ) -> Result<T, Fault> {
        loop {
            let kind = self.next(id, wanted).await?;
            if let Some(found) = pick(&kind) {
                return Ok(found);
            }
        }
    }

    pub(crate) async fn response(
        &mut self,
        id: &'static str,
    ) -> Result<NegotiationResponse, Fault> {
        self.until(id, "NR", |kind| match kind {
            Kind::NegotiationResponse(m) => Some(m.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn offer_feature(
        &mut self,
        offer: NegotiationOffer,
        id: &'static str,
    ) -> Result<NegotiationResponse, Fault> {
        self.send(vec![Kind::NegotiationOffer(offer)]).await;
        self.response(id).await
    }

    /// Asks for a sign of life: after its answer the server has seen everything sent before, and the connection lives.
    pub(crate) async fn alive(
        &mut self,
        id: &'static str,
        after: &str,
    ) -> Result<Vec<Kind>, Fault> {
        self.send(vec![pq(None)]).await;
        let wanted = format!("an answer to PQ after {after}");
        let mut before = Vec::new();
        loop {
            match self.next(id, &wanted).await? {
                Kind::ProgressAnswer(_) => return Ok(before),
                Kind::ConnectionEnd(_) => {
                    let what = format!("it ends the connection after {after}");
                    return Err(Fault::broken(id, what));
                }
                kind => before.push(kind),
            }
        }
    }

    pub(crate) async fn progress(
        &mut self,
        xid: Option<u32>,
        id: &'static str,
    ) -> Result<ProgressAnswer, Fault> {
        self.send(vec![pq(xid)]).await;
        self.until(id, "an answer to PQ", |kind| match kind {
            Kind::ProgressAnswer(m) => Some(*m),
            _ => None,
        })
        .await
    }

    /// TE 400 for `xid`, and nothing worse: the connection goes on.
    pub(crate) async fn refused(
        &mut self,
        xid: u32,
        id: &'static str,
        after: &str,
    ) -> Result<(), Fault> {
        let wanted = format!("TE 400 after {after}");
        let ended = self.end_of(xid, id, &wanted).await?;
        require(ended != 200, id, || {
            format!("{wanted} is due, but it answers as if all were well")
        })?;
        self.alive("C-24", after).await.map(|_| ())
    }

    /// Code of the TE of `xid`.
    pub(crate) async fn end_of(
        &mut self,
        xid: u32,
        id: &'static str,
        wanted: &str,
    ) -> Result<u32, Fault> {
        let mut ended = None;
        while ended.is_none() {
            let kind = self.next(id, wanted).await?;
            match &kind {
                Kind::TransactionEnd(m) if m.xid == xid => ended = Some(code(m.result.as_ref())),
                Kind::ConnectionEnd(_) => {
                    let what = format!("{wanted} is due, but it sends {}", shown(&kind));
                    return Err(Fault::broken("C-24", what));
                }
                _ => {}
            }
        }
        Ok(ended.unwrap_or(400))
    }

    /// CE 400, then the end of the stream.
    pub(crate) async fn thrown_out(&mut self, id: &'static str, after: &str) -> Result<(), Fault> {
        let wanted = format!("CE 400 after {after}");
        let code = self
            .until(id, &wanted, |kind| match kind {
                Kind::ConnectionEnd(m) => Some(code(m.result.as_ref())),
                _ => None,
            })
            .await?;
        require(code != 200, id, || {
            format!("{wanted} is due, but it is CE 200")
        })?;
        self.closed("C-03").await
    }

    /// After CE nothing but the end of the stream.
    pub(crate) async fn closed(&mut self, id: &'static str) -> Result<(), Fault> {
        match self.wire.next(self.setting.patience).await? {
            Incoming::Closed(_) => Ok(()),
            Incoming::Silence => Err(Fault::broken(id, "it does not close the stream after CE")),
            Incoming::Message(kind) => {
                let what = format!("it goes on after CE: {}", shown(&kind));
                Err(Fault::broken(id, what))
            }
        }
    }

    /// Everything that comes in a moment of silence.
    pub(crate) async fn quiet(&mut self) -> Result<Vec<Kind>, Fault> {
        let mut came = Vec::new();
        let quiet = self.setting.quiet;
        while let Incoming::Message(kind) = self.wire.next(quiet).await? {
            came.push(kind);
        }
        Ok(came)
    }
}
