//! A next hop that keeps what it gets: a small SMTP server of the test's own, so that arrivals can be counted one by one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// One message that the sink answered with 250.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Reverse-path.
    pub from: String,
    /// Forward-paths.
    pub to: Vec<String>,
    /// Without dot-stuffing.
    pub content: Vec<u8>,
    /// When the 250 had been written.
    pub answered: Instant,
}

impl From<String> for Arrival {
    /// What MAIL says; the rest follows.
    fn from(from: String) -> Self {
        Self {
            from,
            to: Vec::new(),
            content: Vec::new(),
            answered: Instant::now(),
        }
    }
}

/// See the module.
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

impl Sink {
    /// Starts it on a free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let arrivals = Arc::<Mutex<Vec<Arrival>>>::default();
        let kept = Arc::clone(&arrivals);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                // A client that goes away in the middle is a normal end.
                tokio::spawn(async move { serve(stream, &kept).await.ok() });
            }
        });
        Ok(Self { address, arrivals })
    }

    /// Everything so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many so far.
    pub fn count(&self) -> usize {
        self.arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

async fn serve(stream: TcpStream, kept: &Mutex<Vec<Arrival>>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    stream.write_all(b"220 sink.example.net ESMTP\r\n").await?;
    let mut arrival = Arrival::from(String::new());
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply: &[u8] = match verb.as_str() {
            "EHLO" => b"250-sink.example.net\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 0\r\n",
            "MAIL" => {
                arrival = Arrival::from(path(&line));
                b"250 2.1.0 Ok\r\n"
            }
            "RCPT" => {
                arrival.to.push(path(&line));
                b"250 2.1.5 Ok\r\n"
            }
            "DATA" => {
                stream.write_all(b"354 Go ahead\r\n").await?;
                arrival.content = content(&mut stream).await?;
                stream.write_all(b"250 2.0.0 Ok\r\n").await?;
                arrival.answered = Instant::now();
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(arrival.clone());
                continue;
            }
            "QUIT" => {
                stream.write_all(b"221 2.0.0 Bye\r\n").await?;
                return Ok(());
            }
            _ => b"250 2.0.0 Ok\r\n",
        };
        stream.write_all(reply).await?;
    }
}

fn path(line: &str) -> String {
    let from = line.find('<').map_or(0, |index| index + 1);
    let to = line.rfind('>').unwrap_or(line.len());
    line.get(from..to).unwrap_or_default().to_owned()
}

async fn content(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let start = content.len();
        let count = (&mut *stream)
            .take(64 << 20)
            .read_until(b'\n', &mut content)
            .await?;
        anyhow::ensure!(count > 0, "client left in the middle of a message");
        match content.get(start..) {
            Some(b".\r\n") => {
                content.truncate(start);
                return Ok(content);
            }
            Some([b'.', ..]) => drop(content.remove(start)),
            _ => {}
        }
    }
}
