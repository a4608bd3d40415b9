//! One revision of the rules with the clients of the services they name. Swapped as a whole; a transaction keeps the one it began with.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use opes_callout_client::{ClientTls, Group, ServiceClient, ServiceClientConfig};
use opes_host::Host;
use opes_proto::smtp;
use opes_rules::{CalloutSpec, Permission, RoutingTable, Rule, Target, TlsMode};
use opes_trace::{AgentUri, UriError};

use crate::trace::Agents;

/// Where services that are not named by an endpoint are to be found: name of the `CalloutService` → target.
pub type Endpoints = BTreeMap<String, String>;

/// A table that can be run.
pub struct Routing {
    pub(crate) table: RoutingTable,
    bindings: HashMap<String, Binding>,
    pub(crate) agents: Agents,
}

/// A rule's way to its service.
pub(crate) struct Binding {
    pub(crate) client: ServiceClient,
    pub(crate) group: Arc<Group>,
}

/// Why a table cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// The table leaves it to the operator where the service is.
    #[error(
        "CalloutService {service}: `{kind}` is deployed by the operator, and this process has no address for it\n  help: set `spec.endpoint`, or run it with `opes dev`"
    )]
    NoEndpoint {
        /// `namespace/name`.
        service: String,
        /// Which kind of target it has.
        kind: &'static str,
    },
    /// Mutual TLS, and nothing to show.
    #[error(
        "CalloutService {service}: transport.tls is `mutual`, and this edge has no certificate to show\n  help: set `callouts: {{ certificate: FILE, key: FILE, ca: FILE }}` in the edge's configuration (docs/operate/callout-tls.md)"
    )]
    NoCertificate {
        /// `namespace/name`.
        service: String,
    },
    /// Mutual TLS, and an address without it.
    #[error(
        "CalloutService {service}: transport.tls is `mutual`, and {target} is in the clear beyond this machine\n  help: reach it by https://, or write transport: {{ tls: none }} if the network is trusted"
    )]
    InTheClear {
        /// `namespace/name`.
        service: String,
        /// Where it was to be reached.
        target: String,
    },
    /// Services are named after the system.
    #[error("system: `{system}` {error}")]
    System {
        /// As configured.
        system: String,
        /// What is wrong with it.
        error: UriError,
    },
}

impl Routing {
    /// Makes the clients and names the services after `system`, an absolute URI. Connections are opened when first needed. Services that
    /// want TLS are refused.
    pub fn new(
        table: RoutingTable,
        endpoints: &Endpoints,
        system: &str,
    ) -> Result<Self, RoutingError> {
        Self::with(&Host::default(), None, table, endpoints, system)
    }

    /// As [`Routing::new`], with services that are reached over the network of `host`, and certificates for those that want TLS.
    pub fn with(
        host: &Host,
        tls: Option<&ClientTls>,
        table: RoutingTable,
        endpoints: &Endpoints,
        system: &str,
    ) -> Result<Self, RoutingError> {
        let own = AgentUri::system(system).map_err(|error| RoutingError::System {
            system: system.to_owned(),
            error,
        })?;
        let agents = Agents::new(&table, &own);
        let mut clients = HashMap::new();
        let mut bindings = HashMap::new();
        for rule in &table.rules {
            let Some(callout) = &rule.callout else {
                continue;
            };
            let client = if let Some(client) = clients.get(&callout.service) {
                ServiceClient::clone(client)
            } else {
                let client = client(host, tls, &table, &callout.service, endpoints, system)?;
                clients.insert(callout.service.clone(), client.clone());
                client
            };
            let group = Arc::new(group(rule, callout, &table.revision));
            bindings.insert(rule.name.clone(), Binding { client, group });
        }
        Ok(Self {
            table,
            bindings,
            agents,
        })
    }

    /// The way to the rule's service; none for rules that act by themselves.
    pub(crate) fn binding(&self, rule: &Rule) -> Option<&Binding> {
        self.bindings.get(&rule.name)
    }
}

fn client(
    host: &Host,
    tls: Option<&ClientTls>,
    table: &RoutingTable,
    name: &str,
    endpoints: &Endpoints,
    system: &str,
) -> Result<ServiceClient, RoutingError> {
    let no_endpoint = |kind| RoutingError::NoEndpoint {
        service: name.to_owned(),
        kind,
    };
    let service = table
        .services
        .get(name)
        .ok_or_else(|| no_endpoint("nothing"))?;
    let target = match (&service.target, endpoints.get(name)) {
        (Target::Endpoint(target), _) | (_, Some(target)) => target.clone(),
        (Target::Builtin { .. }, None) => return Err(no_endpoint("builtin")),
        (Target::Image(_), None) => return Err(no_endpoint("image")),
    };
    check_transport(name, service.tls, &target, tls)?;
    let config = ServiceClientConfig {
        tls: tls.cloned(),
        server_name: service.server_name.clone(),
        connect_timeout: service.connect_timeout,
        idle_timeout: service.idle_timeout,
        max_transactions_per_connection: service.max_transactions_per_connection,
        system: system.to_owned(),
        host: host.clone(),
        ..ServiceClientConfig::new(name, target)
    };
    Ok(ServiceClient::new(config))
}

/// Mail leaves this machine under TLS, or because somebody wrote that it may leave in the clear.
fn check_transport(
    name: &str,
    mode: TlsMode,
    target: &str,
    tls: Option<&ClientTls>,
) -> Result<(), RoutingError> {
    let service = name.to_owned();
    if target.starts_with("https://") {
        return tls.map_or(Err(RoutingError::NoCertificate { service }), |_| Ok(()));
    }
    let local = ["unix:", "http://127.", "http://[::1]:", "http://localhost:"];
    if mode == TlsMode::None || local.iter().any(|start| target.starts_with(start)) {
        return Ok(());
    }
    let target = target.to_owned();
    Err(RoutingError::InTheClear { service, target })
}

fn group(rule: &Rule, callout: &CalloutSpec, revision: &str) -> Group {
    Group {
        rule: rule.name.clone(),
        revision: revision.to_owned(),
        parameters_json: callout.parameters_json.clone(),
        allow: callout.allow.iter().map(permission).collect(),
    }
}

/// The rule's word for a permission in the profile's.
fn permission(permission: Permission) -> smtp::Permission {
    smtp::Permission::try_from(i32::from(permission.number())).unwrap_or_default()
}
