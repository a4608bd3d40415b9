//! Where a server listens: `host:port` or `unix:/path`, in the clear or under mutual TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use opes_tls::ServerTls;
use tokio::net::{TcpListener, UnixListener, UnixSocket, UnixStream};

/// Connections that wait to be accepted on a Unix socket.
const BACKLOG: u32 = 1024;
/// Mode of a socket file: its owner only.
const SOCKET_MODE: u32 = 0o600;

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP in the clear, on whatever address it was bound to.
    Tcp(TcpListener),
    /// TCP; callers prove by a certificate who they are.
    Tls(TcpListener, ServerTls),
    /// A Unix socket.
    Unix(UnixListener),
    /// One of another network than the system's.
    Host(opes_host::Listener),
}

impl Listener {
    /// Binds `host:port` on loopback or `unix:/path` (mode 0600), in the clear. Other addresses are refused. A socket file
    /// that nobody listens on any more is replaced.
    pub async fn bind(address: &str) -> anyhow::Result<Self> {
        if let Some(path) = address.strip_prefix("unix:") {
            return Self::bind_unix(Path::new(path), SOCKET_MODE).await;
        }
        let listener = bind_tcp(address).await?;
        ensure!(
            listener.local_addr()?.ip().is_loopback(),
            "mail would go over the network in the clear on {address}\n  help: give --tls-certificate, --tls-key and --tls-client-ca, or listen on 127.0.0.1 or unix:PATH; --insecure-plaintext if the network is trusted"
        );
        Ok(Self::Tcp(listener))
    }

    /// Binds a Unix socket with this file mode.
    pub async fn bind_unix(path: &Path, mode: u32) -> anyhow::Result<Self> {
        remove_stale(path).await.with_context(|| in_the_way(path))?;
        bind_socket(path, mode)
            .map(Self::Unix)
            .with_context(|| in_the_way(path))
    }

    /// Binds `host:port`; only callers with a certificate of the right authority get in.
    pub async fn bind_tls(address: &str, tls: ServerTls) -> anyhow::Result<Self> {
        Ok(Self::Tls(bind_tcp(address).await?, tls))
    }

    /// Binds `host:port` in the clear on any address: for networks that are trusted or encrypt by themselves.
    pub async fn bind_insecure(address: &str) -> anyhow::Result<Self> {
        bind_tcp(address).await.map(Self::Tcp)
    }

    /// As [`bind`](Self::bind) takes it, with the real port; processors reach it as `http://host:port`, under TLS as
    /// `https://host:port`, or as `unix:/path`.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => text(listener.local_addr()),
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

fn bind_socket(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    // Before the file is there: on Linux it is then never open to more than this. Others do not support it.
    let _unsupported = rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(mode));
    socket.bind(path)?;
    // What the umask took away.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)
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
