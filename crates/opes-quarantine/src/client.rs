//! The other end of the API, for the command line. One connection a request.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::api::{Expired, OPERATOR, ROOT, Released};
use crate::{Detail, Filter, Page, ReleaseRequest};

/// Connecting, and waiting for an answer to begin: a release of a large message takes a while.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);

/// Most octets of an answer that is not a message: a page of the largest entries.
const ANSWER_OCTETS_MAX: usize = 64 * 1024 * 1024;

/// Where the API is.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// A socket of this machine.
    Socket(PathBuf),
    /// `HOST:PORT`, with the token.
    Tcp {
        /// Where.
        authority: String,
        /// What to show.
        token: SecretString,
    },
}

/// Talks with the API of one edge.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    operator: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "cannot reach the quarantine at {place}: {source}\n  help: is the edge running, as this user or may you read its spool folder? Otherwise give --config, --socket or --url"
    )]
    Connect {
        /// Socket or address.
        place: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It said no.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The connection broke, or an answer makes no sense.
    #[error(
        "the quarantine did not answer properly: {0}\n  help: `opes quarantine show` tells whether it was done"
    )]
    Broken(String),
}

impl Client {
    /// Nothing is sent yet.
    pub fn new(endpoint: Endpoint, operator: &str) -> Self {
        Self {
            endpoint,
            operator: operator.into(),
        }
    }

    /// A page of entries.
    pub async fn list(&self, filter: &Filter) -> Result<Page, ClientError> {
        let query = serde_urlencoded::to_string(filter).map_err(broken)?;
        self.json(Method::GET, &format!("/entries?{query}"), Bytes::new())
            .await
    }

    /// One entry.
    pub async fn show(&self, id: &str) -> Result<Detail, ClientError> {
        self.json(Method::GET, &format!("/entries/{id}"), Bytes::new())
            .await
    }

    /// Writes an entry's content to `to`.
    pub async fn content(
        &self,
        id: &str,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), ClientError> {
        let path = format!("/entries/{id}/content");
        let answer = self.ask(Method::GET, &path, Bytes::new()).await?;
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(octets) = frame.map_err(broken)?.into_data() {
                to.write_all(&octets).await.map_err(broken)?;
            }
        }
        to.flush().await.map_err(broken)
    }

    /// Releases an entry to some or all recipients.
    pub async fn release(
        &self,
        id: &str,
        request: &ReleaseRequest,
    ) -> Result<Released, ClientError> {
        let body = serde_json::to_vec(request).map_err(broken)?;
        self.json(Method::POST, &format!("/entries/{id}/release"), body.into())
            .await
    }

    /// Removes an entry.
    pub async fn delete(&self, id: &str) -> Result<(), ClientError> {
        let path = format!("/entries/{id}");
        self.ask(Method::DELETE, &path, Bytes::new()).await?;
        Ok(())
    }

    /// Removes entries whose time is over now.
    pub async fn expire(&self) -> Result<Expired, ClientError> {
        self.json(Method::POST, "/expire", Bytes::new()).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let answer = self.ask(method, path, body).await?;
        serde_json::from_slice(&collect(answer.into_body()).await?).map_err(broken)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{ROOT}{path}"))
            .header(OPERATOR, &self.operator)
            .header(CONTENT_TYPE, "application/json");
        request = match &self.endpoint {
            Endpoint::Socket(_) => request.header(HOST, "localhost"),
            Endpoint::Tcp { authority, token } => request.header(HOST, authority).header(
                AUTHORIZATION,
                format!("Bearer {}", token.expose_secret().trim()),
            ),
        };
        let request = request.body(Full::new(body)).map_err(broken)?;
        let answer = match &self.endpoint {
            Endpoint::Socket(path) => {
                let connect = UnixStream::connect(path);
                let stream = connected(&path.display().to_string(), connect).await?;
                exchange(stream, request).await?
            }
            Endpoint::Tcp { authority, .. } => {
                let stream = connected(authority, TcpStream::connect(authority)).await?;
                exchange(stream, request).await?
            }
        };
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        Err(refused(answer).await)
    }
}

async fn connected<S>(
    place: &str,
    connect: impl Future<Output = std::io::Result<S>>,
) -> Result<S, ClientError> {
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
        Ok(stream) => stream,
        Err(elapsed) => Err(elapsed.into()),
    };
    stream.map_err(|source| ClientError::Connect {
        place: place.into(),
        source,
    })
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with the sender, or with the body of the answer.
    tokio::spawn(connection);
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
    answer
        .map_err(|_| ClientError::Broken("no answer within five minutes".into()))?
        .map_err(broken)
}

async fn collect(body: Incoming) -> Result<Bytes, ClientError> {
    let body = Limited::new(body, ANSWER_OCTETS_MAX).collect().await;
    Ok(body
        .map_err(|error| ClientError::Broken(error.to_string()))?
        .to_bytes())
}

async fn refused(answer: Response<Incoming>) -> ClientError {
    let status = answer.status();
    let body = match collect(answer.into_body()).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    let said: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let message = said.and_then(|said| Some(said.get("error")?.as_str()?.to_owned()));
    ClientError::Refused {
        status: status.as_u16(),
        message: message.unwrap_or_else(|| status.to_string()),
    }
}

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}
