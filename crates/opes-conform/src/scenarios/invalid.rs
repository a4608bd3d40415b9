//! What is wrong, and what has to happen (docs/ocp-smtp.md A8).

use bytes::{BufMut as _, Bytes, BytesMut};
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{DataUseMine, Message, TransactionStart};
use prost::Message as _;

use crate::fault::{Fault, require};
use crate::messages::{aa, ame, code, cs, dum, result, sgc, ts};
use crate::peer::{GROUP, Peer, offer};
use crate::transaction::{COMMAND, Plan};

/// Larger credits cannot be exceeded in one frame.
const CREDIT_MAX: u64 = 3 * 1024 * 1024;

/// Payload of one DUM that every server takes (A9).
const PAYLOAD_MAX: u64 = 1024 * 1024;

/// An id that no side may use (RFC 4037 §10.2).
const TOO_LARGE: u32 = 2_147_483_648;

pub(super) async fn reused_group(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let parameters = peer.parameters();
    peer.send(vec![sgc(GROUP, parameters)]).await;
    peer.thrown_out("C-18", "SGC with an sg_id that was used")
        .await
}

pub(super) async fn never_started(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    peer.send(vec![dum(9, 0, COMMAND, "a")]).await;
    peer.refused(9, "C-24", "data for a transaction that was never started")
        .await?;
    peer.complete(Plan::command(10), "C-24").await.map(|_| ())
}

pub(super) async fn no_payload(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let mut frame = Plan::command(0).start(peer);
    frame.push(Kind::DataUseMine(DataUseMine {
        xid: 0,
        part: COMMAND,
        ..DataUseMine::default()
    }));
    peer.send(frame).await;
    peer.refused(0, "C-24", "DUM without payload").await
}

pub(super) async fn group_without_profile(peer: &mut Peer) -> Result<(), Fault> {
    let parameters = peer.parameters();
    peer.send(vec![cs(), sgc(GROUP, parameters)]).await;
    peer.thrown_out("C-24", "SGC before the profile is agreed")
        .await
}

pub(super) async fn answer_without_question(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    peer.send(vec![aa()]).await;
    peer.thrown_out("C-24", "AA without AQ").await
}

pub(super) async fn id_too_large(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    peer.send(vec![ts(TOO_LARGE, GROUP)]).await;
    peer.thrown_out("C-24", "TS with xid 2147483648").await
}

/// All in one frame with AMS: no grant can be on its way.
pub(super) async fn beyond_credit(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let credit = peer.terms.initial_credit;
    if credit > CREDIT_MAX {
        return Err(Fault::NotTestable(
            "its first credit is larger than a frame",
        ));
    }
    let plan = Plan {
        am_el: false,
        ..Plan::command(0)
    };
    let mut frame = plan.start(peer);
    let mut offset = 0;
    while offset <= credit {
        let size = (credit + 1 - offset).min(PAYLOAD_MAX);
        let payload = vec![b'x'; usize::try_from(size).unwrap_or_default()];
        frame.push(dum(0, offset, COMMAND, payload));
        offset += size;
    }
    frame.push(ame(0, None));
    peer.send(frame).await;
    peer.refused(0, "C-25", "payload beyond the credit").await
}

pub(super) async fn unknown(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let mut known = encoded(Kind::TransactionStart(start())).to_vec();
    known.extend_from_slice(&field(98, b"of a later version"));
    let mut frame = BytesMut::new();
    // A message without kind, one of an unknown kind, a known one with an unknown field, a field of the frame.
    for message in [Vec::new(), field(99, b"\x08\x01").to_vec(), known] {
        frame.extend_from_slice(&field(1, &message));
    }
    frame.extend_from_slice(&field(77, b"of a later version"));
    let text =
        "Frame { (no kind), (kind 99), TransactionStart { xid: 0 … (field 98) }, (field 77) }";
    peer.wire.observer.sent(&Kind::TransactionStart(start()));
    peer.wire.send_octets(text, frame.freeze()).await;
    let progress = peer.progress(Some(0), "C-26").await?;
    require(progress.xid == Some(0), "C-26", || {
        "TS with an unknown field has started nothing".to_owned()
    })?;
    peer.send(vec![crate::messages::te(0, Some(result(400)))])
        .await;
    peer.complete(Plan::command(1), "C-26").await.map(|_| ())
}

fn start() -> TransactionStart {
    TransactionStart {
        xid: 0,
        sg_id: GROUP,
        ..Default::default()
    }
}

/// The encoded message without the frame around it.
fn encoded(kind: Kind) -> Bytes {
    Message { kind: Some(kind) }.encode_to_vec().into()
}

/// A length-delimited field of protocol buffers; `value` is short.
fn field(number: u32, value: &[u8]) -> Bytes {
    let mut octets = BytesMut::new();
    varint(number << 3 | 2, &mut octets);
    varint(u32::try_from(value.len()).unwrap_or_default(), &mut octets);
    octets.extend_from_slice(value);
    octets.freeze()
}

fn varint(mut value: u32, into: &mut BytesMut) {
    while value >= 0x80 {
        into.put_u8(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    into.put_u8(u8::try_from(value).unwrap_or_default());
}

/// 299 counts as 400: the original has failed, so there is nothing to answer.
pub(super) async fn unknown_code(peer: &mut Peer) -> Result<(), Fault> {
    peer.begin(&offer()).await?;
    let plan = Plan::command(0);
    let mut frame = plan.start(peer);
    frame.push(dum(0, 0, COMMAND, plan.octets));
    frame.push(ame(0, Some(result(299))));
    peer.send(frame).await;
    let ended = peer
        .until(
            "C-27",
            "TE 400 after AME with result 299",
            |kind| match kind {
                Kind::TransactionEnd(m) => Some(code(m.result.as_ref())),
                _ => None,
            },
        )
        .await?;
    require(ended != 200, "C-27", || {
        "result 299 counts as 400, but it answers as if all were well".to_owned()
    })
}
