//! Network code of the test itself, run in a network namespace of the node: servers that pods reach, clients that reach pods.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

/// Connections that one relay carries at a time.
const RELAYED_MAX: usize = 1024;

/// A runtime all of whose threads are in the namespace; so are the sockets of what it runs.
pub struct Inside {
    runtime: Option<Runtime>,
}

// === impl Inside ===

impl Inside {
    /// Enters the network namespace behind `link`, a file in `/proc/PID/ns` or a mount of one.
    pub fn enter(link: &Path) -> Result<Self> {
        let file = File::open(link).with_context(|| link.display().to_string())?;
        let file = Arc::new(file);
        // Once here, where the error is seen: threads of a runtime have nobody to tell.
        let trial = Arc::clone(&file);
        let entered = std::thread::spawn(move || enter(&trial)).join();
        entered
            .ok()
            .context("a thread panicked")?
            .context("setns; the tests of a node need root")?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(move || {
                // A thread outside would answer for the machine's own network.
                if enter(&file).is_err() {
                    std::process::abort();
                }
            })
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Runs a future inside and returns what it gives.
    pub async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        Ok(self.runtime()?.spawn(future).await?)
    }

    /// Starts a future inside; it ends with the node.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        self.runtime()?.spawn(future);
        Ok(())
    }

    /// A listener inside, for a server that runs in the test's own runtime.
    pub async fn listen(&self, address: SocketAddr) -> Result<std::net::TcpListener> {
        let listener = self.run(TcpListener::bind(address)).await??;
        Ok(listener.into_std()?)
    }

    /// A connection made inside, for the test's own runtime: `TcpStream::from_std`.
    pub async fn connect(&self, address: SocketAddr) -> Result<std::net::TcpStream> {
        let stream = self.run(TcpStream::connect(address)).await??;
        Ok(stream.into_std()?)
    }

    /// Carries connections from a loopback port of the machine to `address` inside; the port's address.
    pub fn relay(&self, address: SocketAddr) -> Result<SocketAddr> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let here = listener.local_addr()?;
        self.spawn(relay(listener, address))?;
        Ok(here)
    }

    fn runtime(&self) -> Result<&Runtime> {
        self.runtime.as_ref().context("the node is gone")
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // Dropping one in another is refused; its tasks end with their sockets.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn enter(file: &File) -> std::io::Result<()> {
    Ok(move_into_link_name_space(
        file.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

async fn relay(listener: std::net::TcpListener, address: SocketAddr) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let room = Arc::new(Semaphore::new(RELAYED_MAX));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        let Ok((mut client, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(async move {
            // An end that closes early is the other end's news too.
            if let Ok(mut server) = TcpStream::connect(address).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
            drop(permit);
        });
    }
}
