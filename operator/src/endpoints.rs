//! Where things are: EndpointSlices to what edges are told.

use std::collections::{BTreeMap, BTreeSet};

use opes_proto::routing::{Endpoints, Peers, Pool};
use opes_rules::TlsMode;
use opes_rules::object::CalloutServiceSpec;
use serde_json::Value;

use crate::world::Slice;

/// Most instances of one service that edges are told of.
const INSTANCES_MAX: usize = 10_000;
/// Port of the headless Service, by name.
pub const OCP_PORT: &str = "ocp";
/// Port of the operator's Service that edges follow, by name.
pub const ROUTING_PORT: &str = "routing";

/// Name of everything that is made for a service.
pub fn pool_name(service: &str) -> String {
    format!("opes-{service}")
}

/// The name that the certificates of a pool are for.
pub fn server_name(namespace: &str, name: &str, spec: &CalloutServiceSpec) -> String {
    let own = || format!("{}.{namespace}.svc", pool_name(name));
    spec.transport.server_name.clone().unwrap_or_else(own)
}

/// The operator's pods speak TLS unless somebody has written that mail may be read on the way.
pub fn has_tls(spec: &CalloutServiceSpec) -> bool {
    spec.transport.tls != Some(TlsMode::None)
}

/// Pools of all services that the operator runs, by `NAMESPACE/NAME`.
pub fn pools<'s>(
    services: impl Iterator<Item = (&'s str, &'s CalloutServiceSpec)>,
    slices: &[Slice],
) -> Endpoints {
    let mut by_service: BTreeMap<(&str, &str), Vec<&Slice>> = BTreeMap::new();
    for slice in slices {
        by_service
            .entry((&slice.namespace, &slice.service))
            .or_default()
            .push(slice);
    }
    let mut pools: Vec<Pool> = services
        .filter(|(_, spec)| spec.has_pods())
        .map(|(qualified, spec)| {
            let (namespace, name) = qualified.split_once('/').unwrap_or_default();
            let scheme = if has_tls(spec) { "https" } else { "http" };
            let full_name = pool_name(name);
            let found = by_service.get(&(namespace, full_name.as_str()));
            Pool {
                service: qualified.to_owned(),
                endpoints: addresses(scheme, OCP_PORT, found.into_iter().flatten().copied()),
                server_name: server_name(namespace, name, spec),
            }
        })
        .collect();
    pools.sort_by(|a, b| a.service.cmp(&b.service));
    Endpoints { pools }
}

/// Where the operator's replicas are.
pub fn peers(service: &str, namespace: &str, slices: &[Slice]) -> Peers {
    let own = slices
        .iter()
        .filter(|slice| slice.service == service && slice.namespace == namespace);
    Peers {
        addresses: addresses("https", ROUTING_PORT, own),
        server_name: format!("{service}.{namespace}.svc"),
    }
}

/// Addresses that are ready and do not terminate, sorted, each once.
fn addresses<'s>(
    scheme: &str,
    port_name: &str,
    slices: impl Iterator<Item = &'s Slice>,
) -> Vec<String> {
    let mut found = BTreeSet::new();
    for slice in slices {
        let Some(port) = port(&slice.content, port_name) else {
            continue;
        };
        let endpoints = slice.content["endpoints"].as_array();
        for endpoint in endpoints
            .into_iter()
            .flatten()
            .filter(|endpoint| is_ready(endpoint))
        {
            let address = endpoint["addresses"][0].as_str().unwrap_or_default();
            match address.parse() {
                Ok(std::net::IpAddr::V4(address)) => {
                    found.insert(format!("{scheme}://{address}:{port}"))
                }
                Ok(std::net::IpAddr::V6(address)) => {
                    found.insert(format!("{scheme}://[{address}]:{port}"))
                }
                // A slice of names (`FQDN`) is nobody's of ours.
                Err(_) => false,
            };
        }
    }
    found.into_iter().take(INSTANCES_MAX).collect()
}

fn port(slice: &Value, name: &str) -> Option<u64> {
    let ports = slice["ports"].as_array()?;
    let port = ports
        .iter()
        .find(|port| port["name"].as_str() == Some(name))?;
    port["port"].as_u64()
}

/// Absent means ready and not terminating, as the API has it.
fn is_ready(endpoint: &Value) -> bool {
    let conditions = &endpoint["conditions"];
    conditions["ready"].as_bool().unwrap_or(true)
        && !conditions["terminating"].as_bool().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "json! makes a value")]
    fn slice(namespace: &str, service: &str, port: &str, endpoints: Value) -> Slice {
        Slice {
            namespace: namespace.into(),
            service: service.into(),
            content: json!({ "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "name": port, "port": 9000 }] }),
        }
    }

    fn spec(text: &str) -> CalloutServiceSpec {
        let text = format!(
            "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: scan }}\nspec: {text}\n"
        );
        let (mut objects, found) = opes_rules::parse("test", &text);
        assert!(found.is_empty(), "{found:?}");
        match objects.pop().unwrap().resource {
            opes_rules::Resource::CalloutService(service) => service.spec,
            opes_rules::Resource::OpesRule(_) => unreachable!(),
        }
    }

    #[test]
    fn only_ready_instances_of_the_services_own_pool_are_told() {
        let builtin = spec("{ class: adapt, builtin: { name: normalizer } }");
        let outside = spec("{ class: adapt, endpoint: 'https://filter.example.com:9000' }");
        let ready = json!([
            { "addresses": ["192.0.2.2"], "conditions": { "ready": true } },
            { "addresses": ["192.0.2.1"] },
            { "addresses": ["192.0.2.3"], "conditions": { "ready": false } },
            { "addresses": ["192.0.2.4"], "conditions": { "ready": true, "terminating": true } },
            { "addresses": ["2001:db8::1"], "conditions": { "ready": true } },
            { "addresses": ["name.example"], "conditions": { "ready": true } },
        ]);
        let one = |address: &str| json!([{ "addresses": [address] }]);
        let slices = [
            slice("mail", "opes-scan", "ocp", ready),
            slice("mail", "opes-scan", "ocp", one("192.0.2.2")),
            slice("mail", "opes-scan", "admin", one("192.0.2.9")),
            slice("other", "opes-scan", "ocp", one("192.0.2.10")),
            slice("mail", "opes-outside", "ocp", one("192.0.2.11")),
        ];
        let services = [
            ("mail/scan", &builtin),
            ("mail/outside", &outside),
            ("mail/none", &builtin),
        ];
        let pools = pools(services.into_iter(), &slices).pools;
        assert_eq!(pools.len(), 2);
        assert_eq!(
            (pools[0].service.as_str(), pools[0].endpoints.len()),
            ("mail/none", 0)
        );
        assert_eq!(
            pools[1].endpoints,
            [
                "https://192.0.2.1:9000",
                "https://192.0.2.2:9000",
                "https://[2001:db8::1]:9000"
            ]
        );
        assert_eq!(pools[1].server_name, "opes-scan.mail.svc");
    }

    #[test]
    fn a_pool_without_tls_says_so() {
        let clear =
            spec("{ class: adapt, builtin: { name: normalizer }, transport: { tls: none } }");
        let slices = [slice(
            "mail",
            "opes-scan",
            "ocp",
            json!([{ "addresses": ["192.0.2.1"] }]),
        )];
        let pools = pools([("mail/scan", &clear)].into_iter(), &slices).pools;
        assert_eq!(pools[0].endpoints, ["http://192.0.2.1:9000"]);
    }

    #[test]
    fn peers_are_the_routing_port_of_the_own_service() {
        let slices = [slice(
            "opes",
            "opes-operator",
            "routing",
            json!([{ "addresses": ["192.0.2.1"] }]),
        )];
        let peers = peers("opes-operator", "opes", &slices);
        assert_eq!(peers.addresses, ["https://192.0.2.1:9000"]);
        assert_eq!(peers.server_name, "opes-operator.opes.svc");
    }
}
