//! Answers of the API.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::{Store, StoreError};

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, StoreError>>;

const JSON: &str = "application/json";

/// How an error is told.
pub(crate) trait Status {
    fn status(&self) -> StatusCode;
}

pub(crate) fn json<T: Serialize>(result: Result<T, StoreError>) -> Answer {
    match result {
        Ok(value) => match serde_json::to_vec(&value) {
            Ok(body) => whole(StatusCode::OK, JSON, body.into()),
            Err(failure) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_string()),
        },
        Err(failure) => error(&failure),
    }
}

pub(crate) fn error(error: &StoreError) -> Answer {
    refusal(error.status(), &error.to_string())
}

pub(crate) fn refusal(status: StatusCode, message: &str) -> Answer {
    let body = serde_json::json!({ "error": message }).to_string();
    whole(status, JSON, body.into())
}

/// Streams; the client sees from the length whether a read failed half-way.
pub(crate) fn content(store: Store, id: String, octets: u64) -> Answer {
    let parts = stream::try_unfold((store, id, 0), |(store, id, offset)| async move {
        let part = store.read(&id, offset).await?;
        let next = offset + part.len() as u64;
        Ok((!part.is_empty()).then(|| (Frame::data(part), (store, id, next))))
    });
    let mut answer = Response::new(StreamBody::new(parts).boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("message/rfc822"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(octets));
    answer
}

fn whole(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let body = Full::new(body)
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
