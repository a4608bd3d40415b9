//! The pool itself.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
    HTTPGetAction, Lifecycle, LifecycleHandler, LocalObjectReference,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, SleepAction,
    TCPSocketAction, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use opes_rules::object::{Mount, ResourceAmount};

use super::{ADMIN_PORT, FIXED_REPLICAS, Input, Planned, Scaling, hash};
use crate::endpoints::{OCP_PORT, has_tls};
use crate::kinds::Kind;

/// User and group in all images.
const USER: i64 = 65_532;
/// Edges have heard that it goes before it stops to answer.
const PRE_STOP_SECONDS: i64 = 5;
/// Owner and group may read: keys belong to the group of the pod.
const FILE_MODE: i32 = 0o440;
const CONFIG_FOLDER: &str = "/etc/opes/config";
const TLS_FOLDER: &str = "/etc/opes/tls";

pub(super) fn plan(input: &Input<'_>, scaling: Scaling) -> Planned {
    let replicas = replicas(input, scaling);
    let mut metadata = input.metadata();
    if replicas.is_some() {
        metadata.annotations = Some([(FIXED_REPLICAS.to_owned(), "true".to_owned())].into());
    }
    let deployment = Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas,
            selector: input.label_selector(),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::String("25%".into())),
                }),
            }),
            revision_history_limit: Some(5),
            template: template(input),
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    let mut planned = input.planned(Kind::Deployment, deployment);
    // An empty `status` or `strategy` of the type is nothing that we decide.
    if let Some(document) = planned.document.as_object_mut() {
        document.remove("status");
    }
    planned
}

/// None where something else scales.
fn replicas(input: &Input<'_>, scaling: Scaling) -> Option<i32> {
    let fixed = match scaling {
        Scaling::Fixed => input.spec.replicas.unwrap_or(input.spec.pool.min),
        Scaling::KedaMissing | Scaling::NoMetrics => input.spec.pool.min.max(1),
        Scaling::NotOurs | Scaling::Hpa | Scaling::Keda => return None,
    };
    Some(i32::try_from(fixed).unwrap_or(i32::MAX))
}

fn template(input: &Input<'_>) -> PodTemplateSpec {
    let pods = &input.config.pods;
    let own = &input.spec.pod;
    let mut labels = own.labels.clone();
    labels.extend(input.labels());
    let mut annotations = own.annotations.clone();
    if let Some(config) = input.configuration() {
        // Services read their configuration once.
        annotations.insert("opes.dev/config-hash".into(), hash(&config));
    }
    let named = |name: &String| LocalObjectReference { name: name.clone() };
    let secrets = input.config.images.pull_secrets.iter().map(named);
    let secrets: Vec<_> = secrets
        .chain(
            own.image_pull_secrets
                .iter()
                .map(|secret| named(&secret.name)),
        )
        .collect();
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(input.full_name()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: i64::try_from(pods.termination_grace.0.as_secs())
                .ok(),
            security_context: Some(pod_security()),
            containers: vec![container(input)],
            volumes: Some(volumes(input)),
            image_pull_secrets: (!secrets.is_empty()).then_some(secrets),
            node_selector: some(if own.node_selector.is_empty() {
                pods.node_selector.clone()
            } else {
                own.node_selector.clone()
            }),
            tolerations: (!pods.tolerations.is_empty()).then(|| pods.tolerations.clone()),
            priority_class_name: own
                .priority_class_name
                .clone()
                .or_else(|| pods.priority_class.clone()),
            topology_spread_constraints: Some(spread(input)),
            ..PodSpec::default()
        }),
    }
}

fn container(input: &Input<'_>) -> Container {
    let (image, command, mut arguments) = program(input);
    arguments.extend(input.spec.image.iter().flat_map(|image| image.args.clone()));
    let port = |name: &str, number| ContainerPort {
        name: Some(name.into()),
        container_port: number,
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    let mut ports = vec![port(OCP_PORT, input.port())];
    if input.spec.builtin.is_some() {
        ports.push(port("admin", ADMIN_PORT));
    }
    let probes = Probes::of(input);
    Container {
        name: "service".into(),
        image: Some(image),
        image_pull_policy: Some(input.config.images.pull_policy.name().into()),
        command,
        args: Some(arguments),
        ports: Some(ports),
        startup_probe: Some(probes.startup),
        liveness_probe: Some(probes.liveness),
        readiness_probe: Some(probes.readiness),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction {
                    seconds: PRE_STOP_SECONDS,
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        resources: Some(resources(input)),
        security_context: Some(container_security()),
        volume_mounts: Some(volume_mounts(input)),
        ..Container::default()
    }
}

/// Image, command and arguments. An image of somebody else takes the arguments that every program made with our SDK has.
fn program(input: &Input<'_>) -> (String, Option<Vec<String>>, Vec<String>) {
    let listen = format!("{}:{}", input.config.pods.listen, input.port());
    let mut arguments = vec!["--listen".to_owned(), listen];
    if has_tls(input.spec) {
        for (argument, file) in [
            ("--tls-certificate", "tls.crt"),
            ("--tls-key", "tls.key"),
            ("--tls-client-ca", "ca.crt"),
        ] {
            arguments.extend([argument.to_owned(), format!("{TLS_FOLDER}/{file}")]);
        }
    } else {
        arguments.push("--insecure-plaintext".into());
    }
    if let Some(image) = &input.spec.image {
        return (image.reference.clone(), None, arguments);
    }
    let name = input
        .spec
        .builtin
        .as_ref()
        .map_or("", |builtin| builtin.name.as_str());
    let admin = format!("{}:{ADMIN_PORT}", input.config.pods.listen);
    let more = [
        "--config",
        &format!("{CONFIG_FOLDER}/config.yaml"),
        "--admin",
        &admin,
        "--log-format",
        "json",
    ];
    arguments.extend(more.map(str::to_owned));
    (
        input.config.image(name),
        Some(vec![format!("/usr/bin/opes-{name}")]),
        arguments,
    )
}

/// Startup: it has come up. Liveness: it answers at all. Readiness: it takes transactions.
struct Probes {
    startup: Probe,
    liveness: Probe,
    readiness: Probe,
}

impl Probes {
    fn of(input: &Input<'_>) -> Self {
        let builtin = input.spec.builtin.is_some();
        let probe = |path: &str, period, failures| Probe {
            http_get: builtin.then(|| HTTPGetAction {
                path: Some(path.into()),
                port: IntOrString::String("admin".into()),
                ..HTTPGetAction::default()
            }),
            // Nothing more is known of somebody else's image than that it listens.
            tcp_socket: (!builtin).then(|| TCPSocketAction {
                port: IntOrString::String(OCP_PORT.into()),
                host: None,
            }),
            period_seconds: Some(period),
            timeout_seconds: Some(2),
            failure_threshold: Some(failures),
            ..Probe::default()
        };
        Self {
            startup: probe("/healthz", 1, 120),
            liveness: probe("/healthz", 10, 6),
            readiness: probe("/readyz", 2, 2),
        }
    }
}

fn resources(input: &Input<'_>) -> ResourceRequirements {
    let own = &input.spec.pod.resources;
    let defaults = &input.config.pods.resources;
    let amounts = |own: &BTreeMap<String, ResourceAmount>,
                   default: &Option<BTreeMap<String, Quantity>>| {
        if own.is_empty() {
            return default.clone();
        }
        let amounts = own
            .iter()
            .map(|(name, amount)| (name.clone(), Quantity(amount.as_str().to_owned())));
        Some(amounts.collect())
    };
    ResourceRequirements {
        requests: amounts(&own.requests, &defaults.requests),
        limits: amounts(&own.limits, &defaults.limits),
        claims: None,
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".into()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".into(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".into()]),
            add: None,
        }),
        ..SecurityContext::default()
    }
}

fn spread(input: &Input<'_>) -> Vec<TopologySpreadConstraint> {
    ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        .map(|key| TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.into(),
            when_unsatisfiable: "ScheduleAnyway".into(),
            label_selector: Some(input.label_selector()),
            match_label_keys: Some(vec!["pod-template-hash".into()]),
            ..TopologySpreadConstraint::default()
        })
        .into()
}

fn volumes(input: &Input<'_>) -> Vec<Volume> {
    let named = |name: &str| Volume {
        name: name.into(),
        ..Volume::default()
    };
    let mut volumes = vec![Volume {
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..named("tmp")
    }];
    if input.spec.builtin.is_some() {
        let config_map = ConfigMapVolumeSource {
            name: input.full_name(),
            default_mode: Some(FILE_MODE),
            ..ConfigMapVolumeSource::default()
        };
        volumes.push(Volume {
            config_map: Some(config_map),
            ..named("config")
        });
    }
    if has_tls(input.spec) {
        let secret = SecretVolumeSource {
            secret_name: Some(input.tls_secret()),
            default_mode: Some(FILE_MODE),
            ..SecretVolumeSource::default()
        };
        volumes.push(Volume {
            secret: Some(secret),
            ..named("tls")
        });
    }
    let own = input.spec.pod.mounts.iter().enumerate();
    volumes.extend(own.map(|(at, mount)| own_volume(at, mount)));
    volumes
}

fn own_volume(at: usize, mount: &Mount) -> Volume {
    Volume {
        name: format!("mount-{at}"),
        secret: mount.secret.as_ref().map(|name| SecretVolumeSource {
            secret_name: Some(name.clone()),
            default_mode: Some(FILE_MODE),
            ..SecretVolumeSource::default()
        }),
        config_map: mount.config_map.as_ref().map(|name| ConfigMapVolumeSource {
            name: name.clone(),
            default_mode: Some(FILE_MODE),
            ..ConfigMapVolumeSource::default()
        }),
        persistent_volume_claim: mount.persistent_volume_claim.as_ref().map(|name| {
            PersistentVolumeClaimVolumeSource {
                claim_name: name.clone(),
                read_only: Some(mount.read_only),
            }
        }),
        ..Volume::default()
    }
}

fn volume_mounts(input: &Input<'_>) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    };
    let mut mounts = vec![mount("tmp", "/tmp", false)];
    if input.spec.builtin.is_some() {
        mounts.push(mount("config", CONFIG_FOLDER, true));
    }
    if has_tls(input.spec) {
        mounts.push(mount("tls", TLS_FOLDER, true));
    }
    let own = input.spec.pod.mounts.iter().enumerate();
    mounts.extend(own.map(|(at, own)| mount(&format!("mount-{at}"), &own.path, own.read_only)));
    mounts
}

fn some(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then_some(map)
}
