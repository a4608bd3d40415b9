//! What there is in a cluster to look at, with the labels that Prometheus' own discovery for Kubernetes gives it (roles `endpointslice` and
//! `pod`), as files that Prometheus reads.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, ObjectMeta};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(500);

/// On an EndpointSlice: the Service that it belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where it is written what was found.
#[derive(Debug, Clone)]
pub struct Files {
    /// Ports of the endpoints of services.
    pub services: PathBuf,
    /// Ports of containers.
    pub pods: PathBuf,
}

type Labels = BTreeMap<String, String>;

// === impl Files ===

impl Files {
    /// Both in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            services: folder.join("services.json"),
            pods: folder.join("pods.json"),
        }
    }
}

/// Writes the files once, and again whenever something has changed, until the task is aborted.
pub async fn keep(client: Client, files: Files) -> Result<JoinHandle<()>> {
    let mut written = [Value::Null, Value::Null];
    write(&files, look(&client).await?, &mut written)?;
    Ok(tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            // An API server that does not answer leaves Prometheus with what it knows, as its own discovery would.
            if let Ok(found) = look(&client).await {
                let _ = write(&files, found, &mut written);
            }
        }
    }))
}

fn write(files: &Files, found: [Value; 2], written: &mut [Value; 2]) -> Result<()> {
    if *written != found {
        for (file, value) in [&files.services, &files.pods].into_iter().zip(&found) {
            let new = file.with_extension("new");
            fs::write(&new, value.to_string())?;
            fs::rename(new, file)?;
        }
        *written = found;
    }
    Ok(())
}

async fn look(client: &Client) -> Result<[Value; 2]> {
    let all = ListParams::default();
    let slices = Api::<EndpointSlice>::all(client.clone()).list(&all).await?;
    let services = Api::<Service>::all(client.clone()).list(&all).await?;
    let pods = Api::<Pod>::all(client.clone()).list(&all).await?;
    let by_service: BTreeMap<_, _> = services.iter().map(|it| (key(&it.metadata), it)).collect();
    let by_pod: BTreeMap<_, _> = pods.iter().map(|it| (key(&it.metadata), it)).collect();
    let mut endpoints = Vec::new();
    for slice in &slices {
        let Some(service) = slice.labels().get(SERVICE_NAME) else {
            continue;
        };
        let namespace = slice.namespace().unwrap_or_default();
        let service = by_service.get(&(namespace.clone(), service.clone()));
        endpoints.extend(of_slice(slice, service.copied(), &by_pod));
    }
    let containers = pods.iter().flat_map(of_pod).collect();
    Ok([Value::Array(endpoints), Value::Array(containers)])
}

fn key(metadata: &ObjectMeta) -> (String, String) {
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

/// Each address with each port.
fn of_slice(
    slice: &EndpointSlice,
    service: Option<&Service>,
    pods: &BTreeMap<(String, String), &Pod>,
) -> Vec<Value> {
    let namespace = slice.namespace().unwrap_or_default();
    let mut found = Vec::new();
    for endpoint in &slice.endpoints {
        let target = endpoint.target_ref.clone().unwrap_or_default();
        let kind = target.kind.unwrap_or_default();
        let name = target.name.unwrap_or_default();
        let pod = pods.get(&(namespace.clone(), name.clone()));
        let pod = pod.filter(|_| kind == "Pod");
        for port in slice.ports.iter().flatten() {
            let (Some(number), Some(address)) = (port.port, endpoint.addresses.first()) else {
                continue;
            };
            let mut labels = meta("namespace", &namespace);
            labels.extend(meta("endpointslice_address_target_kind", &kind));
            labels.extend(meta("endpointslice_address_target_name", &name));
            let port = port.name.as_deref().unwrap_or_default();
            labels.extend(meta("endpointslice_port_name", port));
            if let Some(service) = service {
                labels.extend(meta("service_name", &service.name_any()));
                labels.extend(labels_of("service", &service.metadata));
            }
            if let Some(pod) = pod {
                labels.extend(of_any_pod(pod));
                labels.extend(meta("pod_container_name", container_of(pod, number)));
            }
            found.push(group(address, number, &labels));
        }
    }
    found
}

/// The container that has declared a port, empty if none has.
fn container_of(pod: &Pod, port: i32) -> &str {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let found = containers.find(|container| {
        let mut ports = container.ports.iter().flatten();
        ports.any(|it| it.container_port == port)
    });
    found.map_or("", |container| container.name.as_str())
}

/// Each port of each container, once the pod has an address.
fn of_pod(pod: &Pod) -> Vec<Value> {
    let status = pod.status.as_ref();
    let Some(address) = status.and_then(|status| status.pod_ip.as_ref()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
        for port in container.ports.iter().flatten() {
            let mut labels = meta("namespace", &pod.namespace().unwrap_or_default());
            labels.extend(of_any_pod(pod));
            labels.extend(meta("pod_container_name", &container.name));
            labels.extend(meta(
                "pod_container_port_name",
                port.name.as_deref().unwrap_or_default(),
            ));
            found.push(group(address, port.container_port, &labels));
        }
    }
    found
}

fn of_any_pod(pod: &Pod) -> Labels {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let mut labels = labels_of("pod", &pod.metadata);
    labels.extend(meta("pod_name", &pod.name_any()));
    labels.extend(meta("pod_phase", phase.unwrap_or_default()));
    labels
}

fn labels_of(kind: &str, metadata: &ObjectMeta) -> Labels {
    let mut labels = Labels::new();
    for (name, value) in metadata.labels.iter().flatten() {
        let name = sanitized(name);
        labels.extend(meta(&format!("{kind}_label_{name}"), value));
        labels.extend(meta(&format!("{kind}_labelpresent_{name}"), "true"));
    }
    labels
}

fn meta(name: &str, value: &str) -> Labels {
    [(format!("__meta_kubernetes_{name}"), value.to_owned())].into()
}

fn group(address: &str, port: i32, labels: &Labels) -> Value {
    let address = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    json!({"targets": [format!("{address}:{port}")], "labels": labels})
}

/// A Kubernetes label as part of a label of Prometheus.
pub(super) fn sanitized(label: &str) -> String {
    label
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}
