//! Makes connections and listeners.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};

use crate::{Accept, Duplex, Listener, Stream};

/// What a network that is not the system's must be able to do.
pub trait Connect: Send + Sync {
    /// A connection to `host`, a name or an address.
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Box<dyn Duplex>>>;
    /// A listener on `address`.
    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Accept>>>;
    /// All addresses of `host`, each with `port`. Where nothing else is said, addresses stand for themselves and there are no names.
    fn look_up<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let unknown = |_| io::Error::new(io::ErrorKind::NotFound, "there are no names here");
        let address = host.parse::<IpAddr>().map_err(unknown);
        let found = address.map(|address| vec![SocketAddr::new(address, port)]);
        Box::pin(std::future::ready(found))
    }
}

/// The network of a host.
#[derive(Clone, Default)]
pub enum Network {
    /// The system's.
    #[default]
    System,
    /// Another.
    Other(Arc<dyn Connect>),
}

impl Network {
    /// Connects to `host`, a name or an address. The caller sets the time limit.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
        match self {
            Self::System => TcpStream::connect((host, port)).await.map(Stream::Tcp),
            Self::Other(network) => network.connect(host, port).await.map(Stream::Other),
        }
    }

    /// Listens on `address`.
    pub async fn bind(&self, address: SocketAddr) -> io::Result<Listener> {
        match self {
            Self::System => TcpListener::bind(address).await.map(Listener::Tcp),
            Self::Other(network) => network.bind(address).await.map(Listener::Other),
        }
    }

    /// All addresses of `host`, a name or an address, each with `port`; in no order, and one may come twice. The caller sets the time
    /// limit.
    pub async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => Ok(tokio::net::lookup_host((host, port)).await?.collect()),
            Self::Other(network) => network.look_up(host, port).await,
        }
    }

    /// Who has better means for the system's sockets uses these.
    pub fn is_system(&self) -> bool {
        matches!(self, Self::System)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Other(_) => "Other",
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::sync::Mutex;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;

    /// Everything that connects reaches the one listener.
    struct Pipes {
        knocks: UnboundedSender<DuplexStream>,
        arrivals: std::sync::Mutex<Option<UnboundedReceiver<DuplexStream>>>,
    }

    struct Door(Mutex<UnboundedReceiver<DuplexStream>>, SocketAddr);

    impl Connect for Pipes {
        fn connect<'a>(
            &'a self,
            _host: &'a str,
            _port: u16,
        ) -> BoxFuture<'a, io::Result<Box<dyn Duplex>>> {
            let (ours, theirs) = tokio::io::duplex(64);
            let knocked = self.knocks.send(theirs);
            Box::pin(async move {
                knocked.map_err(|_| io::ErrorKind::ConnectionRefused)?;
                Ok(Box::new(ours) as Box<dyn Duplex>)
            })
        }

        fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Accept>>> {
            let arrivals = self.arrivals.lock().unwrap().take();
            Box::pin(async move {
                let arrivals = arrivals.ok_or(io::ErrorKind::AddrInUse)?;
                Ok(Box::new(Door(Mutex::new(arrivals), address)) as Box<dyn Accept>)
            })
        }
    }

    impl Accept for Door {
        fn accept(&self) -> BoxFuture<'_, io::Result<crate::Accepted>> {
            Box::pin(async move {
                let stream = self.0.lock().await.recv().await;
                let stream = stream.ok_or(io::ErrorKind::BrokenPipe)?;
                Ok((Box::new(stream) as Box<dyn Duplex>, self.1))
            })
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(self.1)
        }
    }

    fn pipes() -> Network {
        let (knocks, arrivals) = unbounded_channel();
        Network::Other(Arc::new(Pipes {
            knocks,
            arrivals: std::sync::Mutex::new(Some(arrivals)),
        }))
    }

    #[tokio::test]
    async fn an_address_stands_for_itself_on_either_network() {
        for network in [Network::System, pipes()] {
            let found = network.look_up("192.0.2.1", 9000).await.unwrap();
            assert_eq!(found, ["192.0.2.1:9000".parse().unwrap()]);
        }
        pipes().look_up("nobody.invalid", 9000).await.unwrap_err();
    }

    #[tokio::test]
    async fn octets_pass_over_either_network() {
        for network in [Network::System, pipes()] {
            let listener = network.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let talk = async {
                let mut client = network.connect("127.0.0.1", port).await.unwrap();
                client.set_nodelay().unwrap();
                client.write_all(b"ping").await.unwrap();
                client.shutdown().await.unwrap();
            };
            let hear = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await.unwrap();
                heard
            };
            let ((), heard) = tokio::join!(talk, hear);
            assert_eq!(heard, b"ping");
        }
    }
}
