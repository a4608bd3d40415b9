//! Several messages from one transaction; the observer judges the outcomes.

use opes_proto::smtp::ProfileOffer;

use crate::fault::Fault;
use crate::peer::{Peer, offer};
use crate::transaction::Plan;

pub(super) async fn not_offered(peer: &mut Peer) -> Result<(), Fault> {
    let offer = ProfileOffer {
        copies: false,
        ..offer()
    };
    peer.begin(&offer).await?;
    peer.complete(Plan::message(0, 300), "C-58")
        .await
        .map(|_| ())
}

pub(super) async fn offered(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    peer.complete(Plan::message(0, 300), "B5").await.map(|_| ())
}
