//! Callers over mutual TLS: bounded in connections, handshakes and time. Who cannot prove who it is, is refused; that is counted, and
//! told once in [`TELL_INTERVAL`], or anybody could fill the log.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use webpki::EndEntityCert;

/// Handshakes at once; callers beyond wait in the listen queue.
const HANDSHAKES_MAX: usize = 64;
/// For one handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often refused callers are told of.
const TELL_INTERVAL: Duration = Duration::from_mins(1);
/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A caller that proved who it is.
#[derive(Debug)]
pub(crate) struct Secured {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    _slot: OwnedSemaphorePermit,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// What it showed. The handshake has verified it.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    /// Cancelled when the certificates that it was let in by are no longer those in force.
    pub(crate) over: CancellationToken,
}

// === impl Caller ===

impl Caller {
    /// Is its certificate for `name`?
    pub(crate) fn is(&self, name: &str) -> bool {
        let (Some(certificate), Ok(name)) = (&self.certificate, ServerName::try_from(name)) else {
            return false;
        };
        EndEntityCert::try_from(certificate)
            .is_ok_and(|shown| shown.verify_is_valid_for_subject_name(&name).is_ok())
    }
}

/// Accepts until the receiver is dropped. `material`: what is in force; `refused`: somebody was not let in.
pub(crate) async fn accept<M, R>(
    listener: TcpListener,
    connections_max: usize,
    material: M,
    callers: mpsc::Sender<io::Result<Secured>>,
    refused: R,
) where
    M: Fn() -> (Arc<ServerConfig>, CancellationToken) + Clone + Send + 'static,
    R: Fn() + Clone + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(connections_max));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let told = Arc::new(Mutex::new(None));
    loop {
        let permits = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, Arc::clone(&handshakes).acquire_owned().await)
        };
        let (Ok(slot), Ok(handshake)) = permits.await else {
            return;
        };
        let accepted = tokio::select! {
            () = callers.closed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (callers, refused, told) =
                    (callers.clone(), refused.clone(), Arc::clone(&told));
                let (config, over) = material();
                tokio::spawn(async move {
                    match admit(stream, config, over, slot).await {
                        // A server that is going takes nobody any more.
                        Ok(secured) => drop(callers.send(Ok(secured)).await),
                        Err(error) => {
                            refused();
                            tell(&told, peer, &error);
                        }
                    }
                    drop(handshake);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn tell(told: &Mutex<Option<Instant>>, peer: SocketAddr, error: &io::Error) {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    if told.is_none_or(|last| last.elapsed() >= TELL_INTERVAL) {
        *told = Some(Instant::now());
        tracing::warn!(%error, "a caller was not let in; further ones at debug level for a minute");
    }
    tracing::debug!(%peer, %error, "caller not let in");
}

async fn admit(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    over: CancellationToken,
    slot: OwnedSemaphorePermit,
) -> io::Result<Secured> {
    stream.set_nodelay(true)?;
    let accepting = TlsAcceptor::from(config).accept(stream);
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, accepting)
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    let shown = stream.get_ref().1.peer_certificates();
    let certificate = shown.and_then(|chain| chain.first()).cloned();
    let certificate = certificate.map(CertificateDer::into_owned);
    Ok(Secured {
        stream,
        caller: Caller { certificate, over },
        _slot: slot,
    })
}

// === impl Secured ===

impl Secured {
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl Connected for Secured {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
