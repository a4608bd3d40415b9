//! One client connection: drives the SMTP core, reads and writes the stream, and calls out where the core asks.
//!
//! All protocol decisions are the core's (`opes_smtp::server`). This file moves octets, waits, and answers the core's questions with
//! what rules and services say. While mail data comes in, the callouts that read it run in the same task.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use opes_smtp::auth::Credentials;
use opes_smtp::reply::Reply;
use opes_smtp::server::{
    Action, ConnectionInfo, ContentReply, RespondError, Response, Session, TlsInfo,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::acceptance::{self, Origin};
use crate::content::Incoming;
use crate::edge::{Edge, Listener};
use crate::engine::Annotations;
use crate::mail::Mail;
use crate::stream::{ClientStream, Prefixed};
use crate::tls;
use crate::trace::Calls;

/// Octets that one read may bring. Replies and small messages fit; large mail data comes in slices of this size.
const READ_OCTETS: usize = 32 << 10;

/// Room left in the input from which on it is not worth a read. What is read side by side shares one allocation: content keeps it
/// alive, so that a fresh one for each small segment would make a message cost many times its octets.
const READ_OCTETS_MIN: usize = 4 << 10;

/// Replies that have waited this long are sent before another callout is waited for.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// How long the client may take to see the end of a TLS session.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A client's connection.
pub(crate) struct Connection {
    pub(crate) edge: Arc<Edge>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) client: SocketAddr,
    /// On log lines, in `Received`, in the context of callouts.
    pub(crate) id: String,
    pub(crate) core: Session,
    /// What services said of the session before its first transaction.
    pub(crate) annotations: Annotations,
    /// Services that were called before it.
    pub(crate) calls: Calls,
    /// The transaction's state outside the core.
    pub(crate) mail: Mail,
    /// MAIL commands so far; numbers the transactions of the session.
    pub(crate) transactions: u64,
    stream: Option<ClientStream>,
    input: BytesMut,
    /// Since the last octets came: replies may have been waiting for so long.
    last_read: Instant,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionEnd {
    #[error("client closed the connection")]
    Closed,
    #[error("stream failed: {0}")]
    Stream(#[from] io::Error),
    #[error("TLS handshake failed: {0}")]
    Tls(io::Error),
}

impl Connection {
    pub(crate) fn new(
        edge: Arc<Edge>,
        listener: Arc<Listener>,
        (stream, tls): (ClientStream, Option<TlsInfo>),
        client: SocketAddr,
        input: BytesMut,
    ) -> Self {
        let core = Session::new(Arc::clone(&listener.smtp), ConnectionInfo { client, tls });
        let id = edge.next_session_id();
        Self {
            edge,
            listener,
            client,
            id,
            core,
            annotations: Annotations::new(),
            calls: Calls::default(),
            mail: Mail::default(),
            transactions: 0,
            stream: Some(stream),
            input,
            last_read: Instant::now(),
        }
    }

    /// Serves the client until it leaves, errs too often, or the edge drains.
    pub(crate) async fn run(mut self) -> Result<(), SessionEnd> {
        loop {
            match self.core.poll(&mut self.input) {
                Action::NeedInput => self.wait_for_input().await?,
                Action::Check(check) => {
                    self.flush_if_late().await?;
                    let response = self.check(check).await;
                    self.respond(response);
                }
                Action::Authenticate(credentials) => {
                    self.flush_if_late().await?;
                    let response = self.authenticate(credentials).await;
                    self.respond(response);
                }
                Action::Content(octets) => self.take_content(octets).await,
                Action::ContentEnd => {
                    let reply = self.finish_content().await;
                    self.respond(Response::Content(reply));
                }
                Action::TransactionAborted => self.mail = Mail::default(),
                Action::StartTls => self.start_tls().await?,
                Action::Close => return self.close().await,
            }
        }
    }

    /// Flushes replies, then waits for octets, for the callouts of a message that is coming in, or for the drain.
    async fn wait_for_input(&mut self) -> Result<(), SessionEnd> {
        self.flush().await?;
        if self.input.capacity() - self.input.len() < READ_OCTETS_MIN {
            self.input.reserve(READ_OCTETS);
        }
        let Some(stream) = &mut self.stream else {
            return Err(SessionEnd::Closed);
        };
        let idle = self.mail.is_idle();
        tokio::select! {
            biased;
            () = self.mail.drive_callouts() => Ok(()),
            read = tokio::time::timeout(self.listener.client_timeout, stream.read_buf(&mut self.input)) => match read {
                Ok(Ok(0)) => Err(SessionEnd::Closed),
                Ok(Ok(_)) => {
                    self.last_read = Instant::now();
                    Ok(())
                }
                Ok(Err(error)) => Err(error.into()),
                Err(_elapsed) => {
                    self.core.abort(Reply::TIMEOUT);
                    Ok(())
                }
            },
            () = self.edge.draining.cancelled(), if idle => {
                self.core.abort(Reply::SHUTTING_DOWN);
                Ok(())
            }
        }
    }

    /// A client that pipelines must not wait for its first reply until the callouts of all its commands are through.
    async fn flush_if_late(&mut self) -> Result<(), SessionEnd> {
        if self.last_read.elapsed() < FLUSH_AFTER {
            return Ok(());
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), SessionEnd> {
        let output = self.core.output();
        if output.is_empty() {
            return Ok(());
        }
        let Some(stream) = &mut self.stream else {
            return Err(SessionEnd::Closed);
        };
        let write = async {
            stream.write_all(output).await?;
            stream.flush().await
        };
        match tokio::time::timeout(self.listener.client_timeout, write).await {
            Ok(result) => result?,
            Err(_elapsed) => return Err(SessionEnd::Closed),
        }
        self.core.output().clear();
        Ok(())
    }

    /// Hands an answer to the core. One that it cannot take came from a service, which then counts as failed: the client is asked to
    /// come again.
    fn respond(&mut self, response: Response) {
        let Err(error) = self.core.respond(response) else {
            return;
        };
        tracing::warn!(session_id = self.id, %error, "answer of a service cannot be used");
        let fallback = match error {
            RespondError::ReplyCount { .. } => {
                Response::Content(ContentReply::One(Reply::LOCAL_ERROR))
            }
            // Fits every question, the one about the content too.
            _ => Response::Refuse(self.refusal(&Reply::SERVICE_UNAVAILABLE)),
        };
        if let Err(error) = self.core.respond(fallback) {
            opes_telemetry::bug!("the core took neither an answer nor its fallback", %error);
            self.core.abort(Reply::LOCAL_ERROR);
        }
        if self.core.transaction().is_none() {
            self.mail = Mail::default();
        }
    }

    async fn authenticate(&mut self, credentials: Credentials) -> Response {
        let Some(users) = &self.listener.users else {
            return Response::AuthTempFail;
        };
        if !users
            .verify(&credentials.identity, credentials.password)
            .await
        {
            return Response::AuthFailed;
        }
        match self
            .ask_authenticated(credentials.mechanism.as_str(), &credentials.identity)
            .await
        {
            Response::Proceed => Response::AuthOk,
            Response::Refuse(reply) if reply.is_transient() => Response::AuthTempFail,
            Response::Disconnect(reply) => Response::Disconnect(reply),
            _ => Response::AuthFailed,
        }
    }

    async fn take_content(&mut self, octets: Bytes) {
        self.edge.metrics.content_octets.inc_by(octets.len() as u64);
        if self.mail.incoming.is_none() {
            self.begin_content();
        }
        if let Some(incoming) = &mut self.mail.incoming
            && let Err(reply) = incoming.append(octets).await
        {
            self.core.fail_content(reply);
            self.mail = Mail::default();
        }
    }

    fn begin_content(&mut self) {
        let dialog = Arc::new(self.dialog());
        let routing = self.routing();
        let envelope = std::mem::take(&mut self.mail.envelope);
        self.mail.incoming = Some(Incoming::begin(&self.edge, routing, dialog, envelope));
    }

    async fn finish_content(&mut self) -> ContentReply {
        if self.mail.incoming.is_none() {
            self.begin_content();
        }
        let mail = std::mem::take(&mut self.mail);
        acceptance::finish(Origin::of(self), mail).await
    }

    async fn start_tls(&mut self) -> Result<(), SessionEnd> {
        self.flush().await?;
        let (Some(acceptor), Some(ClientStream::Plain(stream))) =
            (&self.listener.tls, self.stream.take())
        else {
            return Err(SessionEnd::Closed);
        };
        // What was learnt in the clear counts no more (RFC 3207 §4.2).
        self.annotations.clear();
        let stream = Prefixed::new(BytesMut::new(), stream);
        let handshake = tls::handshake(acceptor, stream, self.listener.client_timeout);
        let (stream, info) = handshake.await.map_err(SessionEnd::Tls)?;
        self.stream = Some(stream);
        self.core.tls_established(info);
        Ok(())
    }

    async fn close(&mut self) -> Result<(), SessionEnd> {
        self.flush().await?;
        if let Some(stream) = &mut self.stream {
            let shutdown = tokio::time::timeout(CLOSE_TIMEOUT, stream.shutdown());
            // All replies are written; a client that does not take the last record of TLS has got them or never will.
            let _ = shutdown.await;
        }
        Ok(())
    }
}
