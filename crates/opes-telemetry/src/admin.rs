//! The admin server: `/metrics`, `/healthz`, `/readyz` over HTTP/1.
//!
//! Bounded in connections and in header time, so that a stray scanner on the admin port cannot hurt the mail path.
//! A failing connection ends alone; a failing `accept` is retried.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{Health, Registry};

/// Most connections served at once; more wait in the listen queue.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until dropped; dropping ends its connections.
pub async fn serve_admin(listener: TcpListener, registry: Registry, health: Health) {
    let slots = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let (registry, health) = (registry.clone(), health.clone());
                connections.spawn(async move {
                    serve_connection(stream, registry, health).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin connection not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, registry: Registry, health: Health) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &registry, &health);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn respond(
    method: &Method,
    path: &str,
    registry: &Registry,
    health: &Health,
) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refusal = text(
            StatusCode::METHOD_NOT_ALLOWED,
            PLAIN_TEXT,
            "only GET and HEAD\n",
        );
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match path {
        "/healthz" => text(StatusCode::OK, PLAIN_TEXT, "ok\n"),
        "/readyz" => match health.check() {
            Ok(()) => text(StatusCode::OK, PLAIN_TEXT, "ready\n"),
            Err(reasons) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                PLAIN_TEXT,
                reasons.to_string(),
            ),
        },
        "/metrics" => match registry.encode() {
            Ok(metrics) => text(StatusCode::OK, OPEN_METRICS, metrics),
            Err(_) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                PLAIN_TEXT,
                "a metric cannot be encoded\n",
            ),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            PLAIN_TEXT,
            "here are /metrics, /healthz and /readyz\n",
        ),
    }
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
