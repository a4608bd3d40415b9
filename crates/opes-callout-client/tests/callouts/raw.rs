//! The smallest server of docs/ocp-smtp.md C10, without the SDK: selects and answers whatever it is told, right or wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use opes_proto::ocp::callout_server::{Callout, CalloutServer};
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{
    ApplicationMessageEnd, ApplicationMessageStart, ConnectionEnd, ConnectionStart, DataUseMine,
    DataUseYours, Feature, Frame, Message, NegotiationResponse, Result as OcpResult,
    TransactionEnd, WantStopReceivingData, WantStopSendingData,
};
use opes_proto::smtp::{Outcome, PROFILE_URI, ProfileSelection};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, async_trait};

/// What is said in every transaction, and when. The transaction's number is put in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) selection: ProfileSelection,
    /// So many connections are closed in good order instead of negotiated.
    pub(crate) turned_away: usize,
    /// At the AMS of the processor, before an octet is read.
    pub(crate) at_start: Vec<Kind>,
    /// At its DSS.
    pub(crate) at_stop: Vec<Kind>,
    /// At its AME.
    pub(crate) at_end: Vec<Kind>,
}

struct Raw {
    script: Arc<Script>,
    connections: AtomicUsize,
}

/// Serves as long as the test's runtime lives; gives back the target. Answers with `outcome` and "use your original".
pub(crate) async fn serve(selection: ProfileSelection, outcome: Outcome) -> String {
    let at_end = vec![start(), rest_with(Some(0), &outcome), over()];
    play(Script {
        selection,
        at_end,
        ..Script::default()
    })
    .await
}

/// The same for any script.
pub(crate) async fn play(script: Script) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let raw = CalloutServer::new(Raw {
        script: Arc::new(script),
        connections: AtomicUsize::new(0),
    });
    let router = tonic::transport::Server::builder().add_service(raw);
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    target
}

#[async_trait]
impl Callout for Raw {
    type ConnectStream = ReceiverStream<Result<Frame, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (frames, outbound) = mpsc::channel(4);
        let script = Arc::clone(&self.script);
        let turned_away = self.connections.fetch_add(1, Ordering::Relaxed) < script.turned_away;
        let mut inbound = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = inbound.message().await {
                let kinds = frame
                    .messages
                    .into_iter()
                    .filter_map(|message| message.kind);
                let replies = kinds.flat_map(|kind| match kind {
                    Kind::NegotiationOffer(_) if turned_away => {
                        vec![Kind::ConnectionEnd(ConnectionEnd::default())]
                    }
                    kind => script.reply(&kind),
                });
                let messages = replies.map(|kind| Message { kind: Some(kind) }).collect();
                if frames.send(Ok(Frame { messages })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

impl Script {
    fn reply(&self, kind: &Kind) -> Vec<Kind> {
        let (xid, said) = match kind {
            Kind::ConnectionStart(_) => return vec![Kind::ConnectionStart(ConnectionStart {})],
            Kind::NegotiationOffer(_) => return vec![self.selected()],
            Kind::ApplicationMessageStart(start) => (start.xid, &self.at_start),
            Kind::StopSendingData(stop) => (stop.xid, &self.at_stop),
            Kind::ApplicationMessageEnd(end) => (end.xid, &self.at_end),
            _ => return Vec::new(),
        };
        said.iter()
            .map(|kind| numbered(kind.clone(), xid))
            .collect()
    }

    fn selected(&self) -> Kind {
        Kind::NegotiationResponse(NegotiationResponse {
            feature: Some(Feature {
                uri: PROFILE_URI.to_owned(),
                parameters: self.selection.encode_to_vec().into(),
            }),
            ..NegotiationResponse::default()
        })
    }
}

fn numbered(mut kind: Kind, number: u32) -> Kind {
    let xid = match &mut kind {
        Kind::ApplicationMessageStart(message) => &mut message.xid,
        Kind::ApplicationMessageEnd(message) => &mut message.xid,
        Kind::TransactionEnd(message) => &mut message.xid,
        Kind::DataUseMine(message) => &mut message.xid,
        Kind::DataUseYours(message) => &mut message.xid,
        Kind::WantStopSendingData(message) => &mut message.xid,
        Kind::WantStopReceivingData(message) => &mut message.xid,
        other => panic!("{other:?} is not for scripts"),
    };
    *xid = number;
    kind
}

// === What scripts say ===

pub(crate) fn start() -> Kind {
    Kind::ApplicationMessageStart(ApplicationMessageStart::default())
}

pub(crate) fn mine(offset: u64, octets: &'static str) -> Kind {
    Kind::DataUseMine(DataUseMine {
        offset,
        payload: Some(octets.into()),
        ..DataUseMine::default()
    })
}

pub(crate) fn yours(original_offset: u64, size: u64) -> Kind {
    Kind::DataUseYours(DataUseYours {
        xid: 0,
        original_offset,
        size,
    })
}

/// AME 200.
pub(crate) fn whole() -> Kind {
    Kind::ApplicationMessageEnd(ApplicationMessageEnd::default())
}

/// The same with an outcome.
pub(crate) fn whole_with(outcome: &Outcome) -> Kind {
    Kind::ApplicationMessageEnd(ApplicationMessageEnd {
        profile: outcome.encode_to_vec().into(),
        ..ApplicationMessageEnd::default()
    })
}

/// AME 206 with J.
pub(crate) fn rest(from: u64) -> Kind {
    rest_with(Some(from), &Outcome::default())
}

/// AME 206 with the J of DSS.
pub(crate) fn rest_as_told() -> Kind {
    rest_with(None, &Outcome::default())
}

fn rest_with(from: Option<u64>, outcome: &Outcome) -> Kind {
    Kind::ApplicationMessageEnd(ApplicationMessageEnd {
        result: Some(OcpResult {
            code: 206,
            reason: String::new(),
        }),
        original_offset: from,
        profile: outcome.encode_to_vec().into(),
        ..ApplicationMessageEnd::default()
    })
}

/// TE 200.
pub(crate) fn over() -> Kind {
    Kind::TransactionEnd(TransactionEnd::default())
}

/// DWSS.
pub(crate) fn stop_sending() -> Kind {
    Kind::WantStopSendingData(WantStopSendingData::default())
}

/// DWSR.
pub(crate) fn enough() -> Kind {
    Kind::WantStopReceivingData(WantStopReceivingData::default())
}
