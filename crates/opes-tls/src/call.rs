//! The handshake of the end that calls, over a connection that somebody else made, and what is remembered of it.
//!
//! In TLS 1.3 the other end judges our certificate after the handshake is over for us; its alert then comes with the first read.
//! It is kept, because whatever is said later is its consequence only.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::{ALPN_H2, ClientTls};

/// Why there is no encrypted stream.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No certificate can be for that name.
    #[error("`{0}` is not a name that a certificate can be for")]
    Name(String),
    /// The handshake ended before it was over for us; see [`rustls_error`].
    #[error("TLS handshake: {0}")]
    Handshake(#[from] io::Error),
    /// It speaks TLS, but not HTTP/2 in it (ALPN h2).
    #[error("it speaks TLS, but not HTTP/2 in it (ALPN h2)")]
    NotHttp2,
}

/// What is remembered of a call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Cancelled when other certificates are in force than when it was made.
    pub over: CancellationToken,
    alert: Alert,
}

type Alert = Arc<OnceLock<rustls::Error>>;

/// The encrypted stream; keeps the first alert.
#[derive(Debug)]
pub struct CallStream<S> {
    inner: TlsStream<S>,
    alert: Alert,
}

/// The handshake with whoever is at the other end of `stream`; it is `name`, or there is no call.
pub async fn call<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &ClientTls,
    stream: S,
    name: &str,
) -> Result<(CallStream<S>, Call), CallError> {
    let expected =
        ServerName::try_from(name.to_owned()).map_err(|_| CallError::Name(name.to_owned()))?;
    let (config, over) = tls.current();
    let inner = TlsConnector::from(config).connect(expected, stream).await?;
    if inner.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
        return Err(CallError::NotHttp2);
    }
    let alert = Alert::default();
    let call = Call {
        over,
        alert: Arc::clone(&alert),
    };
    Ok((CallStream { inner, alert }, call))
}

/// What TLS says was wrong, if it was TLS.
pub fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

impl Call {
    /// The first error that reading brought, if it was one of TLS: an alert of the other end.
    pub fn alert(&self) -> Option<&rustls::Error> {
        self.alert.get()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for CallStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let read = Pin::new(&mut stream.inner).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && let Some(alert) = rustls_error(error)
        {
            let _later = stream.alert.set(alert.clone());
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for CallStream<S> {
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
