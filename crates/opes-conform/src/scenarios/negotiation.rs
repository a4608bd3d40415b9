//! NO, NR and phases.

use opes_proto::ocp::NegotiationOffer;
use opes_proto::ocp::message::Kind;
use opes_proto::smtp::PROFILE_URI;

use crate::fault::{Fault, require};
use crate::messages::{
    UNKNOWN_URI, fits_a_phase, no, pq, profile_feature, shown, unknown_feature, xid,
};
use crate::peer::{GROUP, Peer, offer};
use crate::transaction::Plan;

pub(super) async fn profile(peer: &mut Peer) -> Result<(), Fault> {
    peer.negotiate(&offer()).await?;
    let known = !peer.terms.product.is_empty();
    let credit = peer.terms.initial_credit;
    if !known {
        peer.wire.note(
            "     ",
            "its product has no name; logs will not tell who it is",
        );
    }
    require(credit > 0, "A5", || {
        "its initial_credit is 0: not even a command line can be sent".to_owned()
    })
}

/// NR is immediate: it comes before the answer to what was sent after the offer.
async fn answered_first(peer: &mut Peer, features: bool) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let features = if features {
        vec![unknown_feature()]
    } else {
        Vec::new()
    };
    let asked = features.len();
    peer.send(vec![Kind::NegotiationOffer(no(features)), pq(None)])
        .await;
    let response = peer
        .until("C-06", "NR before the answer to PQ", |kind| match kind {
            Kind::NegotiationResponse(m) => Some(Some(m.clone())),
            Kind::ProgressAnswer(_) => Some(None),
            _ => None,
        })
        .await?;
    let response =
        response.ok_or_else(|| Fault::broken("C-06", "it answers PQ before an earlier NO"))?;
    require(response.feature.is_none(), "C-10", || {
        format!("it selects something: {response:?}")
    })?;
    let named = response
        .unknowns
        .iter()
        .filter(|f| f.uri == UNKNOWN_URI)
        .count();
    require(named == asked, "C-06", || {
        format!("{UNKNOWN_URI} belongs into unknowns: {response:?}")
    })
}

pub(super) async fn unknown_offer(peer: &mut Peer) -> Result<(), Fault> {
    answered_first(peer, true).await
}

pub(super) async fn empty_offer(peer: &mut Peer) -> Result<(), Fault> {
    answered_first(peer, false).await
}

/// The observer compares SG of NO and NR.
pub(super) async fn group_offer(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let for_group = NegotiationOffer {
        sg_id: Some(GROUP),
        ..no(vec![unknown_feature()])
    };
    peer.offer_feature(for_group, "C-09").await?;
    peer.offer_feature(no(vec![unknown_feature()]), "C-09")
        .await?;
    peer.alive("C-09", "two offers").await.map(|_| ())
}

/// The answer may come before NR and after the phase; in the phase the observer finds it.
pub(super) async fn phase(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let plan = Plan::command(0);
    let mut frame = plan.start(peer);
    frame.push(crate::messages::dum(
        0,
        0,
        crate::transaction::COMMAND,
        plan.octets,
    ));
    frame.push(crate::messages::ame(0, None));
    let pending = NegotiationOffer {
        offer_pending: true,
        ..no(Vec::new())
    };
    frame.push(Kind::NegotiationOffer(pending));
    peer.send(frame).await;
    let mut answered = false;
    loop {
        let kind = peer.next("C-06", "NR").await?;
        match &kind {
            Kind::NegotiationResponse(_) => break,
            Kind::TransactionEnd(_) => answered = true,
            _ => {}
        }
    }
    let in_phase = peer.quiet().await?;
    let stray = in_phase.iter().find(|kind| !fits_a_phase(kind));
    require(stray.is_none(), "C-11", || {
        format!(
            "in a phase it sends {}",
            stray.map(shown).unwrap_or_default()
        )
    })?;
    peer.offer_feature(no(Vec::new()), "C-12").await?;
    if !answered {
        peer.until("C-12", "the answer after the phase", |kind| match kind {
            Kind::TransactionEnd(_) => xid(kind),
            _ => None,
        })
        .await?;
    }
    peer.complete(Plan::command(1), "C-12").await.map(|_| ())
}

pub(super) async fn again(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let plan = Plan::command(0);
    let start = plan.start(peer);
    peer.send(start).await;
    let response = peer
        .offer_feature(no(vec![profile_feature(&offer())]), "C-13")
        .await?;
    let rejected = response.rejects.iter().any(|f| f.uri == PROFILE_URI);
    require(response.feature.is_none() && rejected, "C-13", || {
        format!("what is in force belongs into rejects: {response:?}")
    })?;
    peer.send(vec![
        crate::messages::dum(0, 0, crate::transaction::COMMAND, plan.octets),
        crate::messages::ame(0, None),
    ])
    .await;
    let code = peer
        .end_of(0, "C-14", "TE of a transaction that ran during the offer")
        .await?;
    require(code == 200, "C-14", || format!("it ends with {code}"))
}
