//! The transport: one gRPC stream to `HOST:PORT` or `unix:PATH`, with frames as octets, so that the kit can send what no encoder
//! of ours would make.

use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper_util::rt::TokioIo;
use opes_proto::ocp::Frame;
use prost::Message as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

const METHOD: &str = "/opes.ocp.v1.Callout/Connect";

/// Largest frame that is read, in octets (docs/ocp-smtp.md A9).
const FRAME_OCTETS_MAX: usize = 4 * 1024 * 1024;

/// Frames on their way to the transport.
const FRAMES_QUEUED: usize = 64;

/// Connects the transport. The error is what the network said.
pub(crate) async fn channel(target: &str, patience: Duration) -> Result<Channel, String> {
    let result = if let Some(path) = target.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        // The authority of HTTP/2 means nothing on a Unix socket.
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(patience);
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        endpoint.connect_with_connector(connector).await
    } else {
        let host = target.strip_prefix("http://").unwrap_or(target);
        let endpoint = Channel::from_shared(format!("http://{host}"))
            .map_err(|_| "the address is neither HOST:PORT nor unix:PATH".to_owned())?;
        endpoint.connect_timeout(patience).connect().await
    };
    result.map_err(|error| innermost(&error))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Frames out, and the call that brings frames in once the server has accepted it: some accept only after the first frame.
pub(crate) struct Stream {
    pub(crate) frames: mpsc::Sender<Bytes>,
    pub(crate) inbound: Inbound,
}

type Opening = futures_util::future::BoxFuture<'static, Result<Streaming<Frame>, Status>>;

pub(crate) enum Inbound {
    Opening(Opening),
    Open(Box<Streaming<Frame>>),
}

impl Inbound {
    /// The next frame; `None`: the stream has ended. Cancel safe.
    pub(crate) async fn frame(&mut self) -> Result<Option<Frame>, Status> {
        loop {
            match self {
                Self::Opening(opening) => {
                    let open = opening.await?;
                    *self = Self::Open(Box::new(open));
                }
                Self::Open(stream) => return stream.message().await,
            }
        }
    }
}

pub(crate) fn stream(channel: Channel) -> Stream {
    let (frames, outbound) = mpsc::channel(FRAMES_QUEUED);
    let opening = async move {
        let mut grpc = tonic::client::Grpc::new(channel)
            .max_decoding_message_size(FRAME_OCTETS_MAX)
            .max_encoding_message_size(usize::MAX);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(innermost(&error)))?;
        let request = Request::new(ReceiverStream::new(outbound));
        let path = PathAndQuery::from_static(METHOD);
        Ok(grpc.streaming(request, path, Octets).await?.into_inner())
    };
    Stream {
        frames,
        inbound: Inbound::Opening(Box::pin(opening)),
    }
}

/// Frames go out as octets and come in decoded.
struct Octets;

impl Codec for Octets {
    type Encode = Bytes;
    type Decode = Frame;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Octets {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Octets {
    type Item = Frame;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Frame>, Status> {
        let octets = from.copy_to_bytes(from.remaining());
        Frame::decode(octets)
            .map(Some)
            .map_err(|error| Status::internal(format!("its frame cannot be decoded: {error}")))
    }
}
