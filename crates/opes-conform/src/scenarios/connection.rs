//! CS, CE and what lies between connections.

use opes_proto::ocp::message::Kind;

use crate::fault::{Fault, require};
use crate::messages::{ce, cs, no, result, shown, te};
use crate::peer::{Peer, offer};
use crate::transaction::Plan;

pub(super) async fn not_started(peer: &mut Peer) -> Result<(), Fault> {
    peer.send(vec![Kind::NegotiationOffer(no(Vec::new()))])
        .await;
    peer.thrown_out("C-01", "NO as the first message").await
}

pub(super) async fn started_twice(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    peer.send(vec![cs()]).await;
    peer.alive("C-02", "a second CS").await?;
    peer.complete(Plan::command(0), "C-02").await.map(|_| ())
}

/// The transaction waits for the rest of its command: nothing can be on its way.
pub(super) async fn ended(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let mut start = Plan::command(0).start(peer);
    start.push(ce());
    peer.send(start).await;
    peer.wire.half_close();
    let stray = peer
        .quiet()
        .await?
        .into_iter()
        .find(|kind| !matches!(kind, Kind::ConnectionEnd(_)));
    require(stray.is_none(), "C-04", || {
        format!(
            "after CE it sends {}",
            stray.iter().map(shown).collect::<String>()
        )
    })?;
    peer.closed("C-04").await
}

pub(super) async fn independent(peer: &mut Peer) -> Result<(), Fault> {
    let mut other = Peer::ready(&peer.setting).await?;
    peer.begin(&offer()).await?;
    let start = Plan::command(0).start(&other);
    other.send(start).await;
    other.alive("C-20", "TS on another connection").await?;
    peer.complete(Plan::command(0), "C-20").await?;
    other.send(vec![te(0, Some(result(400))), ce()]).await;
    peer.complete(Plan::command(1), "C-20").await.map(|_| ())
}
