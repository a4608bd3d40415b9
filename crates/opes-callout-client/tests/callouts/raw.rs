//! The smallest server of docs/ocp-smtp.md C10, without the SDK: selects and answers whatever it is told, right or wrong.

use opes_proto::ocp::callout_server::{Callout, CalloutServer};
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{
    ApplicationMessageEnd, ApplicationMessageStart, ConnectionStart, Feature, Frame, Message,
    NegotiationResponse, Result as OcpResult, TransactionEnd,
};
use opes_proto::smtp::{Outcome, PROFILE_URI, ProfileSelection};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, async_trait};

struct Raw {
    selection: ProfileSelection,
    outcome: Outcome,
}

/// Serves as long as the test's runtime lives; gives back the target.
pub(crate) async fn serve(selection: ProfileSelection, outcome: Outcome) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let raw = CalloutServer::new(Raw { selection, outcome });
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
        let (selection, outcome) = (self.selection.encode_to_vec(), self.outcome.encode_to_vec());
        let mut inbound = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = inbound.message().await {
                let kinds = frame
                    .messages
                    .into_iter()
                    .filter_map(|message| message.kind);
                let replies = kinds.flat_map(|kind| reply(&kind, &selection, &outcome));
                let messages = replies.map(|kind| Message { kind: Some(kind) }).collect();
                if frames.send(Ok(Frame { messages })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

fn reply(kind: &Kind, selection: &[u8], outcome: &[u8]) -> Vec<Kind> {
    match kind {
        Kind::ConnectionStart(_) => vec![Kind::ConnectionStart(ConnectionStart {})],
        Kind::NegotiationOffer(_) => vec![Kind::NegotiationResponse(NegotiationResponse {
            feature: Some(Feature {
                uri: PROFILE_URI.to_owned(),
                parameters: selection.to_vec().into(),
            }),
            ..NegotiationResponse::default()
        })],
        Kind::ApplicationMessageEnd(end) => vec![
            Kind::ApplicationMessageStart(ApplicationMessageStart {
                xid: end.xid,
                ..ApplicationMessageStart::default()
            }),
            Kind::ApplicationMessageEnd(ApplicationMessageEnd {
                xid: end.xid,
                result: Some(OcpResult {
                    code: 206,
                    reason: String::new(),
                }),
                original_offset: Some(0),
                profile: outcome.to_vec().into(),
            }),
            Kind::TransactionEnd(TransactionEnd {
                xid: end.xid,
                result: None,
            }),
        ],
        _ => Vec::new(),
    }
}
