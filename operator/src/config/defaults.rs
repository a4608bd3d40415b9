//! What holds where `operator.yaml` says nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use k8s_openapi::api::core::v1::ResourceRequirements;
use opes_rules::object::HumanDuration;

use super::{
    Admin, Certificates, Config, EdgeConfig, Enabled, Images, Issuer, Listen, MetricsApi, Network,
    Pods, PullPolicy, Watch,
};

impl Default for Config {
    fn default() -> Self {
        Self {
            watch: Watch::default(),
            service: "opes-operator".into(),
            images: Images::default(),
            routing: Listen::default(),
            metrics_api: MetricsApi::default(),
            admin: Admin::default(),
            certificates: Certificates::default(),
            edge: EdgeConfig::default(),
            tenants: Vec::new(),
            pods: Pods::default(),
            network_policy: Network::default(),
        }
    }
}

pub(super) fn cluster_issuer() -> String {
    "ClusterIssuer".into()
}

pub(super) fn cert_manager() -> String {
    "cert-manager.io".into()
}

const fn any_address(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), port)
}

impl Default for Images {
    fn default() -> Self {
        Self {
            registry: String::new(),
            tag: env!("CARGO_PKG_VERSION").into(),
            digests: BTreeMap::new(),
            pull_policy: PullPolicy::default(),
            pull_secrets: Vec::new(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            listen: any_address(9443),
        }
    }
}

impl Default for MetricsApi {
    fn default() -> Self {
        Self {
            listen: any_address(9444),
            enabled: Enabled::default(),
            cluster_role: None,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: any_address(9090),
        }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            issuer: Issuer::default(),
            issuer_ref: None,
            authority_secret: "opes-ca".into(),
            folder: "/etc/opes/tls".into(),
            dns_names: Vec::new(),
            lifetime: HumanDuration::from_secs(90 * 86_400),
            authority_lifetime: HumanDuration::from_secs(5 * 365 * 86_400),
        }
    }
}

impl Default for EdgeConfig {
    fn default() -> Self {
        let labels = [("app.kubernetes.io/component", "edge")];
        Self {
            secret: "opes-edge-tls".into(),
            dns_names: Vec::new(),
            pod_labels: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        }
    }
}

impl Default for Pods {
    fn default() -> Self {
        let amount =
            |text: &str| k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.into());
        let resources = ResourceRequirements {
            requests: Some(
                [
                    ("cpu".into(), amount("100m")),
                    ("memory".into(), amount("64Mi")),
                ]
                .into(),
            ),
            limits: Some([("memory".into(), amount("512Mi"))].into()),
            ..ResourceRequirements::default()
        };
        Self {
            listen: "0.0.0.0".into(),
            resources,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            priority_class: None,
            // A rule waits 600 s at most for a transaction.
            termination_grace: HumanDuration::from_secs(615),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            enabled: true,
            egress: Vec::new(),
        }
    }
}
