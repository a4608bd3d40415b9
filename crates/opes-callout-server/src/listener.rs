//! Where a server listens: `host:port` or `unix:/path`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP, on whatever address it was bound to.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
    /// One of another network than the system's.
    Host(opes_host::Listener),
}

impl Listener {
    /// Binds `host:port` or `unix:/path`. A socket file that nobody listens on any more is replaced.
    pub async fn bind(address: &str) -> anyhow::Result<Self> {
        match address.strip_prefix("unix:") {
            Some(path) => bind_unix(Path::new(path)).await.map(Self::Unix),
            None => bind_tcp(address).await.map(Self::Tcp),
        }
    }

    /// As [`bind`](Self::bind) takes it, with the real port; processors reach it as `http://host:port` or `unix:/path`.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => text(listener.local_addr()),
            Self::Host(listener) => text(listener.local_addr()),
            Self::Unix(listener) => format!("unix:{}", unix_path(listener).display()),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

fn text(address: io::Result<SocketAddr>) -> String {
    match address {
        Ok(address) => address.to_string(),
        Err(error) => format!("(address unknown: {error})"),
    }
}

fn unix_path(listener: &UnixListener) -> PathBuf {
    let address = listener.local_addr().ok();
    address
        .and_then(|a| a.as_pathname().map(Path::to_owned))
        .unwrap_or_default()
}

async fn bind_tcp(address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: is the port taken, or the form not HOST:PORT or unix:PATH?"
        )
    })
}

async fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
    remove_stale(path).await.with_context(|| in_the_way(path))?;
    UnixListener::bind(path).with_context(|| in_the_way(path))
}

fn in_the_way(path: &Path) -> String {
    format!(
        "cannot listen on unix:{}: is another server running, the folder missing?",
        path.display()
    )
}

/// Only a socket that refuses connections is a left-over; anything else is somebody's.
async fn remove_stale(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(_) => Ok(()),
    }
}
