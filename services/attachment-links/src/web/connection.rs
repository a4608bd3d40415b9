//! Connections of the web server: bounded in number, in what they send before they are understood, and in how long they may stand still.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::Web;

/// For a request to arrive, and between two of them.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Most octets of a request, and most fields.
const HEADER_OCTETS_MAX: usize = 16 * 1024;
const HEADER_FIELDS_MAX: usize = 64;
/// A reader that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);
/// No download takes longer; who needs more can ask for the rest.
const CONNECTION_TIMEOUT: Duration = Duration::from_hours(6);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

// === impl Web ===

impl Web {
    /// Serves until `stop`, then finishes the downloads that are under way; dropping ends its connections.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        connections_max: usize,
        stop: CancellationToken,
    ) {
        let slots = Arc::new(Semaphore::new(connections_max));
        let mut connections = JoinSet::new();
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    connections.spawn(self.clone().admit(stream, slot, stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "web connection not accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    async fn admit(self, stream: TcpStream, slot: OwnedSemaphorePermit, stop: CancellationToken) {
        let count = self.0.metrics.connections.clone();
        count.inc();
        let _over = tokio::time::timeout(CONNECTION_TIMEOUT, self.connection(stream, stop)).await;
        count.dec();
        drop(slot);
    }

    async fn connection(self, stream: TcpStream, stop: CancellationToken) {
        let service = service_fn(move |request: Request<Incoming>| {
            let web = self.clone();
            async move {
                let (method, path) = (request.method(), request.uri().path());
                Ok::<_, Infallible>(web.respond(method, path, request.headers()).await)
            }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(HEADER_OCTETS_MAX)
            .max_headers(HEADER_FIELDS_MAX)
            .serve_connection(TokioIo::new(Impatient::new(stream)), service);
        tokio::pin!(served);
        let ended = tokio::select! {
            ended = &mut served => ended,
            () = stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "web connection ended");
        }
    }
}

/// A stream whose writes fail when nothing was taken for [`WRITE_TIMEOUT`].
struct Impatient<S> {
    stream: S,
    /// Set while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> Impatient<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            deadline: None,
        }
    }

    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.deadline = None;
            return write;
        }
        let deadline = self.deadline.get_or_insert_with(|| {
            Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_TIMEOUT))
        });
        deadline
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::Error::from(io::ErrorKind::TimedOut)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(cx, octets);
        self.watched(cx, write)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.stream).poll_flush(cx);
        self.watched(cx, flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shutdown = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watched(cx, shutdown)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, octets);
        self.watched(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_is_given_up_and_a_slow_one_is_not() {
        let (here, mut there) = tokio::io::duplex(8);
        let mut slow = Impatient::new(here);
        let writing = tokio::spawn(async move { slow.write_all(&[0; 32]).await });
        for _ in 0..4 {
            tokio::time::sleep(WRITE_TIMEOUT / 2).await;
            there.read_exact(&mut [0; 8]).await.unwrap();
        }
        writing.await.unwrap().unwrap();
        let (here, _there) = tokio::io::duplex(8);
        let started = Instant::now();
        let error = Impatient::new(here).write_all(&[0; 32]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), WRITE_TIMEOUT);
    }
}
