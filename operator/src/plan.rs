//! From an accepted `CalloutService` to the objects that the cluster should have for it.
//!
//! A pure function of the service, of `operator.yaml` and of what the cluster has; nothing in here asks anybody anything. Documents
//! hold the fields that the operator decides, and no others: with server-side apply the rest stays everybody else's. `replicas` is
//! among them only where nothing else scales.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use opes_rules::object::{API_VERSION, CalloutServiceSpec, PoolEngine};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::config::{Config, Enabled, Issuer};
use crate::endpoints::{OCP_PORT, has_tls, pool_name, server_name};
use crate::features::Features;
use crate::kinds::{Kind, MANAGED_BY, MANAGER, SERVICE_LABEL};
use crate::shared::CertificateWanted;

mod deployment;
mod network;
pub(crate) mod scaling;
#[cfg(test)]
mod tests;

/// Annotation with a hash of everything that was planned: what is not planned any more is seen to be missing from the plan.
pub const PLAN_HASH: &str = "opes.dev/plan-hash";
/// Annotation of a Deployment whose `replicas` the operator decides.
pub const FIXED_REPLICAS: &str = "opes.dev/fixed-replicas";
/// Port of `/metrics` and probes in every container.
const ADMIN_PORT: i32 = 9090;
/// Port that built-in services listen on.
const BUILTIN_PORT: i32 = 9000;

/// What a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// `operator.yaml`.
    pub config: &'a Config,
    /// Namespace of the operator and the edges.
    pub operator_namespace: &'a str,
    /// What the cluster has.
    pub features: Features,
    /// Namespace of the service.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// What it says.
    pub spec: &'a CalloutServiceSpec,
    /// When the certificate that KEDA shows for it ends; none: there is none yet, or KEDA shows none.
    pub certificate_end: Option<Timestamp>,
}

/// What the cluster should have for one service.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In the order in which they are applied.
    pub objects: Vec<Planned>,
    /// What the certificate keeper should make.
    pub certificate: Option<CertificateWanted>,
    /// What scales it.
    pub scaling: Scaling,
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The fields that the operator decides.
    pub document: Value,
}

/// What scales a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scaling {
    /// It is not run by the operator.
    #[default]
    NotOurs,
    /// Its HorizontalPodAutoscaler.
    Hpa,
    /// KEDA.
    Keda,
    /// Nothing, as its author says.
    Fixed,
    /// KEDA was asked for, and the cluster has none.
    KedaMissing,
    /// There is nothing to scale by: no load, no CPU.
    NoMetrics,
}

// === impl Plan ===

impl Plan {
    /// For this service.
    pub fn of(input: &Input<'_>) -> Self {
        if !input.spec.has_pods() {
            return Self::default();
        }
        let scaling = input.scaling();
        let mut objects = vec![service_account(input)];
        objects.extend(config_map(input));
        objects.push(service(input));
        objects.extend(network::policy(input));
        objects.extend(certificate_object(input));
        objects.push(deployment::plan(input, scaling));
        objects.push(disruption_budget(input));
        objects.extend(scaling::plan(input, scaling));
        for planned in &mut objects {
            planned.seal();
        }
        Self {
            objects,
            certificate: certificate(input),
            scaling,
        }
    }

    /// Is this object of the plan?
    pub fn has(&self, kind: Kind, name: &str) -> bool {
        self.objects
            .iter()
            .any(|planned| planned.kind == kind && planned.name == name)
    }
}

// === impl Input ===

impl Input<'_> {
    fn scaling(&self) -> Scaling {
        let cpu = self.features.cpu_metrics && self.spec.pool.target_cpu_percent > 0;
        match self.spec.pool.engine {
            PoolEngine::None => Scaling::Fixed,
            PoolEngine::Keda if self.features.keda => Scaling::Keda,
            PoolEngine::Keda => Scaling::KedaMissing,
            PoolEngine::Hpa if cpu || self.has_load() => Scaling::Hpa,
            PoolEngine::Hpa => Scaling::NoMetrics,
        }
    }

    /// HPAs can ask the operator for load.
    fn has_load(&self) -> bool {
        self.config.metrics_api.enabled == Enabled::Auto && !self.features.foreign_metrics
    }

    /// `opes-NAME`.
    fn full_name(&self) -> String {
        pool_name(self.name)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let own = [
            ("app.kubernetes.io/name", "opes-callout"),
            ("app.kubernetes.io/instance", self.name),
            ("app.kubernetes.io/component", "callout-service"),
        ];
        let mut labels: BTreeMap<String, String> = own
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        labels.extend(self.selector());
        labels
    }

    /// What pods are selected by: never changes.
    fn selector(&self) -> BTreeMap<String, String> {
        selector(self.name)
    }

    fn label_selector(&self) -> LabelSelector {
        LabelSelector {
            match_labels: Some(self.selector()),
            ..LabelSelector::default()
        }
    }

    fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: API_VERSION.into(),
            kind: Kind::CalloutService.name().into(),
            name: self.name.into(),
            uid: self.uid.into(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }

    fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.full_name()),
            namespace: Some(self.namespace.into()),
            labels: Some(self.labels()),
            owner_references: Some(vec![self.owner()]),
            ..ObjectMeta::default()
        }
    }

    fn planned(&self, kind: Kind, object: impl Serialize) -> Planned {
        Planned {
            kind,
            namespace: self.namespace.into(),
            name: self.full_name(),
            // These types hold nothing that JSON cannot say.
            document: serde_json::to_value(object).unwrap_or_default(),
        }
    }

    /// A kind that does not come with Kubernetes.
    fn planned_custom(&self, kind: Kind, spec: &Value) -> Planned {
        let document = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.name(),
            "metadata": self.metadata(),
            "spec": spec,
        });
        self.planned(kind, document)
    }

    fn tls_secret(&self) -> String {
        tls_secret(self.name)
    }

    /// The pods show a certificate, or KEDA does for them.
    fn needs_certificate(&self) -> bool {
        has_tls(self.spec) || self.scaling() == Scaling::Keda
    }

    /// Names of the certificate; the first is the Service's.
    fn dns_names(&self) -> Vec<String> {
        let mut names = vec![format!("{}.{}.svc", self.full_name(), self.namespace)];
        let asked = server_name(self.namespace, self.name, self.spec);
        // An address is no name, and a certificate of ours has none.
        if !names.contains(&asked) && asked.parse::<std::net::IpAddr>().is_err() {
            names.push(asked);
        }
        names
    }

    fn port(&self) -> i32 {
        self.spec
            .image
            .as_ref()
            .map_or(BUILTIN_PORT, |image| i32::from(image.port))
    }

    /// What `config.yaml` holds.
    fn configuration(&self) -> Option<String> {
        let builtin = self.spec.builtin.as_ref()?;
        serde_json::to_string_pretty(&builtin.config).ok()
    }
}

// === impl Planned ===

impl Planned {
    /// Writes the hash of the document into it.
    fn seal(&mut self) {
        let hash = hash(&self.document.to_string());
        if let Some(metadata) = self
            .document
            .get_mut("metadata")
            .and_then(Value::as_object_mut)
        {
            let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
            if let Some(annotations) = annotations.as_object_mut() {
                annotations.insert(PLAN_HASH.into(), hash.into());
            }
        }
    }
}

/// Name of the Secret with the certificate of a service.
pub fn tls_secret(service: &str) -> String {
    format!("{}-tls", pool_name(service))
}

/// What the pods of a service are selected by: never changes.
pub fn selector(service: &str) -> BTreeMap<String, String> {
    [(MANAGED_BY, MANAGER), (SERVICE_LABEL, service)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// 16 hexadecimal digits.
fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let octets = digest.iter().take(8);
    octets.fold(String::new(), |mut hex, octet| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{octet:02x}");
        hex
    })
}

fn service_account(input: &Input<'_>) -> Planned {
    let account = ServiceAccount {
        metadata: input.metadata(),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    input.planned(Kind::ServiceAccount, account)
}

fn config_map(input: &Input<'_>) -> Option<Planned> {
    let config = ConfigMap {
        metadata: input.metadata(),
        data: Some([("config.yaml".to_owned(), input.configuration()?)].into()),
        ..ConfigMap::default()
    };
    Some(input.planned(Kind::ConfigMap, config))
}

/// Headless: edges balance over the instances themselves.
fn service(input: &Input<'_>) -> Planned {
    let port = ServicePort {
        name: Some(OCP_PORT.into()),
        port: BUILTIN_PORT,
        target_port: Some(IntOrString::String(OCP_PORT.into())),
        protocol: Some("TCP".into()),
        app_protocol: Some(
            if has_tls(input.spec) {
                "https"
            } else {
                "kubernetes.io/h2c"
            }
            .into(),
        ),
        ..ServicePort::default()
    };
    let service = Service {
        metadata: input.metadata(),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            selector: Some(input.selector()),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    input.planned(Kind::Service, service)
}

fn disruption_budget(input: &Input<'_>) -> Planned {
    let least = i32::try_from(input.spec.pool.pdb.min_available).unwrap_or(i32::MAX);
    let budget = PodDisruptionBudget {
        metadata: input.metadata(),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(least)),
            selector: Some(input.label_selector()),
            // A pod that is not ready anyway must not keep a node from being emptied.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    };
    input.planned(Kind::PodDisruptionBudget, budget)
}

fn certificate(input: &Input<'_>) -> Option<CertificateWanted> {
    let ours = input.config.certificates.issuer == Issuer::Operator;
    (ours && input.needs_certificate()).then(|| CertificateWanted {
        namespace: input.namespace.into(),
        secret: input.tls_secret(),
        dns_names: input.dns_names(),
        owner: Some(input.owner()),
        labels: input.labels(),
    })
}

/// cert-manager makes it.
fn certificate_object(input: &Input<'_>) -> Option<Planned> {
    let certificates = &input.config.certificates;
    let issuer = certificates.issuer_ref.as_ref()?;
    if !input.needs_certificate() || !input.features.cert_manager {
        return None;
    }
    let seconds = certificates.lifetime.0.as_secs();
    let spec = json!({
        "secretName": input.tls_secret(),
        "secretTemplate": { "labels": input.labels() },
        "dnsNames": input.dns_names(),
        "duration": format!("{seconds}s"),
        "renewBefore": format!("{}s", seconds / 3),
        "privateKey": { "algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always" },
        "usages": ["digital signature", "server auth", "client auth"],
        "issuerRef": { "name": issuer.name, "kind": issuer.kind, "group": issuer.group },
    });
    Some(input.planned_custom(Kind::Certificate, &spec))
}
