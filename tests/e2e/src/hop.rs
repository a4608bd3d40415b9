//! A next hop that behaves as the test says: refuses recipients, answers per recipient (LMTP), holds its last word back.
//!
//! [`crate::sink`] is for counting many messages quickly; this one is for what a next hop says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What the next hop says, where it is not 250.
#[derive(Debug, Clone, Default)]
pub struct Manners {
    /// LHLO, and a reply per accepted recipient after the data (RFC 2033).
    pub lmtp: bool,
    /// Replies to RCPT by address.
    pub recipients: BTreeMap<String, String>,
    /// Replies after the data, the first for the first accepted recipient (LMTP) or for all (SMTP). Missing ones are 250.
    pub content: Vec<String>,
    /// If set, every last word after data needs one permit, which is used up.
    pub gate: Option<Arc<Semaphore>>,
}

/// See the module.
pub struct Hop {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

/// One message, as far as it has come.
#[derive(Debug, Clone, Default)]
pub struct Arrival {
    /// Reverse-path.
    pub from: String,
    /// Accepted recipients.
    pub to: Vec<String>,
    /// Without dot-stuffing.
    pub content: Vec<u8>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Messages whose end was seen, whatever was answered.
    complete: usize,
    /// Messages answered 250, for one recipient at least.
    arrivals: Vec<Arrival>,
}

impl Hop {
    /// Starts it on a free port.
    pub async fn start(manners: Manners) -> Result<Self> {
        Self::start_at("127.0.0.1:0".parse()?, manners).await
    }

    /// Starts it where one was before.
    pub async fn start_at(address: SocketAddr, manners: Manners) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let seen = Arc::<Mutex<Seen>>::default();
        let kept = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (manners, seen) = (manners.clone(), Arc::clone(&kept));
                // A client that goes away in the middle is a normal end.
                tokio::spawn(async move { Session::new(stream, manners, seen).serve().await.ok() });
            }
        });
        Ok(Self { address, seen })
    }

    /// Messages that were answered 250.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .arrivals
            .clone()
    }

    /// Messages whose end was seen, whatever was answered.
    pub fn complete(&self) -> usize {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .complete
    }
}

struct Session {
    stream: BufReader<TcpStream>,
    manners: Manners,
    seen: Arc<Mutex<Seen>>,
    arrival: Arrival,
}

impl Session {
    fn new(stream: TcpStream, manners: Manners, seen: Arc<Mutex<Seen>>) -> Self {
        let arrival = Arrival::default();
        Self {
            stream: BufReader::new(stream),
            manners,
            seen,
            arrival,
        }
    }

    async fn serve(mut self) -> Result<()> {
        self.say("220 next.example.net ESMTP").await?;
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line
                .get(..4)
                .unwrap_or_default()
                .to_ascii_uppercase()
                .as_str()
            {
                "EHLO" | "LHLO" => {
                    self.say("250-next.example.net\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8").await?;
                }
                "MAIL" => {
                    self.arrival = Arrival {
                        from: path(&line),
                        ..Arrival::default()
                    };
                    self.say("250 2.1.0 Sender ok").await?;
                }
                "RCPT" => self.recipient(path(&line)).await?,
                "DATA" if self.arrival.to.is_empty() => {
                    self.say("554 5.5.1 No valid recipients").await?;
                }
                "DATA" => self.content().await?,
                "QUIT" => return self.say("221 2.0.0 Bye").await,
                _ => self.say("250 2.0.0 Ok").await?,
            }
        }
    }

    async fn recipient(&mut self, address: String) -> Result<()> {
        if let Some(reply) = self.manners.recipients.get(&address).cloned() {
            self.say(&reply).await
        } else {
            self.arrival.to.push(address);
            self.say("250 2.1.5 Recipient ok").await
        }
    }

    async fn content(&mut self) -> Result<()> {
        self.say("354 Go ahead").await?;
        self.arrival.content = read_content(&mut self.stream).await?;
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .complete += 1;
        if let Some(gate) = &self.manners.gate {
            gate.acquire().await?.forget();
        }
        let count = if self.manners.lmtp {
            self.arrival.to.len()
        } else {
            1
        };
        let replies: Vec<String> = (0..count)
            .map(|index| {
                self.manners
                    .content
                    .get(index)
                    .cloned()
                    .unwrap_or_else(|| "250 2.0.0 Ok".into())
            })
            .collect();
        if replies.iter().any(|reply| reply.starts_with('2')) {
            self.seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .arrivals
                .push(self.arrival.clone());
        }
        self.say(&replies.join("\r\n")).await
    }

    async fn say(&mut self, reply: &str) -> Result<()> {
        Ok(self
            .stream
            .write_all(format!("{reply}\r\n").as_bytes())
            .await?)
    }
}

fn path(line: &str) -> String {
    let from = line.find('<').map_or(0, |index| index + 1);
    let to = line.rfind('>').unwrap_or(line.len());
    line.get(from..to).unwrap_or_default().to_owned()
}

async fn read_content(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let mut line = Vec::new();
        ensure!(
            stream.read_until(b'\n', &mut line).await? > 0,
            "the client left in the middle of a message"
        );
        // Only CRLF ends lines; a bare LF is content.
        let at_line_start = content.is_empty() || content.ends_with(b"\r\n");
        match line.as_slice() {
            b".\r\n" if at_line_start => return Ok(content),
            [b'.', rest @ ..] if at_line_start => content.extend_from_slice(rest),
            line => content.extend_from_slice(line),
        }
    }
}
