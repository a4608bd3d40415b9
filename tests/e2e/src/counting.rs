//! A proxy that counts what passes between edge and service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Nothing has passed for so long: nothing more comes, on a busy machine too.
const QUIET: Duration = Duration::from_secs(2);

/// Forwards connections and counts octets of both directions, HTTP/2 and all.
pub struct Counting {
    /// Where clients connect.
    pub address: SocketAddr,
    sent: Arc<AtomicU64>,
    returned: Arc<AtomicU64>,
}

impl Counting {
    /// In front of `http://HOST:PORT`.
    pub async fn start(target: &str) -> Result<Self> {
        let target: SocketAddr = target
            .strip_prefix("http://")
            .context("not http")?
            .parse()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let counting = Self {
            address: listener.local_addr()?,
            sent: Arc::default(),
            returned: Arc::default(),
        };
        let (sent, returned) = (Arc::clone(&counting.sent), Arc::clone(&counting.returned));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(target).await else {
                    return;
                };
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                tokio::spawn(pump(near_read, far_write, Arc::clone(&sent)));
                tokio::spawn(pump(far_read, near_write, Arc::clone(&returned)));
            }
        });
        Ok(counting)
    }

    /// To the service, and back, so far.
    pub fn octets(&self) -> (u64, u64) {
        (
            self.sent.load(Ordering::SeqCst),
            self.returned.load(Ordering::SeqCst),
        )
    }

    /// What passes while `work` runs and until nothing has passed for a while: late acknowledgements count too.
    pub async fn during<T>(&self, work: impl Future<Output = Result<T>>) -> Result<(u64, u64, T)> {
        let before = self.octets();
        let result = work.await?;
        let after = self.quiet().await;
        Ok((after.0 - before.0, after.1 - before.1, result))
    }

    /// Waits until nothing has passed for a while; what has passed by then.
    pub async fn quiet(&self) -> (u64, u64) {
        let (mut last, mut since) = (self.octets(), Instant::now());
        while since.elapsed() < QUIET {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.octets();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        last
    }
}

/// Ends with either side; the other direction sees the closed socket.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, count: Arc<AtomicU64>) {
    let mut octets = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut octets).await {
        count.fetch_add(read as u64, Ordering::SeqCst);
        if to.write_all(&octets[..read]).await.is_err() {
            return;
        }
    }
}
