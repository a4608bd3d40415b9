//! What the Prometheus Operator makes of monitors: a scrape configuration for each endpoint, with relabelling that keeps what is selected and
//! sets `job`, `namespace`, `service`, `pod`, `container`, `endpoint`.
//!
//! Fields that it does not know are an error, so that a chart that begins to use one is not tested without it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::discovery::{Files, sanitized};
use super::{of_kind, promql};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Monitor {
    selector: Selector,
    #[serde(default)]
    namespace_selector: Namespaces,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    #[serde(default)]
    pod_metrics_endpoints: Vec<Endpoint>,
    #[serde(default)]
    pod_target_labels: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    match_labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Namespaces {
    #[serde(default)]
    any: bool,
    #[serde(default)]
    match_names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Endpoint {
    port: String,
    interval: String,
    #[serde(default = "metrics")]
    path: String,
}

fn metrics() -> String {
    "/metrics".into()
}

/// What a kind of monitor looks at.
struct Kind {
    name: &'static str,
    job: &'static str,
    /// Of which the selector selects.
    labels: &'static str,
    port: &'static str,
}

const SERVICES: Kind = Kind {
    name: "ServiceMonitor",
    job: "serviceMonitor",
    labels: "service",
    port: "__meta_kubernetes_endpointslice_port_name",
};
const PODS: Kind = Kind {
    name: "PodMonitor",
    job: "podMonitor",
    labels: "pod",
    port: "__meta_kubernetes_pod_container_port_name",
};

/// How often the monitors want to look; all must want the same.
pub fn interval(objects: &[Value]) -> Result<Duration> {
    let mut found = Vec::new();
    for kind in [SERVICES, PODS] {
        for object in of_kind(objects, kind.name) {
            let monitor = read(object)?;
            let endpoints = monitor.endpoints.iter();
            for endpoint in endpoints.chain(&monitor.pod_metrics_endpoints) {
                found.push(promql::duration(&endpoint.interval)?);
            }
        }
    }
    found.dedup();
    ensure!(found.len() == 1, "intervals of monitors: {found:?}");
    found.first().copied().context("no monitor")
}

/// A scrape configuration for each endpoint of each monitor.
pub fn scrape_configs(objects: &[Value], files: &Files) -> Result<Vec<Value>> {
    let mut configs = Vec::new();
    for kind in [SERVICES, PODS] {
        for object in of_kind(objects, kind.name) {
            let namespace = text(&object["metadata"]["namespace"])?;
            let name = text(&object["metadata"]["name"])?;
            let monitor = read(object)?;
            let services = kind.name == SERVICES.name;
            let (endpoints, file) = if services {
                (&monitor.endpoints, &files.services)
            } else {
                (&monitor.pod_metrics_endpoints, &files.pods)
            };
            ensure!(!endpoints.is_empty(), "{name} has no endpoints");
            for (number, endpoint) in endpoints.iter().enumerate() {
                let mut relabel = kept(&kind, &monitor, endpoint, namespace);
                relabel.extend(labelled(services, &monitor, endpoint, namespace, name));
                configs.push(json!({
                    "job_name": format!("{}/{namespace}/{name}/{number}", kind.job),
                    "metrics_path": endpoint.path,
                    "file_sd_configs": [{"files": [file], "refresh_interval": "1s"}],
                    "relabel_configs": relabel,
                }));
            }
        }
    }
    Ok(configs)
}

fn read(object: &Value) -> Result<Monitor> {
    serde_json::from_value(object["spec"].clone())
        .with_context(|| format!("{} {}", object["kind"], object["metadata"]["name"]))
}

/// Which of all that is found are targets.
fn kept(kind: &Kind, monitor: &Monitor, endpoint: &Endpoint, namespace: &str) -> Vec<Value> {
    let mut relabel = Vec::new();
    for (label, value) in &monitor.selector.match_labels {
        let label = sanitized(label);
        relabel.push(json!({
            "action": "keep",
            "source_labels": [
                format!("__meta_kubernetes_{}_label_{label}", kind.labels),
                format!("__meta_kubernetes_{}_labelpresent_{label}", kind.labels),
            ],
            "regex": format!("({});true", exactly(value)),
        }));
    }
    relabel.push(
        json!({"action": "keep", "source_labels": [kind.port], "regex": exactly(&endpoint.port)}),
    );
    // The operator tells discovery in which namespaces to look; here it finds all.
    if !monitor.namespace_selector.any {
        let mut names = monitor.namespace_selector.match_names.clone();
        if names.is_empty() {
            names.push(namespace.to_owned());
        }
        let names: Vec<String> = names.iter().map(|name| exactly(name)).collect();
        relabel.push(json!({
            "action": "keep",
            "source_labels": ["__meta_kubernetes_namespace"],
            "regex": names.join("|"),
        }));
    }
    relabel.push(json!({
        "action": "drop",
        "source_labels": ["__meta_kubernetes_pod_phase"],
        "regex": "(Failed|Succeeded)",
    }));
    relabel
}

/// The labels of what is kept.
fn labelled(
    services: bool,
    monitor: &Monitor,
    endpoint: &Endpoint,
    namespace: &str,
    name: &str,
) -> Vec<Value> {
    let from =
        |source: &str, target: &str| json!({"source_labels": [source], "target_label": target});
    let mut relabel = vec![
        from("__meta_kubernetes_namespace", "namespace"),
        from("__meta_kubernetes_pod_container_name", "container"),
        from("__meta_kubernetes_pod_name", "pod"),
    ];
    for label in &monitor.pod_target_labels {
        let label = sanitized(label);
        relabel.push(json!({
            "source_labels": [format!("__meta_kubernetes_pod_label_{label}")],
            "regex": "(.+)",
            "target_label": label,
        }));
    }
    if services {
        relabel.push(from("__meta_kubernetes_service_name", "service"));
        relabel.push(from("__meta_kubernetes_service_name", "job"));
    } else {
        relabel.push(json!({"target_label": "job", "replacement": format!("{namespace}/{name}")}));
    }
    relabel.push(json!({"target_label": "endpoint", "replacement": endpoint.port}));
    relabel
}

/// A regular expression for this text alone; labels and names have no other special characters.
fn exactly(text: &str) -> String {
    text.replace('.', "\\.")
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("no text: {value}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn monitor(spec: &Value) -> [Value; 1] {
        [
            json!({"kind": "ServiceMonitor", "metadata": {"name": "opes", "namespace": "mail"}, "spec": spec}),
        ]
    }

    #[test]
    fn what_it_does_not_know_is_an_error() {
        let files = Files::new(Path::new("/nowhere"));
        let known = json!({"selector": {"matchLabels": {"a": "b"}}, "endpoints": [{"port": "admin", "interval": "30s"}]});
        let configs = scrape_configs(&monitor(&known), &files);
        assert!(configs.is_ok_and(|configs| configs.len() == 1));
        let mut unknown = known.clone();
        unknown["jobLabel"] = "x".into();
        let error = scrape_configs(&monitor(&unknown), &files).err();
        assert!(
            error.is_some_and(|error| format!("{error:#}").contains("jobLabel")),
            "taken"
        );
    }
}
