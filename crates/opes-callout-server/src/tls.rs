//! Callers over mutual TLS: handshakes side by side, bounded in number and time; who cannot prove who it is, is refused.
//!
//! Refusals are counted, and told once in [`TELL_INTERVAL`]; addresses at debug level only. A connection knows the
//! generation of certificates that it was made with, so that it is drained when others are in force.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use opes_tls::{ServerTls, complaint, refusal};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

/// Handshakes at once; callers beyond wait in the listen queue.
pub const HANDSHAKES_MAX: usize = 64;
/// For one handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often refused callers are told of.
pub const TELL_INTERVAL: Duration = Duration::from_mins(1);

/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A caller that proved who it is.
#[derive(Debug)]
pub(crate) struct Secured {
    stream: TlsStream<TcpStream>,
    generation: Generation,
}

/// When the certificates of a connection are no longer those in force, its token is cancelled.
#[derive(Debug, Clone)]
pub(crate) struct Generation(pub(crate) CancellationToken);

/// Accepts until the receiver is dropped.
pub(crate) async fn accept(
    listener: TcpListener,
    tls: ServerTls,
    callers: mpsc::Sender<io::Result<Secured>>,
) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let refusals = Arc::new(Refusals::default());
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = callers.closed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (tls, callers) = (tls.clone(), callers.clone());
                tokio::spawn(admit(
                    stream,
                    peer,
                    tls,
                    callers,
                    Arc::clone(&refusals),
                    permit,
                ));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    tls: ServerTls,
    callers: mpsc::Sender<io::Result<Secured>>,
    refusals: Arc<Refusals>,
    permit: OwnedSemaphorePermit,
) {
    let admitted = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(stream, &tls));
    let secured = match admitted.await {
        Ok(Ok(secured)) => secured,
        Ok(Err(error)) => return refusals.note(peer, &describe(&error, &tls)),
        Err(_elapsed) => return refusals.note(peer, "took too long for the TLS handshake"),
    };
    // A server that is going takes nobody any more.
    let _gone = callers.send(Ok(secured)).await;
    drop(permit);
}

async fn handshake(stream: TcpStream, tls: &ServerTls) -> io::Result<Secured> {
    stream.set_nodelay(true)?;
    let (config, over) = tls.current();
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let generation = Generation(over);
    Ok(Secured { stream, generation })
}

/// To follow "the caller".
fn describe(error: &io::Error, tls: &ServerTls) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::NoCertificatesPresented) => {
            "showed no certificate: set callouts.certificate and callouts.key at the edge"
                .to_owned()
        }
        Some(rustls::Error::InvalidCertificate(wrong)) => {
            let complaint = complaint(wrong, &tls.files().ca);
            format!(
                "showed a certificate that {}: {}",
                complaint.clause, complaint.remedy
            )
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "does not speak TLS: write https:// in its CalloutService".to_owned()
        }
        Some(alert) => match refusal(alert) {
            Some(complaint) => format!(
                "does not accept our certificate {}: it {}; {}",
                tls.files().certificate.display(),
                complaint.clause,
                complaint.remedy
            ),
            None => format!("failed in the TLS handshake: {alert}"),
        },
        None => format!("went away in the TLS handshake: {error}"),
    }
}

/// Callers that were not let in.
#[derive(Debug, Default)]
struct Refusals {
    count: AtomicU64,
    told: Mutex<Option<Instant>>,
}

// === impl Refusals ===

impl Refusals {
    fn note(&self, peer: SocketAddr, reason: &str) {
        let refused = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::debug!(%peer, reason, "caller refused");
        if self.is_time_to_tell(Instant::now()) {
            tracing::warn!(
                refused,
                caller = reason,
                "callers refused; addresses at debug level"
            );
        }
    }

    fn is_time_to_tell(&self, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.is_none_or(|last| now.duration_since(last) >= TELL_INTERVAL);
        if due {
            *told = Some(now);
        }
        due
    }
}

// === impl Secured ===

impl Connected for Secured {
    type ConnectInfo = Generation;

    fn connect_info(&self) -> Generation {
        self.generation.clone()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, octets)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_once_in_a_while_and_all_counted() {
        let refusals = Refusals::default();
        let peer = "192.0.2.1:9".parse().unwrap();
        let start = Instant::now();
        assert!(refusals.is_time_to_tell(start));
        for _ in 0..3 {
            refusals.note(peer, "showed no certificate");
        }
        assert!(!refusals.is_time_to_tell(start + TELL_INTERVAL / 2));
        assert!(refusals.is_time_to_tell(start + TELL_INTERVAL));
        assert_eq!(refusals.count.load(Ordering::Relaxed), 3);
    }
}
