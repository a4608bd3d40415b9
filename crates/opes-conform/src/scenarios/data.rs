//! Data of the original that breaks the rules, pauses and grants.

use bytes::Bytes;
use opes_proto::ocp::message::Kind;

use crate::fault::{Fault, require};
use crate::messages::{ame, code, dum, dwm, dwp, result, te, ts};
use crate::peer::{GROUP, Peer, offer};
use crate::transaction::{BODY, COMMAND, HEADER, Plan};

/// AMS and `data` in one frame; TE 400 has to come.
async fn refuses(
    peer: &mut Peer,
    am_el: Option<u64>,
    data: Vec<Kind>,
    id: &'static str,
    what: &str,
) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let plan = Plan {
        am_el: false,
        ..Plan::command(0)
    };
    let mut frame = plan.start(peer);
    if let Some(Kind::ApplicationMessageStart(start)) = frame.last_mut() {
        start.am_el = am_el;
    }
    frame.extend(data);
    peer.send(frame).await;
    peer.refused(0, id, what).await?;
    peer.complete(Plan::command(1), id).await.map(|_| ())
}

pub(super) async fn late_beginning(peer: &mut Peer) -> Result<(), Fault> {
    let data = vec![dum(0, 5, COMMAND, "RCPT TO:<bob@example.org>")];
    refuses(peer, None, data, "C-30", "data that begins at 5").await
}

pub(super) async fn gap(peer: &mut Peer) -> Result<(), Fault> {
    let data = vec![
        dum(0, 0, COMMAND, "RCPT"),
        dum(0, 6, COMMAND, "TO:<bob@example.org>"),
    ];
    refuses(peer, None, data, "C-30", "a gap of two octets").await
}

pub(super) async fn overlap(peer: &mut Peer) -> Result<(), Fault> {
    let data = vec![
        dum(0, 0, COMMAND, "RCPT "),
        dum(0, 4, COMMAND, " TO:<bob@example.org>"),
    ];
    refuses(peer, None, data, "C-30", "an overlap of one octet").await
}

pub(super) async fn wrong_size(peer: &mut Peer) -> Result<(), Fault> {
    let data = vec![
        dum(0, 0, COMMAND, "RCPT TO:<bob@example.org>"),
        ame(0, None),
    ];
    refuses(peer, Some(99), data, "C-55", "AME 200 at 25 of 99 octets").await
}

pub(super) async fn part_order(peer: &mut Peer) -> Result<(), Fault> {
    let data = vec![
        dum(0, 0, BODY, "RCPT"),
        dum(0, 4, HEADER, " TO:<bob@example.org>"),
    ];
    refuses(peer, None, data, "C-53", "part 2 after part 3").await
}

pub(super) async fn before_start(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    peer.send(vec![ts(0, GROUP), dum(0, 0, COMMAND, "RCPT")])
        .await;
    peer.refused(0, "C-31", "data before AMS").await
}

pub(super) async fn empty(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let plan = Plan::command(0);
    let mut frame = plan.start(peer);
    frame.push(dum(0, 0, COMMAND, plan.octets.clone()));
    frame.push(dum(0, plan.octets.len() as u64, COMMAND, Bytes::new()));
    frame.push(ame(0, None));
    peer.send(frame).await;
    let code = peer.end_of(0, "C-31", "TE after an empty DUM").await?;
    require(code == 200, "C-31", || {
        format!("an empty DUM leads to TE {code}")
    })
}

/// The command is not complete, so the server has nothing to answer and DPM is all that can come.
pub(super) async fn pause(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let plan = Plan::command(0);
    let mut frame = plan.start(peer);
    frame.push(dwp(0, 0));
    peer.send(frame).await;
    let paused = peer
        .until("C-47", "DPM after DWP at octet 0", |kind| match kind {
            Kind::PausedMyData(_) => Some(true),
            Kind::TransactionEnd(_) => Some(false),
            _ => None,
        })
        .await?;
    if !paused {
        return Err(Fault::NotTestable(
            "it answers commands before they are complete",
        ));
    }
    peer.send(vec![dum(0, 0, COMMAND, plan.octets), ame(0, None)])
        .await;
    // Data in the pause is found by the observer; AMS, AME and DUY of nothing may come.
    let came = peer.quiet().await?;
    let ended = came
        .iter()
        .any(|kind| matches!(kind, Kind::TransactionEnd(_)));
    peer.send(vec![dwm(0, None)]).await;
    if !ended {
        let code = peer.end_of(0, "C-47", "the answer after DWM").await?;
        require(code == 200, "C-47", || {
            format!("after a pause it ends with {code}")
        })?;
    }
    peer.alive("C-47", "a pause").await.map(|_| ())
}

pub(super) async fn more(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let plan = Plan::command(0);
    let mut frame = plan.start(peer);
    frame.push(dwm(0, None));
    frame.push(dwm(0, Some(1 << 40)));
    frame.push(dum(0, 0, COMMAND, plan.octets));
    frame.push(ame(0, None));
    peer.send(frame).await;
    let ended = peer
        .until("C-49", "the answer after DWM", |kind| match kind {
            Kind::TransactionEnd(m) => Some(code(m.result.as_ref())),
            _ => None,
        })
        .await?;
    require(ended == 200, "C-49", || {
        format!("DWM without a pause leads to TE {ended}")
    })?;
    peer.send(vec![te(0, Some(result(400)))]).await;
    peer.alive("C-49", "DWM").await.map(|_| ())
}
