//! A next hop that keeps nothing: it compares what arrives with what is expected, octet by octet, and forgets it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What every message must be, behind the header fields that were added on the way.
struct Expected {
    /// Added fields whose names must have come, each with its colon.
    fields: Vec<&'static str>,
    /// The message as it was sent or as it was rewritten; no line of it begins with a dot.
    message: Arc<Vec<u8>>,
}

/// Counts the messages that were as expected, and keeps what was wrong with the first that was not.
pub struct Blackhole {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    intact: AtomicUsize,
    wrong: Mutex<Option<String>>,
}

impl Blackhole {
    /// On a free port. `message` begins with the field `From`, in any case.
    pub async fn start(fields: &[&'static str], message: Arc<Vec<u8>>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = Arc::<Seen>::default();
        let kept = Arc::clone(&seen);
        let expected = Arc::new(Expected {
            fields: fields.to_vec(),
            message,
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (expected, seen) = (Arc::clone(&expected), Arc::clone(&kept));
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &expected, &seen).await {
                        let mut wrong = seen.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                        wrong.get_or_insert(format!("{error:#}"));
                    }
                });
            }
        });
        Ok(Self { address, seen })
    }

    /// Messages that were as expected.
    pub fn intact(&self) -> usize {
        self.seen.intact.load(Ordering::Relaxed)
    }

    /// What was wrong with the first that was not.
    pub fn wrong(&self) -> Option<String> {
        let wrong = self.seen.wrong.lock();
        wrong.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(stream: TcpStream, expected: &Expected, seen: &Seen) -> Result<()> {
    let mut stream = BufReader::with_capacity(1 << 18, stream);
    say(&mut stream, "220 next.example.net ESMTP").await?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        match line.get(..4) {
            Some("EHLO") => {
                let offers = "250-next.example.net\r\n250-PIPELINING\r\n250 8BITMIME";
                say(&mut stream, offers).await?;
            }
            Some("DATA") => {
                say(&mut stream, "354 Go ahead").await?;
                compare(&mut stream, expected).await?;
                seen.intact.fetch_add(1, Ordering::Relaxed);
                say(&mut stream, "250 2.0.0 Ok").await?;
            }
            Some("QUIT") => return say(&mut stream, "221 2.0.0 Bye").await,
            _ => say(&mut stream, "250 2.0.0 Ok").await?,
        }
    }
}

async fn say(stream: &mut BufReader<TcpStream>, reply: &str) -> Result<()> {
    Ok(stream.write_all(format!("{reply}\r\n").as_bytes()).await?)
}

async fn compare(stream: &mut BufReader<TcpStream>, expected: &Expected) -> Result<()> {
    let mut fields = expected.fields.clone();
    let mut line = Vec::new();
    loop {
        line.clear();
        stream.read_until(b'\n', &mut line).await?;
        fields.retain(|field| !line.starts_with(field.as_bytes()));
        ensure!(line.len() > 2, "the header ends before From");
        if line.to_ascii_lowercase().starts_with(b"from:") {
            break;
        }
    }
    ensure!(fields.is_empty(), "missing: {fields:?}");
    let rest = expected.message.strip_prefix(line.as_slice());
    compare_rest(stream, rest.context("another From")?).await?;
    line.clear();
    stream.read_until(b'\n', &mut line).await?;
    ensure!(line == b".\r\n", "more than the message");
    Ok(())
}

async fn compare_rest(stream: &mut BufReader<TcpStream>, mut rest: &[u8]) -> Result<()> {
    while !rest.is_empty() {
        let octets = stream.fill_buf().await?;
        ensure!(!octets.is_empty(), "{} octets are missing", rest.len());
        let count = octets.len().min(rest.len());
        let same = octets.get(..count) == rest.get(..count);
        ensure!(same, "other octets, {} before the end", rest.len());
        stream.consume(count);
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(())
}
