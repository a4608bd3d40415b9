//! A connection to the milter: the session of `opes-milter` on a socket, with time limits.
//!
//! What needs no reply is written when something does, or when it has become much. Dropped, it closes the socket, which a milter takes for the
//! end of the SMTP connection.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use opes_milter::{
    Actions, Command, Event, Frame, FrameError, Macros, Modification, OrderError, ProtocolError,
    Sent, Session, Verdict,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::Settings;
use crate::endpoint::Endpoint;

/// Octets that may wait to be written.
const OUTPUT_OCTETS_MAX: usize = 32 * 1024;
/// Octets of room made for one read.
const READ_OCTETS: usize = 16 * 1024;
/// To take leave of a milter; nobody waits for the answer.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a milter could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum MilterError {
    /// Nobody there.
    #[error("cannot connect to the milter at {endpoint}: {source}")]
    Connect {
        /// As configured.
        endpoint: Endpoint,
        /// Of the system.
        source: io::Error,
    },
    /// Too late.
    #[error("the milter did not answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke.
    #[error("the connection to the milter broke: {0}")]
    Broken(#[from] io::Error),
    /// It ended.
    #[error("the milter closed the connection")]
    Closed,
    /// Not the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Against the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A bug here.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// A change of the message that is too large to be held.
    #[error(
        "the milter's new body has more than {0} octets; raise bodySizeMax if that is intended"
    )]
    BodyTooLarge(usize),
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// See the module.
pub(crate) struct Connection {
    socket: Box<dyn Socket>,
    session: Session,
    input: BytesMut,
    output: BytesMut,
}

impl Connection {
    /// Connects and negotiates.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, MilterError> {
        let limit = settings.connect_timeout;
        let opening = async {
            let endpoint = &settings.endpoint;
            let socket = connect(endpoint).await;
            let socket = socket.map_err(|source| MilterError::Connect {
                endpoint: endpoint.clone(),
                source,
            })?;
            let mut output = BytesMut::new();
            let session = Session::start(Actions::ALL, &mut output);
            let mut connection = Self {
                socket,
                session,
                input: BytesMut::new(),
                output,
            };
            connection.flush().await?;
            // Anything else to the offer is an error of the session.
            let _negotiated = connection.event().await?;
            Ok(connection)
        };
        within(limit, opening).await
    }

    /// What was agreed on.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Sends a command and waits for its verdict, at most `limit` from one sign of life to the next.
    pub(crate) async fn say(
        &mut self,
        command: &Command<'_>,
        macros: &Macros,
        limit: Duration,
    ) -> Result<Verdict, MilterError> {
        self.ask(command, macros, limit, |_| Ok(())).await
    }

    /// The same; each modification goes to `take`.
    pub(crate) async fn ask(
        &mut self,
        command: &Command<'_>,
        macros: &Macros,
        limit: Duration,
        mut take: impl FnMut(Modification) -> Result<(), MilterError>,
    ) -> Result<Verdict, MilterError> {
        let awaits = match self.session.send(command, macros, &mut self.output)? {
            Sent::Awaits => true,
            Sent::Silent => false,
            Sent::Unwanted => return Ok(Verdict::Continue),
        };
        if awaits || self.output.len() > OUTPUT_OCTETS_MAX {
            within(limit, self.flush()).await?;
        }
        if !awaits {
            return Ok(Verdict::Continue);
        }
        loop {
            match within(limit, self.event()).await? {
                Event::Verdict(verdict) => return Ok(verdict),
                Event::Modification(modification) => take(modification)?,
                Event::Progress | Event::Negotiated => {}
            }
        }
    }

    async fn event(&mut self) -> Result<Event, MilterError> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.input)? {
                return Ok(self.session.receive(frame)?);
            }
            self.input.reserve(READ_OCTETS);
            if self.socket.read_buf(&mut self.input).await? == 0 {
                return Err(MilterError::Closed);
            }
        }
    }

    async fn flush(&mut self) -> Result<(), MilterError> {
        self.socket.write_all_buf(&mut self.output).await?;
        Ok(self.socket.flush().await?)
    }

    /// Takes leave. Whether the milter hears it changes nothing.
    pub(crate) async fn quit(mut self) {
        let none = Macros::default();
        // Not in a message, or a reply is due: QUIT alone says enough.
        let _no_message = self.session.send(&Command::Abort, &none, &mut self.output);
        let _bug = self.session.send(&Command::Quit, &none, &mut self.output);
        let _gone = timeout(QUIT_TIMEOUT, self.flush()).await;
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, MilterError>>,
) -> Result<T, MilterError> {
    let done = timeout(limit, work).await;
    done.unwrap_or(Err(MilterError::Timeout(limit)))
}

async fn connect(endpoint: &Endpoint) -> io::Result<Box<dyn Socket>> {
    Ok(match endpoint {
        Endpoint::Inet { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

#[cfg(test)]
mod tests;
