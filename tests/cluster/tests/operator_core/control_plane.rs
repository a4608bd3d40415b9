//! Tests that need no more than a control plane.

use std::time::Duration;

use anyhow::Result;
use kube::api::DynamicObject;
use opes_cluster::eventually;
use opes_operator::kinds::Kind;

use crate::bed::{self, Bed};

mod conditions;
mod keda;
mod pools;
mod replicas;
mod rights;
mod scale;

pub(crate) const RULE: Kind = Kind::OpesRule;
pub(crate) const SERVICE: Kind = Kind::CalloutService;

pub(crate) const ACCEPTS: &str =
    "{ at: [rcptTo], match: { recipientDomains: [example.com] }, action: { accept: {} } }";
pub(crate) const REJECTS: &str = "{ at: [rcptTo], match: { recipientDomains: [example.com] }, action: { reject: { text: moved } } }";
pub(crate) const ELSEWHERE: &str = "{ class: adapt, endpoint: 'https://filter.example.com:9000' }";

pub(crate) const POOL: &str =
    "{ class: adapt, builtin: { name: normalizer, config: { domain: example.com } } }";

pub(crate) fn calls(service: &str) -> String {
    format!(
        "{{ at: [content], callout: {{ serviceRef: {{ name: {service} }}, onFailure: tempfail }} }}"
    )
}

/// Waits for an object, and for something to be so of it.
pub(crate) async fn until(
    bed: &Bed<'_>,
    kind: Kind,
    name: &str,
    within: Duration,
    is: impl Fn(&DynamicObject) -> bool,
) -> Result<DynamicObject> {
    let api = bed.api(kind)?;
    eventually(&format!("{} {name}", kind.name()), within, || async {
        Ok(api.get_opt(name).await?.filter(|object| is(object)))
    })
    .await
}

/// Not a test of its own: [`Bed::process`] runs it.
#[tokio::test]
async fn an_operator_that_can_be_killed() -> Result<()> {
    bed::be_a_process().await
}
