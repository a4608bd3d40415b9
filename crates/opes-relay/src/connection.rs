//! One connection to a next hop: the socket, the clock and the content around the sans-I/O [`Client`].
//!
//! Owns the octets on their way in and out. A small message costs two writes (envelope, content) and two or three reads. Fails
//! with replies: what happens to a connection is always told as what it means for the recipients.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use opes_host::Network;
use opes_smtp::client::{
    Action, Client, ClientConfig, DATA_BLOCK_TIMEOUT, DotStuffer, Mail, Outcome, QUIT_TIMEOUT,
    TlsMode,
};
use opes_smtp::reply::Reply;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::Timeouts;
use crate::source::{Source, SourceError};

/// Octets collected before they are written; also the size from which a slice of content is not copied.
const WRITE_OCTETS: usize = 64 * 1024;
const UNCOPIED_OCTETS_MIN: usize = 16 * 1024;

/// Octets read at once; replies are short.
const READ_OCTETS: usize = 4096;

/// How long to look for the reply that explains why the peer broke off.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// How to reach one next hop and how to speak to it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) network: Network,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) lmtp: bool,
    pub(crate) hostname: String,
    pub(crate) tls_mode: TlsMode,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) timeouts: Timeouts,
}

/// A session that is ready for messages.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    client: Client,
    input: BytesMut,
    timeouts: Timeouts,
    pub(crate) messages: u32,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

/// The session did not come about.
struct Refused {
    reply: Reply,
    /// The handshake failed; without TLS it might work.
    at_handshake: bool,
}

/// The content did not get out.
enum Broken {
    Source(SourceError),
    Wire(io::Error),
}

impl Connection {
    /// Connects, greets and encrypts, as far as the peer's policy allows. The error is always transient.
    pub(crate) async fn open(peer: &Peer) -> Result<Self, Reply> {
        let mut mode = peer.tls_mode;
        loop {
            let mut connection = Self::connect(peer, mode).await?;
            match connection.greet(peer).await {
                Ok(()) => return Ok(connection),
                Err(refused) if refused.at_handshake && mode == TlsMode::Opportunistic => {
                    tracing::warn!(host = peer.host, reason = %refused.reply, "TLS does not work; going on in clear text");
                    mode = TlsMode::Off;
                }
                Err(refused) => return Err(refused.reply),
            }
        }
    }

    async fn connect(peer: &Peer, tls: TlsMode) -> Result<Self, Reply> {
        let connecting = peer.network.connect(&peer.host, peer.port);
        let stream = timeout(peer.timeouts.connect, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| unreachable_reply(peer, &error))?;
        // Every write is a whole group of commands or a whole message: waiting for more would only cost time.
        stream
            .set_nodelay()
            .map_err(|error| unreachable_reply(peer, &error))?;
        let config = ClientConfig {
            hostname: peer.hostname.clone(),
            lmtp: peer.lmtp,
            tls,
        };
        Ok(Self {
            stream: Box::new(stream),
            client: Client::new(config),
            input: BytesMut::with_capacity(READ_OCTETS),
            timeouts: peer.timeouts,
            messages: 0,
        })
    }

    async fn greet(&mut self, peer: &Peer) -> Result<(), Refused> {
        loop {
            match self.step().await {
                Action::Ready => return Ok(()),
                Action::StartTls => self.handshake(peer).await?,
                Action::Closed(Some(reply)) => {
                    return Err(Refused {
                        reply,
                        at_handshake: false,
                    });
                }
                Action::NeedInput
                | Action::SendContent
                | Action::Done(_)
                | Action::Closed(None) => {
                    let reply = Reply::NEXT_HOP_PROTOCOL_ERROR;
                    return Err(Refused {
                        reply,
                        at_handshake: false,
                    });
                }
            }
        }
    }

    async fn handshake(&mut self, peer: &Peer) -> Result<(), Refused> {
        let encrypted = match self.flush().await {
            Ok(()) => self.encrypt(peer).await,
            Err(error) => Err(error),
        };
        encrypted.map_err(|error| Refused {
            reply: Reply::NEXT_HOP_UNREACHABLE
                .with_text(format!("TLS handshake with {} failed: {error}", peer.host)),
            at_handshake: true,
        })?;
        self.client.tls_established();
        Ok(())
    }

    async fn encrypt(&mut self, peer: &Peer) -> io::Result<()> {
        let config = peer.tls.clone().ok_or(io::ErrorKind::Unsupported)?;
        let name = ServerName::try_from(peer.host.clone()).map_err(io::Error::other)?;
        let plain = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        let handshake = TlsConnector::from(config).connect(name, plain);
        let encrypted = timeout(self.timeouts.connect, handshake).await??;
        self.stream = Box::new(encrypted);
        Ok(())
    }

    /// Sends one message. Always gives one reply per recipient.
    pub(crate) async fn deliver(&mut self, mail: &Mail<'_>, source: &Source) -> Outcome {
        self.messages += 1;
        if self.client.begin(mail).is_err() {
            return lost(mail);
        }
        loop {
            match self.step().await {
                Action::SendContent => self.send_content(source).await,
                Action::Done(outcome) => return outcome,
                Action::NeedInput | Action::StartTls | Action::Ready | Action::Closed(_) => {
                    return lost(mail);
                }
            }
        }
    }

    /// Whether another message can be sent.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.client.poll(&mut self.input) == Action::Ready
    }

    async fn send_content(&mut self, source: &Source) {
        match self.stream_content(source).await {
            Ok(()) => self.client.content_sent(),
            Err(Broken::Source(error)) => {
                // Closing without the final dot is the only way to take a message back (RFC 5321 §4.1.1.10).
                self.client.connection_lost(&format!(
                    "closed by us, since the message cannot be read: {error}"
                ));
            }
            Err(Broken::Wire(error)) => self.last_words(&error).await,
        }
    }

    /// Everything up to the final dot; what is small stays in the buffer and goes out with the dot in one write.
    async fn stream_content(&mut self, source: &Source) -> Result<(), Broken> {
        let mut stuffer = DotStuffer::new();
        match source.in_memory() {
            Some(chunks) => {
                for chunk in chunks {
                    self.send_chunk(&mut stuffer, &chunk)
                        .await
                        .map_err(Broken::Wire)?;
                }
            }
            None => self.stream_chunks(&mut stuffer, source).await?,
        }
        self.client.output().extend_from_slice(stuffer.finish());
        Ok(())
    }

    async fn stream_chunks(
        &mut self,
        stuffer: &mut DotStuffer,
        source: &Source,
    ) -> Result<(), Broken> {
        let mut offset = 0;
        loop {
            let chunk = source.read(offset).await.map_err(Broken::Source)?;
            if chunk.is_empty() {
                return Ok(());
            }
            offset += chunk.len() as u64;
            self.send_chunk(stuffer, &chunk)
                .await
                .map_err(Broken::Wire)?;
        }
    }

    async fn send_chunk(&mut self, stuffer: &mut DotStuffer, chunk: &Bytes) -> io::Result<()> {
        for slice in stuffer.stuff(chunk) {
            if slice.len() >= UNCOPIED_OCTETS_MIN {
                self.flush().await?;
                write(&mut self.stream, slice).await?;
            } else {
                self.client.output().extend_from_slice(slice);
                if self.client.output().len() >= WRITE_OCTETS {
                    self.flush().await?;
                }
            }
        }
        Ok(())
    }

    /// A peer that refuses in the middle of the content says why before it closes.
    async fn last_words(&mut self, error: &io::Error) {
        self.client.output().clear();
        let read = self.stream.read_buf(&mut self.input);
        if matches!(timeout(LAST_WORDS_TIMEOUT, read).await, Ok(Ok(1..))) && !self.input.is_empty()
        {
            return;
        }
        self.client.connection_lost(&error.to_string());
    }

    /// Reads and writes until the dialog needs a decision.
    async fn step(&mut self) -> Action {
        loop {
            let action = self.client.poll(&mut self.input);
            if action != Action::NeedInput {
                return action;
            }
            if let Err(why) = self.exchange().await {
                self.client.connection_lost(&why);
            }
        }
    }

    async fn exchange(&mut self) -> Result<(), String> {
        self.flush().await.map_err(|error| error.to_string())?;
        self.input.reserve(READ_OCTETS);
        let limit = self.client.reply_timeout().min(self.timeouts.reply_max);
        match timeout(limit, self.stream.read_buf(&mut self.input)).await {
            Ok(Ok(0)) => Err("closed by the next hop".into()),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no reply within {} s", limit.as_secs())),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let output = self.client.output();
        if !output.is_empty() {
            write(&mut self.stream, output).await?;
            output.clear();
        }
        Ok(())
    }

    /// Resolves when the peer says something or closes, which on a connection without work means the end of it.
    pub(crate) async fn spoken_to(&mut self) {
        while let Ok(1..) = self.stream.read_buf(&mut self.input).await {
            if self.client.poll(&mut self.input) != Action::NeedInput {
                break;
            }
        }
        self.client
            .connection_lost("closed by the next hop while idle");
    }

    /// Says QUIT if that is possible, and closes.
    pub(crate) async fn quit(mut self) {
        if !self.is_ready() {
            return;
        }
        self.client.quit();
        // The reply is of no use to us, and the next hop may be long gone.
        let _ = timeout(QUIT_TIMEOUT, self.step()).await;
        let _ = timeout(QUIT_TIMEOUT, self.stream.shutdown()).await;
    }
}

async fn write(stream: &mut Box<dyn Stream>, octets: &[u8]) -> io::Result<()> {
    let writing = async {
        stream.write_all(octets).await?;
        stream.flush().await
    };
    timeout(DATA_BLOCK_TIMEOUT, writing)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn unreachable_reply(peer: &Peer, error: &io::Error) -> Reply {
    Reply::NEXT_HOP_UNREACHABLE.with_text(format!(
        "Cannot connect to next hop {} port {}: {error}",
        peer.host, peer.port
    ))
}

fn lost(mail: &Mail<'_>) -> Outcome {
    Outcome {
        replies: vec![Reply::NEXT_HOP_CONNECTION_LOST; mail.recipients.len()],
        untried: false,
        reports: false,
    }
}
