//! A place where connections come in.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use tokio::net::TcpListener;

use crate::{Duplex, Stream};

/// A connection that came in, and who it is from.
pub type Accepted = (Box<dyn Duplex>, SocketAddr);

/// What a listener that is not the system's must be able to do.
pub trait Accept: Send + Sync {
    /// The next connection. Dropping the future loses none.
    fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>>;
    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A bound listener.
pub enum Listener {
    /// The system's.
    Tcp(TcpListener),
    /// Another.
    Other(Box<dyn Accept>),
}

impl Listener {
    /// The next connection. Dropping the future loses none.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Tcp(stream), peer))
            }
            Self::Other(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Other(stream), peer))
            }
        }
    }

    /// Where it listens; the real port when 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Other(listener) => listener.local_addr(),
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => listener.fmt(f),
            Self::Other(_) => f.write_str("Other"),
        }
    }
}
