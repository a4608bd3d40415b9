//! Mutual TLS with a service: the handshake, whose fault it is when it fails, and when a connection is to be renewed.
//!
//! A certificate that is not accepted is a [`CalloutError::Untrusted`] that says whose, why and what to do. In TLS 1.3 a
//! service judges our certificate after the handshake is over for us; its alert then comes with the first read, and is
//! remembered for the error of the callout. Must not know HTTP or OCP.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use opes_tls::{ALPN_H2, ClientTls, complaint, refusal};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::error::CalloutError;
use crate::naming::Naming;

/// A connection is renewed after this, so that a certificate that has expired since does not serve for ever.
pub const TLS_CONNECTION_AGE_MAX: Duration = Duration::from_hours(1);

/// What a connection remembers of its handshake.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    over: CancellationToken,
    renew_at: Instant,
    refused: Arc<OnceLock<rustls::Error>>,
    tls: ClientTls,
}

/// The encrypted stream.
pub(crate) struct Stream {
    inner: TlsStream<opes_host::Stream>,
    refused: Arc<OnceLock<rustls::Error>>,
}

/// The handshake over a fresh connection to `target`; checks that the service is `name`.
pub(crate) async fn connect(
    tls: &ClientTls,
    connection: opes_host::Stream,
    target: &str,
    name: &str,
    naming: &Naming,
) -> Result<(Stream, Link), CalloutError> {
    let peer = address(&connection).unwrap_or_else(|| target.to_owned());
    let expected = ServerName::try_from(name.to_owned()).map_err(|_| {
        naming.unavailable(format!(
            "`{name}` is not a name that a certificate can be for"
        ))
    })?;
    let (config, over) = tls.current();
    let handshake = TlsConnector::from(config)
        .connect(expected, connection)
        .await;
    let inner = handshake.map_err(|error| failed(&error, &peer, tls, naming))?;
    if inner.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
        return Err(naming.protocol("it speaks TLS, but not HTTP/2 in it (ALPN h2)"));
    }
    let refused = Arc::new(OnceLock::new());
    let link = Link {
        over,
        renew_at: Instant::now() + TLS_CONNECTION_AGE_MAX,
        refused: Arc::clone(&refused),
        tls: tls.clone(),
    };
    Ok((Stream { inner, refused }, link))
}

/// With the address that a name led to; only the system's connections know theirs.
fn address(connection: &opes_host::Stream) -> Option<String> {
    match connection {
        opes_host::Stream::Tcp(tcp) => tcp.peer_addr().ok().map(|address| address.to_string()),
        opes_host::Stream::Other(_) => None,
    }
}

/// The handshake ended before it was over for us.
fn failed(error: &io::Error, peer: &str, tls: &ClientTls, naming: &Naming) -> CalloutError {
    match inside(error) {
        Some(rustls::Error::InvalidCertificate(wrong)) => {
            let complaint = complaint(wrong, &tls.files().ca);
            let problem = format!("certificate presented by {peer} {}", complaint.clause);
            naming.untrusted(problem, complaint.remedy)
        }
        Some(rustls::Error::InvalidMessage(_)) => naming.untrusted(
            format!("{peer} does not speak TLS"),
            "give the service a certificate (--tls-certificate), or write http:// with transport: { tls: none }",
        ),
        Some(alert) => refused_by_peer(alert, tls, naming)
            .unwrap_or_else(|| naming.unavailable(format!("TLS handshake: {alert}"))),
        None => naming.unavailable(format!("TLS handshake: {error}")),
    }
}

fn refused_by_peer(
    alert: &rustls::Error,
    tls: &ClientTls,
    naming: &Naming,
) -> Option<CalloutError> {
    let complaint = refusal(alert)?;
    let certificate = tls.files().certificate.display();
    let problem = format!("our certificate {certificate} {}", complaint.clause);
    Some(naming.untrusted(problem, complaint.remedy))
}

fn inside(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

// === impl Link ===

impl Link {
    /// New transactions should go to another connection: other certificates are in force, or this one is old.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled() || Instant::now() >= self.renew_at
    }

    /// The service did not accept our certificate.
    pub(crate) fn refusal(&self, naming: &Naming) -> Option<CalloutError> {
        refused_by_peer(self.refused.get()?, &self.tls, naming)
    }
}

// === impl Stream ===

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let read = Pin::new(&mut stream.inner).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && let Some(alert) = inside(error)
        {
            // The first alert is the reason; what follows is its consequence.
            let _later = stream.refused.set(alert.clone());
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, octets)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
