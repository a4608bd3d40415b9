//! Transactions that keep the rules, and how they begin and end.

use opes_proto::ocp::message::Kind;
use opes_proto::smtp::ProfileOffer;

use crate::fault::{Fault, require};
use crate::messages::{ame, dum, dwm, result, sgc, sgd, shown, te, ts, xid};
use crate::peer::{GROUP, Peer, offer};
use crate::transaction::{COMMAND, Plan};

/// An sg_id that is never created.
const NO_GROUP: u32 = 77;

pub(super) async fn command(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    peer.complete(Plan::command(0), "C-16").await?;
    // Gaps are fine.
    peer.complete(Plan::command(40), "C-16").await.map(|_| ())
}

pub(super) async fn small_message(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    for xid in 0..3 {
        peer.complete(Plan::message(xid, 300), "C-22").await?;
    }
    Ok(())
}

pub(super) async fn large_message(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let plan = Plan {
        am_el: false,
        ..Plan::message(0, 200_000)
    };
    peer.complete(plan, "A5").await.map(|_| ())
}

pub(super) async fn partial_message(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let plan = Plan {
        header_only: true,
        ..Plan::message(0, 5000)
    };
    peer.complete(plan, "C-41").await.map(|_| ())
}

pub(super) async fn little_credit(peer: &mut Peer) -> Result<(), Fault> {
    let offer = ProfileOffer {
        initial_credit: 16,
        ..offer()
    };
    peer.begin(&offer).await?;
    let plan = Plan {
        grant: 16,
        ..Plan::message(0, 1000)
    };
    peer.complete(plan, "A5").await.map(|_| ())
}

pub(super) async fn unknown_group(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    peer.send(vec![ts(0, NO_GROUP)]).await;
    peer.refused(0, "C-17", "TS with an unknown group").await?;
    peer.complete(Plan::command(1), "C-17").await.map(|_| ())
}

/// A transaction that began before its group was destroyed goes on.
pub(super) async fn destroyed_group(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let plan = Plan::command(0);
    let mut frame = plan.start(peer);
    frame.push(sgd(GROUP));
    frame.push(dum(0, 0, COMMAND, plan.octets));
    frame.push(ame(0, None));
    peer.send(frame).await;
    let code = peer
        .end_of(0, "C-17", "TE of a transaction that outlives its group")
        .await?;
    require(code == 200, "C-17", || {
        format!("a transaction that outlives its group ends with {code}")
    })?;
    peer.send(vec![ts(1, GROUP)]).await;
    peer.refused(1, "C-17", "TS with a destroyed group").await?;
    let parameters = peer.parameters();
    peer.send(vec![
        sgc(GROUP + 1, parameters),
        ts(2, GROUP + 1),
        te(2, Some(result(400))),
    ])
    .await;
    peer.alive("C-16", "a new group").await.map(|_| ())
}

pub(super) async fn reused_xid(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    peer.complete(Plan::command(5), "C-16").await?;
    reuse(peer, 5, "TS with an xid that was used").await
}

pub(super) async fn lower_xid(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    peer.complete(Plan::command(5), "C-16").await?;
    reuse(peer, 3, "TS with an xid below the last one").await
}

/// TE 400, and no work: the whole command is there, so a server that took it would answer.
async fn reuse(peer: &mut Peer, xid: u32, what: &str) -> Result<(), Fault> {
    let plan = Plan::command(xid);
    let mut frame = plan.start(peer);
    frame.push(dum(xid, 0, COMMAND, plan.octets));
    frame.push(ame(xid, None));
    peer.send(frame).await;
    let first = peer
        .until("C-18", &format!("TE 400 after {what}"), |kind| {
            let about = crate::messages::xid(kind) == Some(xid);
            (about || matches!(kind, Kind::ConnectionEnd(_))).then(|| kind.clone())
        })
        .await;
    match first {
        Ok(Kind::TransactionEnd(m)) if crate::messages::code(m.result.as_ref()) != 200 => {
            peer.alive("C-18", what).await.map(|_| ())
        }
        Ok(kind) => Err(Fault::broken(
            "C-18",
            format!("after {what} it sends {}", shown(&kind)),
        )),
        // The observer knows the xid as ended; whatever it calls an answer is the reuse.
        Err(Fault::Broken { what, .. }) => Err(Fault::broken("C-18", what)),
        Err(other) => Err(other),
    }
}

pub(super) async fn neighbours(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    if peer.terms.max_transactions == 1 {
        return Err(Fault::NotTestable("it takes one transaction at a time"));
    }
    let plan = Plan::command(1);
    let mut frame = Plan::command(0).start(peer);
    frame.extend(plan.start(peer));
    frame.push(te(0, Some(result(400))));
    peer.send(frame).await;
    peer.alive("C-22", "TE").await?;
    peer.send(vec![
        dum(0, 0, COMMAND, plan.octets.clone()),
        ame(0, None),
        dum(1, 0, COMMAND, plan.octets),
        ame(1, None),
    ])
    .await;
    let of_the_dead = peer
        .until("C-22", "TE of the other transaction", |kind| match kind {
            Kind::TransactionEnd(m) if m.xid == 1 => Some(false),
            kind => (xid(kind) == Some(0)).then_some(true),
        })
        .await?;
    require(!of_the_dead, "C-22", || {
        "it goes on with a transaction that TE has ended".to_owned()
    })
}

pub(super) async fn late(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    peer.complete(Plan::command(0), "C-16").await?;
    let late = vec![
        dum(0, 25, COMMAND, "late"),
        dwm(0, Some(1 << 30)),
        ame(0, None),
        te(0, None),
    ];
    peer.send(late).await;
    let answers = peer
        .alive("C-23", "messages for a transaction that has ended")
        .await?;
    require(answers.is_empty(), "C-23", || {
        format!(
            "it answers a dead transaction: {}",
            answers.iter().map(shown).collect::<String>()
        )
    })?;
    peer.complete(Plan::command(1), "C-23").await.map(|_| ())
}
