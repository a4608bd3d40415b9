//! `operator.yaml`: what the operator is told at its start. Every field is described in `docs/operate/operator-config.md`.
//!
//! Nothing is guessed: an unknown field, a port that is none and a contradiction are errors that name the field and the remedy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort};
use opes_rules::object::HumanDuration;
use serde::Deserialize;

mod defaults;
#[cfg(test)]
mod tests;

/// Most namespaces that are watched one by one; more are better watched all together.
const NAMESPACES_MAX: usize = 64;
/// Most tenants.
const TENANTS_MAX: usize = 10_000;
/// Label of the namespace that an object of the cluster is in.
const LABEL_OCTETS_MAX: usize = 63;

/// What stands in `operator.yaml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Where rules and services are looked for.
    pub watch: Watch,
    /// Name of the operator's own Service.
    pub service: String,
    /// Where images come from.
    pub images: Images,
    /// The stream that edges follow.
    pub routing: Listen,
    /// Load of pools, for HPAs.
    pub metrics_api: MetricsApi,
    /// `/metrics`, `/healthz`, `/readyz`.
    pub admin: Admin,
    /// Who signs certificates.
    pub certificates: Certificates,
    /// What has to be known of the edges.
    pub edge: EdgeConfig,
    /// Which namespace may do something with the mail of which domains; none: every namespace with everything.
    pub tenants: Vec<Tenant>,
    /// What all pods of callout services have in common.
    pub pods: Pods,
    /// Who may speak with the pods, and with whom they may.
    pub network_policy: Network,
}

/// Which namespaces are watched.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Watch {
    /// Empty: all of them, which needs a ClusterRole. Otherwise Roles in these are enough.
    pub namespaces: Vec<String>,
}

/// Images of the built-in services.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Images {
    /// Registry and path before `opes-NAME`; empty: none.
    pub registry: String,
    /// Tag of all of them; the operator's own version if absent.
    pub tag: String,
    /// Digest in place of the tag, by name of the service.
    pub digests: BTreeMap<String, String>,
    /// When the node asks the registry.
    pub pull_policy: PullPolicy,
    /// Names of Secrets for the registry, in the namespace of each service.
    pub pull_secrets: Vec<String>,
}

/// When the node asks the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum PullPolicy {
    /// Every time.
    Always,
    /// When the node does not have the image.
    #[default]
    IfNotPresent,
    /// Never: the image is on the node, or the pod does not start.
    Never,
}

/// Where the routing stream is served, with mutual TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Listen {
    /// Address and port.
    pub listen: SocketAddr,
}

/// Where the external metrics API is served.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MetricsApi {
    /// Address and port.
    pub listen: SocketAddr,
    /// Whether it is.
    pub enabled: Enabled,
    /// ClusterRole of the operator, which owns the APIService that it makes; absent: nobody does, and it stays after uninstalling.
    pub cluster_role: Option<String>,
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Enabled {
    /// If nobody else in the cluster does it.
    #[default]
    Auto,
    /// No.
    Off,
}

/// The admin address.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Admin {
    /// Address and port.
    pub listen: SocketAddr,
}

/// Who signs certificates, and for how long.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Certificates {
    /// The operator, or cert-manager.
    pub issuer: Issuer,
    /// cert-manager's issuer; with `issuer: certManager`.
    pub issuer_ref: Option<IssuerRef>,
    /// Secret of the authority, in the operator's namespace.
    pub authority_secret: String,
    /// Folder with the operator's own `tls.crt`, `tls.key` and `ca.crt`; with `issuer: certManager`.
    pub folder: PathBuf,
    /// Names of the operator besides its Service's, for edges that reach it by another way; with `issuer: operator`.
    pub dns_names: Vec<String>,
    /// How long a certificate holds; at a third left there is a new one.
    pub lifetime: HumanDuration,
    /// How long the authority holds; at a third left there is a new one, and both are believed.
    pub authority_lifetime: HumanDuration,
}

/// Who signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Issuer {
    /// An authority that the operator makes and rotates.
    #[default]
    Operator,
    /// cert-manager: the operator makes `Certificate` objects.
    CertManager,
}

/// An issuer of cert-manager.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerRef {
    /// Its name.
    pub name: String,
    /// `Issuer` or `ClusterIssuer`.
    #[serde(default = "defaults::cluster_issuer")]
    pub kind: String,
    /// API group, for issuers that do not come with cert-manager.
    #[serde(default = "defaults::cert_manager")]
    pub group: String,
}

/// What has to be known of the edges.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Secret with what edges show, in the operator's namespace.
    pub secret: String,
    /// Further names in that certificate.
    pub dns_names: Vec<String>,
    /// Labels of their pods; callouts are let in from these only.
    pub pod_labels: BTreeMap<String, String>,
}

/// Consent of the installation: this namespace may do something with the mail of these domains.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenant {
    /// Name of the namespace.
    pub namespace: String,
    /// As in rules: `example.com`, or `*.example.com` for every subdomain; `*` for all.
    pub domains: Vec<String>,
}

/// Defaults of all pods; what a service says in `spec.pod` goes before.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pods {
    /// Address that services listen on: `0.0.0.0`, or `[::]` in a cluster with IPv6.
    pub listen: String,
    /// Amounts of a container.
    pub resources: ResourceRequirements,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that do not matter.
    pub tolerations: Vec<Toleration>,
    /// Name of a PriorityClass.
    pub priority_class: Option<String>,
    /// For transactions that run when a pod is to go. It goes when the last one ends, so this can be long.
    pub termination_grace: HumanDuration,
}

/// NetworkPolicies of the pools.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Network {
    /// Whether there are any.
    pub enabled: bool,
    /// What pods may reach besides name servers. Nothing else is open.
    pub egress: Vec<Egress>,
}

/// Something that pods may reach.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Egress {
    /// `NAMESPACE/NAME` of the services that may; empty: all.
    pub services: Vec<String>,
    /// Whom, as in a NetworkPolicy; empty: everybody.
    pub to: Vec<NetworkPolicyPeer>,
    /// On which ports, as in a NetworkPolicy; empty: all.
    pub ports: Vec<NetworkPolicyPort>,
}

/// Why `operator.yaml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not YAML, or not the fields.
    #[error("{file}: {message}; docs/operate/operator-config.md lists the fields")]
    Fields {
        /// The file.
        file: String,
        /// Place and mistake.
        message: String,
    },
    /// A value makes no sense.
    #[error("{field}: {message}")]
    Value {
        /// Path of the field.
        field: String,
        /// What is wrong, and the remedy.
        message: String,
    },
}

/// Who this process is: from the environment that the pod gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Namespace of the operator: `POD_NAMESPACE`.
    pub namespace: String,
    /// Name of this replica: `POD_NAME`.
    pub name: String,
}

// === impl Config ===

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            file: file.clone(),
            source,
        })?;
        Self::parse(&file, &text)
    }

    /// Reads and checks a text; `file` is what errors call it. An empty text is all defaults.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let blank = text
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        let config = if blank {
            Self::default()
        } else {
            serde_saphyr::from_str::<Self>(text).map_err(|error| ConfigError::Fields {
                file: file.to_owned(),
                message: error.without_snippet().to_string(),
            })?
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (at, namespace) in self.watch.namespaces.iter().enumerate() {
            check_label(&format!("watch.namespaces[{at}]"), namespace)?;
        }
        check_count(
            "watch.namespaces",
            self.watch.namespaces.len(),
            NAMESPACES_MAX,
            "leave it empty to watch all",
        )?;
        check_label("service", &self.service)?;
        check_label("edge.secret", &self.edge.secret)?;
        check_label(
            "certificates.authoritySecret",
            &self.certificates.authority_secret,
        )?;
        self.check_issuer()?;
        self.check_images()?;
        self.check_tenants()?;
        let listen = format!("{}:1", self.pods.listen);
        if listen.parse::<SocketAddr>().is_err() {
            return refuse(
                "pods.listen",
                format!(
                    "`{}` is not an address; write 0.0.0.0 or [::]",
                    self.pods.listen
                ),
            );
        }
        Ok(())
    }

    fn check_issuer(&self) -> Result<(), ConfigError> {
        let certificates = &self.certificates;
        match (certificates.issuer, &certificates.issuer_ref) {
            (Issuer::CertManager, None) => refuse(
                "certificates.issuerRef",
                "is missing; name an issuer of cert-manager, or write issuer: operator",
            ),
            (Issuer::Operator, Some(_)) => refuse(
                "certificates.issuerRef",
                "is for issuer: certManager; leave it out",
            ),
            (Issuer::CertManager, Some(issuer)) => {
                check_label("certificates.issuerRef.name", &issuer.name)
            }
            (Issuer::Operator, None) => Ok(()),
        }
    }

    fn check_images(&self) -> Result<(), ConfigError> {
        if self.images.tag.is_empty() {
            return refuse(
                "images.tag",
                "is empty; leave it out for the operator's own version",
            );
        }
        for (name, digest) in &self.images.digests {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                return refuse(
                    &format!("images.digests.{name}"),
                    format!("`{digest}` is not sha256: and 64 hexadecimal digits"),
                );
            }
        }
        Ok(())
    }

    fn check_tenants(&self) -> Result<(), ConfigError> {
        check_count(
            "tenants",
            self.tenants.len(),
            TENANTS_MAX,
            "grant a common parent domain",
        )?;
        for (at, tenant) in self.tenants.iter().enumerate() {
            check_label(&format!("tenants[{at}].namespace"), &tenant.namespace)?;
            if tenant.domains.is_empty() {
                return refuse(
                    &format!("tenants[{at}].domains"),
                    "is empty; leave the tenant out if it may do nothing",
                );
            }
        }
        Ok(())
    }

    /// Image of a built-in service.
    pub fn image(&self, builtin: &str) -> String {
        let images = &self.images;
        let registry = images.registry.trim_end_matches('/');
        let slash = if registry.is_empty() { "" } else { "/" };
        match images.digests.get(builtin) {
            Some(digest) => format!("{registry}{slash}opes-{builtin}@{digest}"),
            None => format!("{registry}{slash}opes-{builtin}:{}", images.tag),
        }
    }
}

fn refuse(field: &str, message: impl Into<String>) -> Result<(), ConfigError> {
    Err(ConfigError::Value {
        field: field.to_owned(),
        message: message.into(),
    })
}

fn check_count(field: &str, count: usize, most: usize, remedy: &str) -> Result<(), ConfigError> {
    if count > most {
        return refuse(field, format!("{count} are more than {most}; {remedy}"));
    }
    Ok(())
}

/// A DNS label (RFC 1123), as namespaces and the objects that we name have it.
fn check_label(field: &str, name: &str) -> Result<(), ConfigError> {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let lower = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if name.len() > LABEL_OCTETS_MAX
        || !edge(bytes.first())
        || !edge(bytes.last())
        || !bytes.iter().all(lower)
    {
        return refuse(
            field,
            format!("`{name}` is not a name; write lower case letters, digits and `-`"),
        );
    }
    Ok(())
}

// === impl Identity ===

impl Identity {
    /// From `POD_NAMESPACE` and `POD_NAME`.
    pub fn from_env() -> Result<Self, ConfigError> {
        let get = |name: &str| match std::env::var(name) {
            Ok(value) if !value.is_empty() => Ok(value),
            _ => Err(ConfigError::Value {
                field: name.to_owned(),
                message: "is not set; the pod has it from its metadata, elsewhere set it by hand"
                    .into(),
            }),
        };
        Ok(Self {
            namespace: get("POD_NAMESPACE")?,
            name: get("POD_NAME")?,
        })
    }
}

// === impl PullPolicy ===

impl PullPolicy {
    /// As Kubernetes writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}
