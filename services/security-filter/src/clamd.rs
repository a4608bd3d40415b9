//! Asks ClamAV's daemon about the parts of a message: `INSTREAM` within an `IDSESSION`, clamd(8).
//!
//! Parts are decoded while they are sent. Owns the connections: a bounded number for all messages, a few of them for one. Whatever is not
//! an answer (clamd away, an error of its own, time over) is an error, never "clean". Knows nothing of policies.

mod session;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::session::Session;
use crate::archive::Unseen;
use crate::config::{Address, ClamdConfig, ConfigError, WholeMessage};
use crate::inspect::{Cause, Finding, Leaf};

/// Most connections for one message.
const SESSIONS_MAX: usize = 4;

/// ClamAV's daemon.
#[derive(Debug, Clone)]
pub struct Clamd {
    address: Address,
    timeout: Duration,
    size_max: u64,
    /// When the message as a whole is sent too.
    pub whole_message: WholeMessage,
    connections: Arc<Semaphore>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClamdError {
    /// Not reached, or gone in the middle.
    #[error("clamd at {address} cannot be asked: {reason}")]
    Unreachable {
        /// As configured.
        address: Address,
        /// The system's words.
        reason: std::io::Error,
    },
    /// Not in time.
    #[error("clamd at {address} has not answered within {} ms (clamd.timeoutMs)", timeout.as_millis())]
    Slow {
        /// As configured.
        address: Address,
        /// As configured.
        timeout: Duration,
    },
    /// It could not scan.
    #[error("clamd at {address} says: {text}")]
    Failed {
        /// As configured.
        address: Address,
        /// Printable, bounded.
        text: String,
    },
}

/// What clamd says of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Clean,
    Virus(String),
    /// Larger than its limits.
    TooMuch,
}

/// Of one part; the errors without the place.
#[derive(Debug)]
pub(crate) enum Failure {
    Io(std::io::Error),
    Text(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

// === impl Clamd ===

impl Clamd {
    /// Connects to nothing yet.
    pub fn new(config: &ClamdConfig) -> Result<Self, ConfigError> {
        let connections = usize::try_from(config.connections_max).unwrap_or(usize::MAX);
        Ok(Self {
            address: config.place()?,
            timeout: config.timeout(),
            size_max: config.size_max,
            whole_message: config.whole_message,
            connections: Arc::new(Semaphore::new(connections)),
        })
    }

    /// What it finds in these parts of `message`.
    pub async fn scan(
        &self,
        message: &Bytes,
        leaves: Vec<Leaf>,
    ) -> Result<Vec<Finding>, ClamdError> {
        let scanned = tokio::time::timeout(self.timeout, self.sessions(message, leaves)).await;
        let slow = |_| ClamdError::Slow {
            address: self.address.clone(),
            timeout: self.timeout,
        };
        scanned.map_err(slow)?.map_err(|failure| match failure {
            Failure::Io(reason) => ClamdError::Unreachable {
                address: self.address.clone(),
                reason,
            },
            Failure::Text(text) => ClamdError::Failed {
                address: self.address.clone(),
                text,
            },
        })
    }

    async fn sessions(&self, message: &Bytes, leaves: Vec<Leaf>) -> Result<Vec<Finding>, Failure> {
        let fits = |leaf: &Leaf| leaf.body.len() as u64 <= self.encoded_max(leaf);
        let (small, large): (Vec<Leaf>, Vec<Leaf>) = leaves.into_iter().partition(fits);
        let mut findings: Vec<Finding> = large
            .into_iter()
            .filter_map(|leaf| self.finding(leaf, Said::TooMuch))
            .collect();
        let permits = self.permits(small.len()).await;
        let todo = Mutex::new(small);
        let sessions = permits.into_iter().map(|permit| {
            let session = self.session(message, &todo);
            async move {
                let _permit = permit;
                session.await
            }
        });
        for found in try_join_all(sessions).await? {
            findings.extend(found);
        }
        Ok(findings)
    }

    /// One for waiting, more if they are free.
    async fn permits(&self, parts: usize) -> Vec<OwnedSemaphorePermit> {
        let mut permits = Vec::new();
        while permits.len() < parts.min(SESSIONS_MAX) {
            let connections = Arc::clone(&self.connections);
            let permit = if permits.is_empty() {
                connections.acquire_owned().await.ok()
            } else {
                connections.try_acquire_owned().ok()
            };
            let Some(permit) = permit else { break };
            permits.push(permit);
        }
        permits
    }

    /// Takes parts until there are none left.
    async fn session(
        &self,
        message: &Bytes,
        todo: &Mutex<Vec<Leaf>>,
    ) -> Result<Vec<Finding>, Failure> {
        let mut findings = Vec::new();
        // After one that is too much for it clamd hangs up; the others go into the next connection.
        while let Some(first) = next(todo) {
            match &self.address {
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path).await?;
                    self.ask(stream, message, first, todo, &mut findings)
                        .await?;
                }
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address.as_str()).await?;
                    self.ask(stream, message, first, todo, &mut findings)
                        .await?;
                }
            }
        }
        Ok(findings)
    }

    async fn ask<S: AsyncRead + AsyncWrite>(
        &self,
        stream: S,
        message: &Bytes,
        first: Leaf,
        todo: &Mutex<Vec<Leaf>>,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Failure> {
        let mut session = Session::open(stream).await?;
        let mut leaf = Some(first);
        while let Some(asked) = leaf {
            let body = message.get(asked.body.clone()).unwrap_or_default();
            let said = session.scan(body, asked.encoding).await?;
            let ended = said == Said::TooMuch;
            findings.extend(self.finding(asked, said));
            if ended {
                return Ok(());
            }
            leaf = next(todo);
        }
        session.end().await;
        Ok(())
    }

    fn finding(&self, leaf: Leaf, said: Said) -> Option<Finding> {
        let cause = match said {
            Said::Clean => return None,
            Said::Virus(name) => Cause::Virus(name),
            Said::TooMuch => Cause::Unseen(Unseen::Scanner(self.size_max)),
        };
        let Leaf { path, name, .. } = leaf;
        Some(Finding { path, name, cause })
    }

    /// Encoded octets that may be sent: base64 takes four for three, and line ends.
    fn encoded_max(&self, leaf: &Leaf) -> u64 {
        match leaf.encoding {
            opes_mime::Encoding::Base64 => self.size_max.saturating_mul(4) / 3 * 78 / 76,
            _ => self.size_max,
        }
    }
}

fn next(todo: &Mutex<Vec<Leaf>>) -> Option<Leaf> {
    todo.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

#[cfg(test)]
mod tests;
