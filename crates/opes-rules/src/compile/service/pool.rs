//! What the operator is asked to run: sizes of the pool, and the pods.

use super::Report;
use crate::object::{CalloutServiceSpec, Mount, PodSettings, PoolEngine};
use std::collections::BTreeMap;
use std::time::Duration;

/// Most instances of a service.
const INSTANCES_MAX: u32 = 10_000;
/// Largest aim for CPU use in percent: ten cores for each that is requested.
const CPU_PERCENT_MAX: u32 = 1_000;
/// Longest wait before there are fewer instances, as an HPA has it.
const SCALE_DOWN_MAX: Duration = Duration::from_hours(1);
/// Most entries of each map and list of `spec.pod`.
const ENTRIES_MAX: usize = 64;
/// Longest value of an annotation in octets.
const ANNOTATION_OCTETS_MAX: usize = 4_096;
/// Longest path of a mount in octets.
const PATH_OCTETS_MAX: usize = 512;
/// Longest name of a label and longest value of one (Kubernetes: "Labels and Selectors").
const LABEL_OCTETS_MAX: usize = 63;

pub(super) fn check(spec: &CalloutServiceSpec, report: &mut Report<'_>) {
    check_size(spec, report);
    check_replicas(spec, report);
    if spec.pod != PodSettings::default() && !spec.has_pods() {
        let message = "there are no pods to be run: the service has endpoints";
        report.error("spec.pod", message, "remove it, or write builtin or image");
    }
    check_pod(&spec.pod, report);
}

fn check_size(spec: &CalloutServiceSpec, report: &mut Report<'_>) {
    let pool = &spec.pool;
    if pool.min == 0 && pool.engine != PoolEngine::Keda {
        let remedy = "write 1 or more, or engine: keda, which can scale to zero";
        report.error(
            "spec.pool.min",
            "a service without instances fails every message",
            remedy,
        );
    }
    if pool.max < pool.min || pool.max > INSTANCES_MAX {
        let message = format!(
            "{} is not between min ({}) and {INSTANCES_MAX}",
            pool.max, pool.min
        );
        report.error("spec.pool.max", message, "");
    } else if pool.max == 0 {
        let message = "a service that never has an instance fails every message";
        report.error("spec.pool.max", message, "write 1 or more");
    }
    if pool.target_in_flight == 0 {
        report.error(
            "spec.pool.targetInFlight",
            "0 would scale without end",
            "write 1 or more",
        );
    }
    if pool.target_cpu_percent > CPU_PERCENT_MAX {
        let message = format!(
            "{} is not between 0 and {CPU_PERCENT_MAX} percent of what a pod requests",
            pool.target_cpu_percent
        );
        report.error(
            "spec.pool.targetCpuPercent",
            message,
            "write 0 if CPU must not be looked at",
        );
    }
    if pool.scale_down_after.0 > SCALE_DOWN_MAX {
        let message = format!("{} is more than 1h", pool.scale_down_after);
        report.error("spec.pool.scaleDownAfter", message, "write 5m");
    }
    if pool.pdb.min_available > pool.max {
        report.error("spec.pool.pdb.minAvailable", "is more than max", "");
    }
}

fn check_replicas(spec: &CalloutServiceSpec, report: &mut Report<'_>) {
    let Some(replicas) = spec.replicas else {
        return;
    };
    if spec.pool.engine != PoolEngine::None {
        let message = "something else scales this pool";
        let remedy = "write pool: { engine: none }, or remove replicas and set pool.min";
        report.error("spec.replicas", message, remedy);
    } else if !spec.has_pods() {
        let message = "there are no pods to be run: the service has endpoints";
        report.error("spec.replicas", message, "remove it");
    } else if !(1..=INSTANCES_MAX).contains(&replicas) {
        let message = format!("{replicas} is not between 1 and {INSTANCES_MAX}");
        let remedy = "a service without instances fails every message";
        report.error("spec.replicas", message, remedy);
    }
}

fn check_pod(pod: &PodSettings, report: &mut Report<'_>) {
    for (field, entries) in [
        ("resources.requests", pod.resources.requests.len()),
        ("resources.limits", pod.resources.limits.len()),
        ("nodeSelector", pod.node_selector.len()),
        ("imagePullSecrets", pod.image_pull_secrets.len()),
        ("mounts", pod.mounts.len()),
        ("annotations", pod.annotations.len()),
        ("labels", pod.labels.len()),
    ] {
        if entries > ENTRIES_MAX {
            let message = format!("{entries} entries are more than the {ENTRIES_MAX} allowed");
            report.error(format!("spec.pod.{field}"), message, "");
        }
    }
    check_resources(pod, report);
    check_labels("nodeSelector", &pod.node_selector, &[], report);
    check_labels(
        "labels",
        &pod.labels,
        &["opes.dev", "app.kubernetes.io"],
        report,
    );
    check_annotations(&pod.annotations, report);
    if let Some(name) = &pod.priority_class_name {
        check_name("priorityClassName", name, report);
    }
    for (at, secret) in pod.image_pull_secrets.iter().enumerate() {
        check_name(
            &format!("imagePullSecrets[{at}].name"),
            &secret.name,
            report,
        );
    }
    for (at, mount) in pod.mounts.iter().enumerate() {
        let earlier = pod.mounts.iter().take(at);
        check_mount(at, mount, report);
        if earlier.into_iter().any(|other| other.path == mount.path) {
            let message = format!("`{}` stands there twice", mount.path);
            report.error(
                format!("spec.pod.mounts[{at}].path"),
                message,
                "mount each at a path of its own",
            );
        }
    }
}

fn check_resources(pod: &PodSettings, report: &mut Report<'_>) {
    for (field, amounts) in [
        ("requests", &pod.resources.requests),
        ("limits", &pod.resources.limits),
    ] {
        for name in amounts.keys().filter(|name| !is_label_key(name)) {
            let message = format!("`{name}` is not the name of a resource");
            report.error(
                format!("spec.pod.resources.{field}"),
                message,
                "write cpu or memory",
            );
        }
    }
}

fn check_labels(
    field: &str,
    labels: &BTreeMap<String, String>,
    reserved: &[&str],
    report: &mut Report<'_>,
) {
    for (key, value) in labels {
        check_key(field, key, reserved, report);
        let letters = |b: &u8| b.is_ascii_alphanumeric();
        let bytes = value.as_bytes();
        let edges = bytes.first().is_none_or(letters) && bytes.last().is_none_or(letters);
        let inner = |b: &u8| letters(b) || matches!(b, b'-' | b'_' | b'.');
        if !edges || !bytes.iter().all(inner) || bytes.len() > LABEL_OCTETS_MAX {
            let message = format!("`{value}` is not the value of a label");
            let remedy = "write up to 63 letters, digits, `-`, `_` and `.`";
            report.error(format!("spec.pod.{field}"), message, remedy);
        }
    }
}

fn check_annotations(annotations: &BTreeMap<String, String>, report: &mut Report<'_>) {
    for (key, value) in annotations {
        check_key("annotations", key, &["opes.dev"], report);
        if value.len() > ANNOTATION_OCTETS_MAX {
            let message = format!(
                "the value of `{key}` has {} octets, more than the {ANNOTATION_OCTETS_MAX} allowed",
                value.len()
            );
            report.error("spec.pod.annotations", message, "");
        }
    }
}

fn check_key(field: &str, key: &str, reserved: &[&str], report: &mut Report<'_>) {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    if !is_label_key(key) {
        let message = format!("`{key}` is not a key");
        let remedy = "write team or example.com/team";
        report.error(format!("spec.pod.{field}"), message, remedy);
    } else if reserved.contains(&prefix) {
        let message = format!("`{key}` is the operator's");
        report.error(
            format!("spec.pod.{field}"),
            message,
            "use a prefix of your own",
        );
    }
}

/// `name`, or `dns.subdomain/name`.
fn is_label_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let letters = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    prefix.is_none_or(super::super::is_object_name)
        && letters(bytes.first())
        && letters(bytes.last())
        && bytes.len() <= LABEL_OCTETS_MAX
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn check_name(field: &str, name: &str, report: &mut Report<'_>) {
    if !super::super::is_object_name(name) {
        let message = format!("`{name}` is not a name");
        let remedy = "write lower case letters, digits, `-` and `.`";
        report.error(format!("spec.pod.{field}"), message, remedy);
    }
}

fn check_mount(at: usize, mount: &Mount, report: &mut Report<'_>) {
    let given = [
        ("secret", &mount.secret),
        ("configMap", &mount.config_map),
        ("persistentVolumeClaim", &mount.persistent_volume_claim),
    ];
    let named: Vec<(&str, &String)> = given
        .iter()
        .filter_map(|(field, name)| name.as_ref().map(|name| (*field, name)))
        .collect();
    for (field, name) in &named {
        check_name(&format!("mounts[{at}].{field}"), name, report);
    }
    if named.len() != 1 {
        let message = format!(
            "exactly one of secret, configMap and persistentVolumeClaim is needed, found {}",
            named.len()
        );
        report.error(
            format!("spec.pod.mounts[{at}]"),
            message,
            "write one entry for each",
        );
    }
    if !mount.read_only && mount.persistent_volume_claim.is_none() {
        let message = "a Secret and a ConfigMap cannot be written to";
        report.error(
            format!("spec.pod.mounts[{at}].readOnly"),
            message,
            "remove it",
        );
    }
    if !is_mount_path(&mount.path) {
        let message = format!("`{}` is not a path that can be mounted", mount.path);
        let remedy = "write an absolute path without `..` and `:`, as /etc/filter";
        report.error(format!("spec.pod.mounts[{at}].path"), message, remedy);
    }
}

fn is_mount_path(path: &str) -> bool {
    let inner = path.strip_prefix('/').unwrap_or_default();
    !inner.is_empty()
        && path.len() <= PATH_OCTETS_MAX
        && !path.contains(':')
        && !path.contains(char::is_control)
        && inner
            .split('/')
            .all(|part| !matches!(part, "" | "." | ".."))
}
