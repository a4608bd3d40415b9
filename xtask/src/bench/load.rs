//! The load: so many connections, each sending its messages one after another, like a busy MTA.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

/// What is sent.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Per connection.
    pub(crate) messages: usize,
    pub(crate) octets: usize,
    /// MAIL, RCPT and DATA in one write (RFC 2920).
    pub(crate) pipelining: bool,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) started: Instant,
    /// Until the last 250.
    pub(crate) elapsed: Duration,
    /// From MAIL to the 250 of each message, sorted.
    latencies: Vec<Duration>,
}

impl Outcome {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a few thousand values"
    )]
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let index = (self.latencies.len() as f64 * share) as usize;
        self.latencies
            .get(index.min(self.latencies.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

/// Sends everything; fails if any message is not acknowledged.
pub(crate) fn run(server: SocketAddr, load: &Load) -> Result<Outcome> {
    let content = content(load.octets);
    let started = Instant::now();
    let results: Vec<Result<Vec<Duration>>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..load.connections)
            .map(|_| scope.spawn(|| client(server, load, &content)))
            .collect();
        let joined = clients.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .map(|result| result.unwrap_or_else(|_| Err(anyhow!("a client panicked"))))
            .collect()
    });
    let elapsed = started.elapsed();
    let mut latencies = Vec::new();
    for result in results {
        latencies.extend(result?);
    }
    latencies.sort();
    Ok(Outcome {
        started,
        elapsed,
        latencies,
    })
}

fn content(octets: usize) -> Vec<u8> {
    let mut content =
        b"From: steve@example.org\r\nTo: paul@example.com\r\nSubject: bench\r\nMessage-ID: <bench@example.org>\r\n\r\n"
            .to_vec();
    while content.len() < octets {
        content.extend_from_slice(
            b"The quick brown fox jumps over the lazy dog, again and again and again.\r\n",
        );
    }
    content.extend_from_slice(b".\r\n");
    content
}

fn client(server: SocketAddr, load: &Load, content: &[u8]) -> Result<Vec<Duration>> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    let mut dialog = Dialog(BufReader::new(stream));
    dialog.expect("220")?;
    dialog.command("EHLO client.example.org\r\n", "250")?;
    let mut latencies = Vec::with_capacity(load.messages);
    for _ in 0..load.messages {
        let started = Instant::now();
        dialog.message(load.pipelining, content)?;
        latencies.push(started.elapsed());
    }
    dialog.command("QUIT\r\n", "221")?;
    Ok(latencies)
}

struct Dialog(BufReader<TcpStream>);

impl Dialog {
    fn message(&mut self, pipelining: bool, content: &[u8]) -> Result<()> {
        const MAIL: &str = "MAIL FROM:<steve@example.org>\r\n";
        const RCPT: &str = "RCPT TO:<paul@example.com>\r\n";
        if pipelining {
            self.0
                .get_mut()
                .write_all([MAIL, RCPT, "DATA\r\n"].concat().as_bytes())?;
            self.expect("250")?;
            self.expect("250")?;
            self.expect("354")?;
        } else {
            self.command(MAIL, "250")?;
            self.command(RCPT, "250")?;
            self.command("DATA\r\n", "354")?;
        }
        self.0.get_mut().write_all(content)?;
        self.expect("250")
    }

    fn command(&mut self, line: &str, code: &str) -> Result<()> {
        self.0.get_mut().write_all(line.as_bytes())?;
        self.expect(code)
    }

    fn expect(&mut self, code: &str) -> Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(
                self.0.read_line(&mut line)? > 0,
                "connection closed while waiting for {code}"
            );
            ensure!(
                line.starts_with(code),
                "expected {code}, got {}",
                line.trim_end()
            );
            if line.as_bytes().get(3) == Some(&b' ') {
                return Ok(());
            }
        }
    }
}
