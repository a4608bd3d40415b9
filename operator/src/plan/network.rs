//! Who may speak with a pool, and with whom it may.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ADMIN_PORT, Input, Planned};
use crate::kinds::Kind;

/// Callouts from edges only; probes and metrics from the cluster; to name servers, and to what `operator.yaml` says.
pub(super) fn policy(input: &Input<'_>) -> Option<Planned> {
    if !input.config.network_policy.enabled {
        return None;
    }
    let callouts = NetworkPolicyIngressRule {
        from: Some(vec![edges(input)]),
        ports: Some(vec![port("TCP", input.port())]),
    };
    let watched = NetworkPolicyIngressRule {
        from: Some(vec![NetworkPolicyPeer {
            namespace_selector: Some(LabelSelector::default()),
            ..NetworkPolicyPeer::default()
        }]),
        ports: Some(vec![port("TCP", ADMIN_PORT)]),
    };
    let policy = NetworkPolicy {
        metadata: input.metadata(),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(input.label_selector()),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(vec![callouts, watched]),
            egress: Some(egress(input)),
        }),
    };
    Some(input.planned(Kind::NetworkPolicy, policy))
}

fn edges(input: &Input<'_>) -> NetworkPolicyPeer {
    let namespace = (
        "kubernetes.io/metadata.name".to_owned(),
        input.operator_namespace.to_owned(),
    );
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some([namespace].into()),
            ..LabelSelector::default()
        }),
        pod_selector: Some(LabelSelector {
            match_labels: Some(input.config.edge.pod_labels.clone()),
            ..LabelSelector::default()
        }),
        ip_block: None,
    }
}

fn egress(input: &Input<'_>) -> Vec<NetworkPolicyEgressRule> {
    let names = NetworkPolicyEgressRule {
        to: None,
        ports: Some(vec![port("UDP", 53), port("TCP", 53)]),
    };
    let qualified = format!("{}/{}", input.namespace, input.name);
    let configured = input.config.network_policy.egress.iter();
    let allowed = configured
        .filter(|rule| rule.services.is_empty() || rule.services.contains(&qualified))
        .map(|rule| NetworkPolicyEgressRule {
            to: (!rule.to.is_empty()).then(|| rule.to.clone()),
            ports: (!rule.ports.is_empty()).then(|| rule.ports.clone()),
        });
    std::iter::once(names).chain(allowed).collect()
}

fn port(protocol: &str, number: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.into()),
        port: Some(IntOrString::Int(number)),
        end_port: None,
    }
}
