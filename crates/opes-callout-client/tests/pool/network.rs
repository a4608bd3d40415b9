//! A network in memory, whose one name can be made to stand for other addresses: for tests in virtual time.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt as _};
use opes_host::{Accept, Accepted, Connect, Duplex};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Octets on their way in each direction.
const WIRE_OCTETS: usize = 64 * 1024;

/// See the module.
#[derive(Default)]
pub(crate) struct Wires {
    doors: Mutex<HashMap<SocketAddr, Door>>,
    /// What the name stands for; none: it cannot be looked up.
    answer: Mutex<Option<Vec<IpAddr>>>,
    look_ups: AtomicUsize,
}

/// Where connections to one address go, and how many are open.
#[derive(Clone)]
struct Door {
    knocks: UnboundedSender<DuplexStream>,
    open: Arc<AtomicUsize>,
}

struct Room(
    tokio::sync::Mutex<UnboundedReceiver<DuplexStream>>,
    SocketAddr,
);

/// The client's end of a connection.
struct Wire(DuplexStream, Arc<AtomicUsize>);

impl Wires {
    pub(crate) fn answer(&self, addresses: Option<&[IpAddr]>) {
        *self.answer.lock().unwrap() = addresses.map(<[IpAddr]>::to_vec);
    }

    pub(crate) fn look_ups(&self) -> usize {
        self.look_ups.load(Ordering::Relaxed)
    }

    /// Connections to there at this moment.
    pub(crate) fn open(&self, address: SocketAddr) -> usize {
        let doors = self.doors.lock().unwrap();
        doors[&address].open.load(Ordering::Relaxed)
    }

    fn knock(&self, host: &str, port: u16) -> io::Result<Wire> {
        let host: IpAddr = host.parse().map_err(|_| io::ErrorKind::NotFound)?;
        let doors = self.doors.lock().unwrap();
        let door = doors.get(&SocketAddr::new(host, port));
        let door = door.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, theirs) = tokio::io::duplex(WIRE_OCTETS);
        let knocked = door.knocks.send(theirs);
        knocked.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        door.open.fetch_add(1, Ordering::Relaxed);
        Ok(Wire(ours, Arc::clone(&door.open)))
    }
}

impl Connect for Wires {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Box<dyn Duplex>>> {
        let wire = self.knock(host, port);
        async { Ok(Box::new(wire?) as Box<dyn Duplex>) }.boxed()
    }

    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Accept>>> {
        let (knocks, arrivals) = unbounded_channel();
        let open = Arc::default();
        let mut doors = self.doors.lock().unwrap();
        doors.insert(address, Door { knocks, open });
        let room = Room(tokio::sync::Mutex::new(arrivals), address);
        async { Ok(Box::new(room) as Box<dyn Accept>) }.boxed()
    }

    fn look_up<'a>(
        &'a self,
        _host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.look_ups.fetch_add(1, Ordering::Relaxed);
        let answer = self.answer.lock().unwrap().clone();
        let with_port = |address| SocketAddr::new(address, port);
        let found = answer.map(|addresses| addresses.into_iter().map(with_port).collect());
        async { found.ok_or_else(|| io::Error::other("the name server is away")) }.boxed()
    }
}

impl Accept for Room {
    fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>> {
        async {
            match self.0.lock().await.recv().await {
                Some(stream) => Ok((Box::new(stream) as Box<dyn Duplex>, self.1)),
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.1)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
