//! PQ and AQ.

use opes_proto::ocp::message::Kind;

use crate::fault::{Fault, require};
use crate::messages::{aq, dum, profile_feature, unknown_feature};
use crate::peer::{Peer, offer};
use crate::transaction::{COMMAND, Plan};

/// A transaction that runs, one that does not exist, none at all.
pub(super) async fn progress(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let mut frame = Plan::command(0).start(peer);
    frame.push(dum(0, 0, COMMAND, "RCPT TO:"));
    peer.send(frame).await;
    let open = peer.progress(Some(0), "C-50").await?;
    require(
        open.xid == Some(0) && open.org_data == Some(8),
        "C-50",
        || format!("8 octets of transaction 0 were sent, its PA says {open:?}"),
    )?;
    for asked in [Some(7), None] {
        let answer = peer.progress(asked, "C-50").await?;
        require(
            answer.xid.is_none() && answer.org_data.is_none(),
            "C-50",
            || format!("asked about {asked:?}, its PA says {answer:?}"),
        )?;
    }
    Ok(())
}

pub(super) async fn ability(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    peer.send(vec![aq(unknown_feature()), aq(profile_feature(&offer()))])
        .await;
    for expected in [false, true] {
        let supported = peer
            .until("C-51", "AA", |kind| match kind {
                Kind::AbilityAnswer(m) => Some(m.supported),
                _ => None,
            })
            .await?;
        require(supported == expected, "C-51", || {
            format!(
                "asked for an unknown feature, then for the profile: AA {supported} where {expected} is due"
            )
        })?;
    }
    peer.complete(Plan::command(0), "C-51").await.map(|_| ())
}
