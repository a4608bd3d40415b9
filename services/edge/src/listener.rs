//! Accepts connections: the limit, the PROXY header, one task per session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use opes_host::Stream;
use opes_smtp::proxy;
use opes_smtp::reply::Reply;
use opes_smtp::server::TlsInfo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::edge::{Edge, Listener};
use crate::session::{Connection, SessionEnd};
use crate::stream::{ClientStream, Prefixed};
use crate::tls;

/// How long a peer may take for its PROXY header.
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client of an implicit TLS listener may take until the greeting can be sent.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the edge drains.
pub(crate) async fn accept(edge: Arc<Edge>, listener: Arc<Listener>, socket: opes_host::Listener) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = edge.draining.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&edge, &listener, stream, peer),
            Err(error) => {
                tracing::warn!(%error, listener = %listener.name, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(edge: &Arc<Edge>, listener: &Arc<Listener>, stream: Stream, peer: SocketAddr) {
    let (edge, listener) = (Arc::clone(edge), Arc::clone(listener));
    let Ok(permit) = Arc::clone(&edge.session_permits).try_acquire_owned() else {
        edge.metrics.sessions_refused.inc();
        edge.sessions.spawn(refuse(stream));
        return;
    };
    edge.sessions.clone().spawn(async move {
        edge.metrics.sessions.inc();
        let metrics = Arc::clone(&edge.metrics);
        match serve(edge, listener, stream, peer).await {
            Ok(()) | Err(SessionEnd::Closed) => {}
            Err(error) => tracing::debug!(%error, "session ended"),
        }
        metrics.sessions.dec();
        drop(permit);
    });
}

async fn refuse(mut stream: Stream) {
    let mut reply = BytesMut::new();
    Reply::TOO_MANY_CONNECTIONS.write_to(&mut reply);
    // The client may be gone already; either way the connection ends here.
    let _ = tokio::time::timeout(PROXY_TIMEOUT, stream.write_all(&reply)).await;
}

async fn serve(
    edge: Arc<Edge>,
    listener: Arc<Listener>,
    mut stream: Stream,
    peer: SocketAddr,
) -> Result<(), SessionEnd> {
    stream.set_nodelay()?;
    let peer = canonical(peer);
    let mut input = BytesMut::new();
    let client = if listener.config.proxy_from.is_empty() {
        peer
    } else {
        match tokio::time::timeout(
            PROXY_TIMEOUT,
            proxied(&listener, &mut stream, peer, &mut input),
        )
        .await
        {
            Ok(client) => client?,
            Err(_elapsed) => return Err(SessionEnd::Closed),
        }
    };
    let (stream, input) = begin(&listener, stream, input).await?;
    Box::pin(Connection::new(edge, listener, stream, client, input).run()).await
}

/// What the dialog runs on, with the octets of it that have come already.
async fn begin(
    listener: &Listener,
    stream: Stream,
    input: BytesMut,
) -> Result<((ClientStream, Option<TlsInfo>), BytesMut), SessionEnd> {
    let implicit = listener.config.tls.as_ref().is_some_and(|tls| tls.implicit);
    let Some(acceptor) = listener.tls.as_ref().filter(|_| implicit) else {
        return Ok(((ClientStream::Plain(stream), None), input));
    };
    let stream = Prefixed::new(input, stream);
    let handshake = tls::handshake(acceptor, stream, HANDSHAKE_TIMEOUT);
    let (stream, info) = handshake.await.map_err(SessionEnd::Tls)?;
    Ok(((stream, Some(info)), BytesMut::new()))
}

/// An IPv4 client of a listener on `[::]` is that IPv4 client, for networks in the configuration as for rules and services.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The client's address from the PROXY header. No header, a bad one, or a peer that is not trusted: the connection is closed.
async fn proxied(
    listener: &Listener,
    stream: &mut Stream,
    peer: SocketAddr,
    input: &mut BytesMut,
) -> Result<SocketAddr, SessionEnd> {
    if !listener
        .config
        .proxy_from
        .iter()
        .any(|network| network.contains(&peer.ip()))
    {
        tracing::warn!(%peer, listener = %listener.name, "peer is not in proxyFrom; connection closed");
        return Err(SessionEnd::Closed);
    }
    loop {
        match proxy::parse(input) {
            Ok(proxy::Parsed::Done { consumed, header }) => {
                let _header = input.split_to(consumed);
                return Ok(match header {
                    proxy::Header::Local => peer,
                    proxy::Header::Proxied { source, .. } => canonical(source),
                });
            }
            Ok(proxy::Parsed::NeedMore) => {
                if stream.read_buf(input).await? == 0 {
                    return Err(SessionEnd::Closed);
                }
            }
            Err(error) => {
                tracing::warn!(%peer, %error, listener = %listener.name, "PROXY header refused; connection closed");
                return Err(SessionEnd::Closed);
            }
        }
    }
}
