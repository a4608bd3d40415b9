//! DNS and Services for programs that run beside a control plane, where there are neither: a proxy for HTTP's CONNECT.
//!
//! A program that is told of it in `HTTPS_PROXY` asks it for `HOST:PORT` by name, and speaks TLS with who is there: what it verifies is
//! the name it asked for, as in a cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Most octets of a request's head.
const HEAD_MAX: usize = 8 << 10;

type Routes = Arc<Mutex<BTreeMap<String, u16>>>;

/// Running; ends when dropped, and connections with their ends.
pub(super) struct Names {
    /// Its own, on the loopback address.
    pub(super) port: u16,
    routes: Routes,
    task: JoinHandle<()>,
}

// === impl Names ===

impl Names {
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let routes = Routes::default();
        let known = Arc::clone(&routes);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let known = Arc::clone(&known);
                tokio::spawn(async move {
                    // Who asked sees that the connection is gone.
                    let _ = serve(stream, &known).await;
                });
            }
        });
        Ok(Self { port, routes, task })
    }

    pub(super) fn route(&self, address: &str, port: u16) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.insert(address.to_owned(), port);
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, routes: &Routes) -> Result<()> {
    let address = asked_for(&mut client).await?;
    let port = {
        let routes = routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.get(&address).copied()
    };
    let Some(port) = port else {
        client
            .write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            .await?;
        return Ok(());
    };
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Reads a head to its end, and no further: what follows is for the server.
async fn asked_for(client: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < HEAD_MAX, "a head without end");
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let mut words = head.split(' ');
    ensure!(words.next() == Some("CONNECT"), "not CONNECT: {head}");
    Ok(words.next().context("no address")?.to_owned())
}
