//! What is answered to which request. Pure, but for the figures.

use hyper::{Method, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::scaler::{Busy, METRIC, NoFigure};

/// The API that is served.
pub(super) const GROUP: &str = "external.metrics.k8s.io";
pub(super) const VERSION: &str = "v1beta1";
/// Label that says which service is asked about.
const SERVICE_LABEL: &str = "opes.dev/callout-service";
/// Longest query that is read; a selector of ours has some hundred octets.
const QUERY_OCTETS_MAX: usize = 8 << 10;

/// A status and a JSON document.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

pub(super) fn answer(busy: &Busy, method: &Method, path: &str, query: Option<&str>) -> Answer {
    if method != Method::GET {
        let code = StatusCode::METHOD_NOT_ALLOWED;
        return failure(code, "MethodNotAllowed", "metrics are read with GET");
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .take(8)
        .collect();
    match parts.as_slice() {
        ["apis"] => found(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})),
        ["apis", GROUP] => found(group()),
        ["apis", GROUP, VERSION] => found(resources()),
        ["apis", GROUP, VERSION, "namespaces", namespace, METRIC] => {
            values(busy, namespace, query.unwrap_or_default())
        }
        ["apis", GROUP, VERSION, "namespaces", _, metric] => failure(
            StatusCode::NOT_FOUND,
            "NotFound",
            &format!("there is no metric `{metric}`, only `{METRIC}`"),
        ),
        ["openapi", "v2"] => found(json!({
            "swagger": "2.0", "info": {"title": "OPES", "version": VERSION}, "paths": {},
        })),
        ["openapi", "v3"] => found(json!({"paths": {}})),
        _ => failure(StatusCode::NOT_FOUND, "NotFound", "there is nothing here"),
    }
}

fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": GROUP,
        "versions": [version], "preferredVersion": version,
    })
}

fn resources() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [{
            "name": METRIC, "singularName": "", "namespaced": true,
            "kind": "ExternalMetricValueList", "verbs": ["get"],
        }],
    })
}

fn values(busy: &Busy, namespace: &str, query: &str) -> Answer {
    let names = match selected(query) {
        Ok(Some(name)) => Ok(vec![name]),
        Ok(None) => busy.services(namespace),
        Err(reason) => return failure(StatusCode::BAD_REQUEST, "BadRequest", &reason),
    };
    let now = Time(Timestamp::now());
    let item = |name: String| {
        let figure = busy.figure(&format!("{namespace}/{name}"))?;
        Ok(json!({
            "metricName": METRIC, "metricLabels": {SERVICE_LABEL: name},
            "timestamp": now, "value": figure.to_string(),
        }))
    };
    let items: Result<Vec<Value>, NoFigure> =
        names.and_then(|names| names.into_iter().map(item).collect());
    match items {
        Ok(items) => found(json!({
            "kind": "ExternalMetricValueList", "apiVersion": format!("{GROUP}/{VERSION}"),
            "metadata": {}, "items": items,
        })),
        Err(error @ (NoFigure::TooEarly | NoFigure::NoEdges)) => failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            &error.to_string(),
        ),
        Err(error @ NoFigure::NoPool) => {
            failure(StatusCode::NOT_FOUND, "NotFound", &error.to_string())
        }
    }
}

/// The service that the selector names; none: all of the namespace.
fn selected(query: &str) -> Result<Option<String>, String> {
    if query.len() > QUERY_OCTETS_MAX {
        return Err("the query is too long".to_owned());
    }
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_str(query).map_err(|error| error.to_string())?;
    let selector = pairs.into_iter().find(|(name, _)| name == "labelSelector");
    let selector = selector.map(|(_, value)| value).unwrap_or_default();
    if selector.is_empty() {
        return Ok(None);
    }
    let unreadable =
        || format!("labelSelector: `{selector}` is not understood; write {SERVICE_LABEL}=NAME");
    let (label, name) = selector.split_once('=').ok_or_else(unreadable)?;
    let name = name.strip_prefix('=').unwrap_or(name).trim();
    let letter = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.');
    if label.trim() != SERVICE_LABEL || name.is_empty() || !name.bytes().all(letter) {
        return Err(unreadable());
    }
    Ok(Some(name.to_owned()))
}

fn found(body: Value) -> Answer {
    let status = StatusCode::OK;
    Answer { status, body }
}

fn failure(status: StatusCode, reason: &str, message: &str) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status.as_u16(),
    });
    Answer { status, body }
}

#[cfg(test)]
mod tests;
