//! Turmoil's network in the form in which our programs take one.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::ledger::Ledger;
use futures_util::future::{BoxFuture, FutureExt as _};
use opes_host::{Accept, Accepted, Connect, Duplex};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use turmoil::net::{TcpListener, TcpStream};

/// How a host reads: at most so many octets, and then a pause. `None`: as fast as they come.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Option<(usize, Duration)>>);

/// The network card of one process.
#[derive(Debug, Clone)]
pub(crate) struct Card {
    ledger: Ledger,
    pace: Arc<Pace>,
    /// The process was killed: what it still says is heard by nobody.
    pub(crate) dead: Arc<AtomicBool>,
    /// Its machine has no power: nobody closes its connections.
    pub(crate) silent: Arc<AtomicBool>,
}

struct Door {
    listener: TcpListener,
    card: Card,
}

/// One connection.
pub(crate) struct Wire {
    /// There until the end.
    stream: Option<TcpStream>,
    card: Card,
    pause: Option<Pin<Box<Sleep>>>,
}

// === impl Pace ===

impl Pace {
    pub(crate) fn set(&self, pace: Option<(usize, Duration)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    fn get(&self) -> Option<(usize, Duration)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Card ===

impl Card {
    pub(crate) fn new(ledger: &Ledger, pace: &Arc<Pace>) -> Self {
        Self {
            ledger: ledger.clone(),
            pace: Arc::clone(pace),
            dead: Arc::default(),
            silent: Arc::default(),
        }
    }

    /// A connection of this process.
    pub(crate) fn wire(&self, stream: TcpStream) -> Wire {
        Wire {
            stream: Some(stream),
            card: self.clone(),
            pause: None,
        }
    }
}

impl Connect for Card {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Box<dyn Duplex>>> {
        async move {
            let stream = TcpStream::connect((host, port)).await?;
            Ok(Box::new(self.wire(stream)) as Box<dyn Duplex>)
        }
        .boxed()
    }

    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Accept>>> {
        async move {
            let listener = TcpListener::bind(address).await?;
            let card = self.clone();
            Ok(Box::new(Door { listener, card }) as Box<dyn Accept>)
        }
        .boxed()
    }
}

// === impl Door ===

impl Accept for Door {
    fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>> {
        async move {
            let (stream, peer) = self.listener.accept().await?;
            Ok((Box::new(self.card.wire(stream)) as Box<dyn Duplex>, peer))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

// === impl Wire ===

impl Wire {
    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("until the end"))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.card.silent.load(Ordering::Relaxed) {
            // Dropping it would say goodbye.
            std::mem::forget(self.stream.take());
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if let Some(pause) = &mut wire.pause {
            ready!(pause.as_mut().poll(cx));
            wire.pause = None;
        }
        let Some((octets, pause)) = wire.card.pace.get() else {
            return wire.stream().poll_read(cx, buf);
        };
        let mut few = vec![0; octets.min(buf.remaining())];
        let mut few = ReadBuf::new(&mut few);
        ready!(wire.stream().poll_read(cx, &mut few))?;
        buf.put_slice(few.filled());
        wire.pause = Some(Box::pin(tokio::time::sleep(pause)));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.card.dead.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let wire = self.get_mut();
        let written = ready!(wire.stream().poll_write(cx, buf))?;
        let peer = wire.stream().peer_addr()?;
        wire.card.ledger.sent(peer, &buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.card.dead.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        self.get_mut().stream().poll_shutdown(cx)
    }
}
