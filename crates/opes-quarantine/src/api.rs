//! The operators' API: HTTP/1 and JSON over a Unix socket of this machine's operator, or over TCP with a token.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/quarantine/entries?queue=…&cursor=…` | [`Page`](crate::Page); the parameters are those of [`Filter`] |
//! | `GET /v1/quarantine/entries/ID` | [`Detail`](crate::Detail) |
//! | `GET /v1/quarantine/entries/ID/content` | the message, `message/rfc822` |
//! | `POST /v1/quarantine/entries/ID/release` with a [`ReleaseRequest`] | [`Released`] |
//! | `DELETE /v1/quarantine/entries/ID` | `{}` |
//! | `POST /v1/quarantine/expire` | [`Expired`] |
//!
//! Errors are `{"error": "…"}`. `opes-operator: NAME` says who asks; on a Unix socket the user id stands in for it.
//! Bounded in connections, header time, body and answer; a failing connection ends alone.

mod answer;
mod listener;

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

pub use listener::{serve_tcp, serve_unix, unix_socket};

use crate::entry::{Held, NAME_OCTETS_MAX, clean};
use crate::store::now_ms;
use crate::{Filter, ReleaseRequest, Store, StoreError};
use answer::{Answer, Status};

/// Who asks, in a request.
pub(crate) const OPERATOR: &str = "opes-operator";

/// Before all paths.
pub(crate) const ROOT: &str = "/v1/quarantine";

/// Most octets of a request's body: a thousand addresses.
const BODY_OCTETS_MAX: usize = 512 * 1024;

/// A token that can be guessed is none.
const TOKEN_OCTETS_MIN: usize = 16;

/// What releases a message: the edge whose program serves the API.
pub trait Releaser: Send + Sync {
    /// Begins a release and sees it through until the edge has it durably.
    fn release<'a>(
        &'a self,
        id: &'a str,
        request: &'a ReleaseRequest,
        by: &'a str,
    ) -> BoxFuture<'a, Result<Released, StoreError>>;
}

/// A release that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    /// Its name, also in the edge's spool.
    pub release: String,
    /// Addresses of the recipients.
    pub recipients: Vec<String>,
}

/// How many entries were removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// Their number.
    pub expired: u64,
}

/// What the API works with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// The store.
    pub store: Store,
    /// Releases go through it.
    pub releaser: Arc<dyn Releaser>,
}

/// Who may ask.
#[derive(Debug, Clone)]
pub(crate) enum Guard {
    /// Whoever can connect: the socket's mode decides. With the peer's user id.
    Socket(Option<u32>),
    /// Whoever knows the token in this file, which is read for each request.
    Token(Arc<PathBuf>),
}

impl Api {
    /// One request, always answered.
    pub(crate) async fn respond(&self, request: Request<Incoming>, guard: Guard) -> Answer {
        let by = match self.admit(&request, &guard).await {
            Ok(by) => by,
            Err(refusal) => return refusal,
        };
        let path = request.uri().path().to_owned();
        let Some(rest) = path.strip_prefix(ROOT) else {
            return no_such_place();
        };
        let parts: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["entries"]) => self.list(request.uri().query()).await,
            (&Method::POST, ["expire"]) => answer::json(self.expire().await),
            (&Method::GET | &Method::POST | &Method::DELETE, ["entries", id, ..])
                if !Held::is_id(id) =>
            {
                answer::error(&StoreError::NotFound(clean(id, NAME_OCTETS_MAX)))
            }
            (&Method::GET, ["entries", id]) => answer::json(self.store.show(id).await),
            (&Method::DELETE, ["entries", id]) => {
                let done = self.store.delete(id, &by).await;
                answer::json(done.map(|()| serde_json::Map::new()))
            }
            (&Method::GET, ["entries", id, "content"]) => self.content(id).await,
            (&Method::POST, ["entries", id, "release"]) => {
                let id = (*id).to_owned();
                self.release(&id, request, &by).await
            }
            _ => no_such_place(),
        }
    }

    /// The operator's name, or why there is no answer.
    async fn admit(&self, request: &Request<Incoming>, guard: &Guard) -> Result<String, Answer> {
        let named = request
            .headers()
            .get(OPERATOR)
            .and_then(|name| name.to_str().ok())
            .map(|name| clean(name, NAME_OCTETS_MAX))
            .filter(|name| !name.is_empty());
        let fallback = match guard {
            Guard::Socket(uid) => uid.map(|uid| format!("uid {uid}")),
            Guard::Token(file) => {
                let given = request.headers().get(AUTHORIZATION);
                let given = given.map(hyper::header::HeaderValue::as_bytes);
                check_token(file, given.unwrap_or_default()).await?;
                None
            }
        };
        Ok(named.or(fallback).unwrap_or_else(|| "unknown".into()))
    }

    async fn list(&self, query: Option<&str>) -> Answer {
        match serde_urlencoded::from_str::<Filter>(query.unwrap_or_default()) {
            Ok(filter) => answer::json(self.store.list(&filter).await),
            Err(error) => answer::error(&StoreError::Request(format!("query: {error}"))),
        }
    }

    async fn content(&self, id: &str) -> Answer {
        match self.store.show(id).await {
            Ok(detail) => answer::content(self.store.clone(), id.to_owned(), detail.entry.octets),
            Err(error) => answer::error(&error),
        }
    }

    async fn release(&self, id: &str, request: Request<Incoming>, by: &str) -> Answer {
        match body::<ReleaseRequest>(request).await {
            Ok(wanted) => answer::json(self.releaser.release(id, &wanted, by).await),
            Err(error) => answer::error(&error),
        }
    }

    async fn expire(&self) -> Result<Expired, StoreError> {
        let now = now_ms();
        let mut expired = 0;
        loop {
            let round = self.store.expire(now).await?;
            expired += u64::from(round);
            if round < crate::expire::ROUND_MAX {
                return Ok(Expired { expired });
            }
        }
    }
}

async fn check_token(file: &std::path::Path, given: &[u8]) -> Result<(), Answer> {
    let unusable = |message: String| {
        tracing::error!(file = %file.display(), message, "quarantine.api.tokenFile cannot be used");
        answer::refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "the token file cannot be used; the edge's log says why",
        )
    };
    let token = tokio::fs::read(file)
        .await
        .map_err(|error| unusable(error.to_string()))?;
    let token = token.trim_ascii();
    if token.len() < TOKEN_OCTETS_MIN {
        return Err(unusable(
            "the token has fewer than 16 octets; `openssl rand -hex 32` makes one".into(),
        ));
    }
    let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
    if bool::from(given.ct_eq(token)) {
        return Ok(());
    }
    Err(answer::refusal(
        StatusCode::UNAUTHORIZED,
        "give `Authorization: Bearer TOKEN` with the token of quarantine.api.tokenFile",
    ))
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, StoreError> {
    let limited = Limited::new(request.into_body(), BODY_OCTETS_MAX);
    let octets = limited
        .collect()
        .await
        .map_err(|error| StoreError::Request(format!("body: {error}")))?
        .to_bytes();
    let text: &[u8] = if octets.is_empty() { b"{}" } else { &octets };
    serde_json::from_slice(text).map_err(|error| StoreError::Request(format!("body: {error}")))
}

fn no_such_place() -> Answer {
    answer::refusal(
        StatusCode::NOT_FOUND,
        "no such place; docs/operate/quarantine.md lists the requests",
    )
}

impl Status for StoreError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Gone { .. } => StatusCode::GONE,
            Self::NotARecipient { .. } | Self::Request(_) => StatusCode::BAD_REQUEST,
            Self::AlreadyReleased { .. } | Self::UnderWay { .. } => StatusCode::CONFLICT,
            Self::Pending(_) => StatusCode::ACCEPTED,
            Self::Database(_)
            | Self::File { .. }
            | Self::Bucket(_)
            | Self::Config(_)
            | Self::Newer { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
