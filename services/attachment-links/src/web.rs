//! The web server: a page for each link, and the file behind it.
//!
//! `BASE/TOKEN` is the page, `BASE/TOKEN/file` the file. A page is looked at by scanners and previews of all kinds, so it counts as nothing; a file
//! is always for saving, never for showing: its type is not told to the browser. Answers are private and not kept anywhere. A token is judged
//! before the store is asked. HTTP in the clear: TLS ends before it, at an ingress.

mod connection;
mod page;
mod range;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use opes_host::Clock;

use crate::link::{Key, Keys, Refusal};
use crate::metrics::{Metrics, Request};
use crate::names;
use crate::store::{About, READ_OCTETS_MAX, Store, StoreError};
use range::Asked;

/// What an answer consists of.
pub type Body = UnsyncBoxBody<Bytes, StoreError>;

/// Seconds after which a client may try again when the store is away.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("30");

/// What every answer says.
const ALWAYS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "private, no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
];

/// The web server; clones share it.
#[derive(Debug, Clone)]
pub struct Web(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    keys: Keys,
    /// Path of the base URL, without a slash at its end.
    base: String,
    clock: Clock,
    metrics: Metrics,
}

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted<'a> {
    Page(&'a str),
    File(&'a str),
}

// === impl Web ===

impl Web {
    pub(crate) fn new(
        store: Store,
        keys: Keys,
        base_url: &str,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let authority = base_url.split_once("://").map_or("", |(_, rest)| rest);
        let base = authority.find('/').and_then(|at| authority.get(at..));
        Self(Arc::new(Inner {
            store,
            keys,
            base: base.unwrap_or_default().to_owned(),
            clock,
            metrics,
        }))
    }

    /// The answer to a request.
    pub async fn respond(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Response<Body> {
        let mut response = if matches!(*method, Method::GET | Method::HEAD) {
            self.0.get(path, headers, *method == Method::HEAD).await
        } else {
            let mut refusal = told(StatusCode::METHOD_NOT_ALLOWED, &page::WRONG_METHOD);
            let allowed = HeaderValue::from_static("GET, HEAD");
            refusal.headers_mut().insert(header::ALLOW, allowed);
            refusal
        };
        for (name, value) in ALWAYS {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

// === impl Inner ===

impl Inner {
    async fn get(&self, path: &str, headers: &HeaderMap, head_only: bool) -> Response<Body> {
        let Some(wanted) = self.wanted(path) else {
            return self.refused(Refusal::Unknown);
        };
        let (Wanted::Page(token) | Wanted::File(token)) = wanted;
        let key = match self.keys.verify(token, self.clock.since_epoch().as_secs()) {
            Ok(key) => key,
            Err(refusal) => return self.refused(refusal),
        };
        let about = match self.store.about(key).await {
            Ok(Some(about)) => about,
            Ok(None) => return self.refused(Refusal::Unknown),
            Err(error) => return self.unavailable(&error),
        };
        match wanted {
            Wanted::Page(token) => {
                self.metrics.answered(Request::Page);
                page(StatusCode::OK, page::file(token, key, &about))
            }
            Wanted::File(_) => self.file(key, &about, headers, head_only),
        }
    }

    fn wanted<'a>(&self, path: &'a str) -> Option<Wanted<'a>> {
        let rest = path.strip_prefix(self.base.as_str())?.strip_prefix('/')?;
        match rest.split_once('/') {
            None => Some(Wanted::Page(rest)),
            Some((token, "file")) => Some(Wanted::File(token)),
            Some(_) => None,
        }
    }

    fn refused(&self, refusal: Refusal) -> Response<Body> {
        match refusal {
            Refusal::Unknown => {
                self.metrics.answered(Request::Unknown);
                told(StatusCode::NOT_FOUND, &page::UNKNOWN)
            }
            Refusal::Expired(_) => {
                self.metrics.answered(Request::Expired);
                told(StatusCode::GONE, &page::EXPIRED)
            }
        }
    }

    fn unavailable(&self, error: &StoreError) -> Response<Body> {
        tracing::warn!(%error, "a file cannot be shown");
        self.metrics.answered(Request::Unavailable);
        let mut response = told(StatusCode::SERVICE_UNAVAILABLE, &page::UNAVAILABLE);
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, RETRY_AFTER);
        response
    }

    fn file(
        &self,
        key: Key,
        about: &About,
        headers: &HeaderMap,
        head_only: bool,
    ) -> Response<Body> {
        let etag = format!("\"{}\"", about.sha256);
        let (status, range) = match range::asked(headers, &etag, about.size) {
            Asked::All => (StatusCode::OK, 0..about.size),
            Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Asked::Nothing => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
        };
        let length = range.end - range.start;
        let body = if head_only || range.is_empty() {
            empty()
        } else {
            self.metrics.answered(if length == about.size {
                Request::File
            } else {
                Request::Range
            });
            self.octets(key, range.clone())
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let fields = [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (
                header::CONTENT_DISPOSITION,
                names::content_disposition(&about.name),
            ),
            (
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; sandbox".to_owned(),
            ),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::CONTENT_LENGTH, length.to_string()),
            (header::ETAG, etag),
        ];
        let content_range = match status {
            StatusCode::PARTIAL_CONTENT => Some(format!(
                "bytes {}-{}/{}",
                range.start,
                range.end - 1,
                about.size
            )),
            StatusCode::RANGE_NOT_SATISFIABLE => Some(format!("bytes */{}", about.size)),
            _ => None,
        };
        let content_range = content_range.map(|value| (header::CONTENT_RANGE, value));
        for (name, value) in fields.into_iter().chain(content_range) {
            // All of them are US-ASCII without controls.
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    /// Read as they are sent: one piece at a time is in memory.
    fn octets(&self, key: Key, range: Range<u64>) -> Body {
        let (store, metrics) = (self.store.clone(), self.metrics.clone());
        let pieces = stream::try_unfold(range, move |range| {
            let (store, metrics) = (store.clone(), metrics.clone());
            async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let end = range.end.min(range.start + READ_OCTETS_MAX);
                let read = store.read(key, range.start..end).await;
                let octets = read.inspect_err(|error| {
                    tracing::warn!(%error, "a download was broken off");
                })?;
                metrics.sent(octets.len() as u64);
                Ok(Some((Frame::data(octets), end..range.end)))
            }
        });
        StreamBody::new(pieces).boxed_unsync()
    }
}

fn empty() -> Body {
    Full::default()
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn told(status: StatusCode, text: &page::Text) -> Response<Body> {
    page(status, page::message(text))
}

fn page(status: StatusCode, html: String) -> Response<Body> {
    let body = Full::new(Bytes::from(html)).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let fields = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, page::POLICY),
    ];
    for (name, value) in fields {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests;
